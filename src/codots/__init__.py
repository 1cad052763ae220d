"""Connect the Dots: train, measure and deploy language-model agents that learn across the tasks of one world."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "make_pack": "codots.domain",
    "get_domain": "codots.domain",
    "register": "codots.domain",
    "Domain": "codots.domain",
    "Step": "codots.domain",
    "check_domain": "codots.check",
    "TrainConfig": "codots.config",
    "load_recipe": "codots.recipe",
    "train": "codots.train",
    "evaluate": "codots.evaluate",
    "reference": "codots.evaluate",
    "load_rollouts": "codots.records",
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
    from codots.check import check_domain
    from codots.config import TrainConfig
    from codots.domain import Domain, Step, get_domain, make_pack, register
    from codots.evaluate import evaluate, reference
    from codots.recipe import load_recipe
    from codots.records import load_rollouts
    from codots.train import train


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import codots` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'codots' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Keeps `codots.train` the function, though a module of that name is imported too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
