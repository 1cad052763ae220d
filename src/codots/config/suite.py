"""Suites: several evaluations of one model, described in one YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codots.config.evaluate import EvalConfig
from codots.config.load import read_recipe, settings

SUITE = "suite"
"""Key of a file of settings that makes it a suite: a mapping from the name of each evaluation to its settings."""


@dataclass(frozen=True)
class Suite:
    """The evaluations of a suite, by name."""

    name: str
    evaluations: dict[str, EvalConfig]


def is_suite(path: Path) -> bool:
    """Return whether a file of settings is a suite. Raises ValueError if it cannot be read."""
    return SUITE in read_recipe(path)


def load_suite(path: Path, model: str, changes: list[str] | None = None) -> Suite:
    """Read a suite. Settings outside `suite` hold for every evaluation, and `key=value` changes override all others.

    Raises ValueError, in one line, if the file, an evaluation or a change is invalid.
    """
    shared = read_recipe(path)
    found = shared.pop(SUITE, None)
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{path}: {SUITE} is {found!r:.80}; expected names of evaluations, each with its settings")
    evaluations = {}
    for name, own in found.items():
        where = f"{path}: {SUITE}.{name}"
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{where}: expected a name of letters, digits, - and _")
        if not isinstance(own, dict | None):
            raise ValueError(f"{where} is {own!r:.80}; expected settings of codots eval")
        values: dict[str, Any] = shared | (own or {}) | {"model": model}
        evaluations[name] = settings(EvalConfig, values, changes, where)
        if evaluations[name].rows is not None:
            raise ValueError(f"{where}: rows is set; a suite keeps its rows in its own folder, which --out names")
    return Suite(path.stem, evaluations)
