"""Connect the Dots: train, measure and deploy language-model agents that learn across the tasks of one world."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "make_pack": "codots.domains.registry",
    "get_domain": "codots.domains.registry",
    "register": "codots.domains.registry",
    "Domain": "codots.domains.base",
    "Step": "codots.domains.base",
    "check_domain": "codots.domains.check",
    "TrainConfig": "codots.config.schema",
    "load_recipe": "codots.config.load",
    "train": "codots.training.train",
    "evaluate": "codots.evaluation.evaluate",
    "reference": "codots.evaluation.evaluate",
    "load_rollouts": "codots.rollout.records",
}
__all__ = [
    "Domain",
    "Step",
    "TrainConfig",
    "__version__",
    "check_domain",
    "evaluate",
    "get_domain",
    "load_recipe",
    "load_rollouts",
    "make_pack",
    "reference",
    "register",
    "train",
]

if TYPE_CHECKING:
    from codots.config.load import load_recipe
    from codots.config.schema import TrainConfig
    from codots.domains.base import Domain, Step
    from codots.domains.check import check_domain
    from codots.domains.registry import get_domain, make_pack, register
    from codots.evaluation.evaluate import evaluate, reference
    from codots.rollout.records import load_rollouts
    from codots.training.train import train


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import codots` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'codots' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
