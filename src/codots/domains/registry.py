"""Where to find a domain, and how to draw a pack from it."""

from __future__ import annotations

import copyreg
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from codots.core.rng import stream
from codots.core.suggest import check_known, nearest
from codots.domains.base import Domain, Pack, Task, World

ENTRY_POINTS, BRIDGES = "codots.domains", "codots.bridges"
SPLITS = ("train", "dev", "test")
"""Splits that everybody knows; any other word is a split as well, held out from these."""


@dataclass(frozen=True)
class Bridge:
    """A benchmark from outside, whose domains are made when they are asked for, by ids of the form `family:name`."""

    build: Callable[[str], Domain]
    """Makes the domain of the name after the colon; ValueError, naming the nearest, for one that there is not."""
    example: str
    """A whole id that can be asked for."""
    package: str
    """The module that has to be installed."""
    extra: str
    """What `pip install` is given for it."""


@lru_cache(maxsize=1)
def _modules() -> dict[str, str]:
    """Where each family lives, in this package or in any other that is installed."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


_registry: dict[str, Domain] = {}


def register(domain: Domain) -> Domain:
    """Make a domain known by its id, by which it also travels between processes; others are pickled by value."""
    _registry[domain.id] = domain
    return _pickled_by_id(domain)


def _pickled_by_id(domain: Domain) -> Domain:
    """Let a domain travel between processes by its id, and by the name of the module that registers it."""
    copyreg.pickle(type(domain), _by_id)
    return domain


def _by_id(domain: Domain) -> tuple[Callable[..., Domain], tuple[str, str]]:
    """Give pickle what finds the domain again: its id and the module that registers it."""
    return _arrived, (domain.id, type(domain).__module__)


def get_domain(id: str) -> Domain:
    """Find a domain by its versioned id, or by `family:name` over a bridge.

    Raises ValueError for an unknown one, naming the nearest, and for a bridge whose package is not installed.
    """
    if id not in _registry and ":" in id and id.partition(":")[0] in bridges():
        return _over_bridge(id)
    if id not in _registry:
        family = id.rpartition("-v")[0]
        for name, module in _modules().items():
            if family in (name, ""):
                import_module(module)
    if id not in _registry:
        examples = [bridge.example for bridge in bridges().values()]
        hint = " (your own is found by its id once it is installed with an entry point)" if ":" in id else ""
        raise ValueError(nearest(id, domain_ids() + examples, "domain") + hint)
    return _registry[id]


def first_preset(id: str) -> str:
    """The preset of somebody who names none: `easy`, else the domain's first."""
    presets = list(get_domain(id).presets)
    return "easy" if "easy" in presets else presets[0]


def find_domain(name: str) -> Domain:
    """Find a domain by its id or as `module:Class`, which registers it; a wrong name raises ValueError."""
    module, colon, thing = name.partition(":")
    if not colon or module in bridges():
        return get_domain(name)
    try:
        home = vars(import_module(module))
    except (ImportError, ValueError, TypeError) as error:  # the latter two for what is no name of a module
        raise ValueError(f"cannot import {module!r} ({error}); expected an id, or module:Class of a domain") from error
    there = {key: value for key, value in home.items() if isinstance(value, Domain) or _is_family(value)}
    check_known(thing, there, f"domain of {module}")
    return register(there[thing]() if _is_family(there[thing]) else there[thing])


def _is_family(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Domain) and not inspect.isabstract(value)


@lru_cache(maxsize=1)
def bridges() -> dict[str, Bridge]:
    """Every bridge by its family, whether its package is installed or not."""
    return {point.name: point.load() for point in sorted(entry_points(group=BRIDGES))}


@cache
def _over_bridge(id: str) -> Domain:
    family, _, name = id.partition(":")
    bridge = bridges()[family]
    try:
        return _pickled_by_id(bridge.build(name))
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != bridge.package:
            raise ValueError(f"{id} cannot be made: {error}") from error
        raise ValueError(f"{id} needs {bridge.package}: pip install {bridge.extra!r}") from error


def _arrived(id: str, module: str) -> Domain:
    """Find a domain in the process that unpickles it."""
    if id not in _registry:
        import_module(module)
    return get_domain(id)


def domain_ids() -> list[str]:
    """Name every registered domain; `bridges` lead to more."""
    for module in _modules().values():
        import_module(module)
    return sorted(_registry)


def check_split(name: str) -> str:
    """Return the name of a split, which is any word; ValueError for what is none, and for what looks like a slip."""
    if not name.replace("-", "").replace("_", "").isalnum() or name.startswith("-"):
        raise ValueError("expected train, dev, test, or another word")
    if name not in SPLITS and (close := get_close_matches(name, SPLITS, n=1, cutoff=0.7)):
        raise ValueError(f"expected train, dev, test, or a word unlike them; the nearest is {close[0]!r}")
    return name


def make_pack(id: str, preset: str, split: str, index: int, size: int) -> Pack:
    """Draw the pack of this name; it depends on nothing else.

    The tasks of a longer pack begin with those of a shorter one. Raises ValueError for an unknown domain or preset.
    """
    domain = get_domain(id)
    check_known(preset, domain.presets, f"preset of {id}")
    if lacks := domain.lacks(preset):
        raise ValueError(f"{id} {preset} cannot be drawn yet: {lacks}")
    if size < 1:
        raise ValueError(f"a pack of {size} tasks; expected at least 1")
    names = (id, preset, split, index)
    dials = domain.presets[preset]
    rng = stream(*names, "world")
    hidden = domain.make_world(rng, dials)
    while not domain.belongs(hidden, split):
        hidden = domain.make_world(rng, dials)
    world = World(hidden, dials, split, names)
    tasks = []
    for j in range(size):
        content = domain.make_task(world, j, stream(*names, "task", j))
        tasks.append(Task(domain, world, j, content, (*names, "task", j)))
    return Pack(domain, preset, split, index, world, tuple(tasks))
