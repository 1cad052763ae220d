"""Connect the Dots: train, measure and deploy language-model agents that learn across the tasks of one world."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_NAMES = {
    "Agent": "codots.agent.agent",
    "Domain": "codots.domains.base",
    "Engine": "codots.engine.base",
    "EvalConfig": "codots.config.evaluate",
    "ImitateConfig": "codots.config.imitate",
    "Step": "codots.domains.base",
    "TrainConfig": "codots.config.schema",
    "check_domain": "codots.domains.check",
    "evaluate": "codots.evaluation.evaluate",
    "get_domain": "codots.domains.registry",
    "imitate": "codots.training.imitate",
    "load_recipe": "codots.config.load",
    "load_rollouts": "codots.rollout.records",
    "make_pack": "codots.domains.registry",
    "baselines": "codots.evaluation.evaluate",
    "register": "codots.domains.registry",
    "train": "codots.training.train",
}
"""Module of each public name. The module is imported when the name is first used."""
_MODULES = {"credit": "codots.algorithm.credit", "losses": "codots.algorithm.losses"}
"""Full name of each public module, by its short name."""
__all__ = [
    "Agent",
    "Domain",
    "Engine",
    "EvalConfig",
    "ImitateConfig",
    "Step",
    "TrainConfig",
    "__version__",
    "baselines",
    "check_domain",
    "credit",
    "evaluate",
    "get_domain",
    "imitate",
    "load_recipe",
    "load_rollouts",
    "losses",
    "make_pack",
    "register",
    "train",
]

if TYPE_CHECKING:
    from codots.agent.agent import Agent
    from codots.algorithm import credit, losses
    from codots.config.evaluate import EvalConfig
    from codots.config.imitate import ImitateConfig
    from codots.config.load import load_recipe
    from codots.config.schema import TrainConfig
    from codots.domains.base import Domain, Step
    from codots.domains.check import check_domain
    from codots.domains.registry import get_domain, make_pack, register
    from codots.engine.base import Engine
    from codots.evaluation.evaluate import baselines, evaluate
    from codots.rollout.records import load_rollouts
    from codots.training.imitate import imitate
    from codots.training.train import train


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import codots` does not load torch."""
    if name in _MODULES:
        value: Any = import_module(_MODULES[name])
    elif name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module 'codots' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
