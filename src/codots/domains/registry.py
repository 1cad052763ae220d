"""Registry of domains by id, and drawing of packs."""

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
from codots.domains.ralph import KINDS, ralph

ENTRY_POINTS, BRIDGES = "codots.domains", "codots.bridges"
SPLITS = ("train", "dev", "test")
"""The standard splits. Any other word names a further held-out split."""
UNBRIDGED = {
    "verifiers": "a taskset has no world that its tasks share, and no reference answers; write a domain around it"
}
"""Benchmarks without a bridge, by the family that one would have, and why there is none."""


@dataclass(frozen=True)
class Bridge:
    """A third-party benchmark whose domains are built on demand. Their ids have the form `family:name`."""

    build: Callable[[str], Domain]
    """Function that builds the domain of the name after the colon. Raises ValueError if the name is unknown."""
    example: str
    """An example of a full id."""
    package: str
    """Name of the module that must be installed."""
    extra: str
    """Argument of `pip install` that installs this module."""


@lru_cache(maxsize=1)
def _modules() -> dict[str, str]:
    """Return the module of each family in this package and in all other installed packages."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


_registry: dict[str, Domain] = {}


def register(domain: Domain) -> Domain:
    """Register a domain under its id. From then on, domains of this type are pickled by id instead of by value."""
    _registry[domain.id] = domain
    return _pickled_by_id(domain)


def _pickled_by_id(domain: Domain) -> Domain:
    """Make domains of this type pickle as an id and a module, as `_by_id` returns them. Return the domain."""
    copyreg.pickle(type(domain), _by_id)
    return domain


def _by_id(domain: Domain) -> tuple[Callable[..., Domain], tuple[str, str]]:
    """Reduce a domain to its id and the name of the module that registers it."""
    return _unpickled, (domain.id, type(domain).__module__)


def get_domain(id: str) -> Domain:
    """Return a domain by its id: a name with a version, `family:name` for a domain of a bridge, or `ralph:id`.

    Raises ValueError, with the nearest known id, if the id is unknown. Also raises ValueError if the package of the
    bridge is not installed.
    """
    family, colon, name = id.partition(":")
    if family in KINDS and colon:
        if name.partition(":")[0] in KINDS:
            raise ValueError(
                f"{id} repeats tasks twice; expected {family}: before the id of a domain, such as bandit-v1"
            )
        return _pickled_by_id(ralph(family, get_domain(name)))
    if id not in _registry and colon and family in bridges():
        return _over_bridge(id)
    if colon and family in UNBRIDGED:
        raise ValueError(f"{id} has no bridge: {UNBRIDGED[family]}")
    if id not in _registry:
        asked = id.rpartition("-v")[0]
        for known, module in _modules().items():
            if asked in (known, ""):
                import_module(module)
    if id not in _registry:
        examples = [bridge.example for bridge in bridges().values()]
        hint = " (your own is found by its id once it is installed with an entry point)" if ":" in id else ""
        raise ValueError(nearest(id, domain_ids() + examples, "domain") + hint)
    return _registry[id]


def first_preset(id: str) -> str:
    """Return the default preset of a domain: `easy` if there is one, otherwise the first preset."""
    presets = list(get_domain(id).presets)
    return "easy" if "easy" in presets else presets[0]


def find_domain(name: str) -> Domain:
    """Return a domain by its id or by `module:Class`.

    A domain found by `module:Class` is also registered. `Class` may also name a domain instance. Raises ValueError if
    the domain is not found.
    """
    module, colon, thing = name.partition(":")
    if not colon or module in (*bridges(), *KINDS, *UNBRIDGED):
        return get_domain(name)
    try:
        home = vars(import_module(module))
    except (ImportError, ValueError, TypeError) as error:  # the last two for an invalid module name
        raise ValueError(f"cannot import {module!r} ({error}); expected an id, or module:Class of a domain") from error
    there = {key: value for key, value in home.items() if isinstance(value, Domain) or _is_family(value)}
    check_known(thing, there, f"domain of {module}")
    return register(there[thing]() if _is_family(there[thing]) else there[thing])


def _is_family(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Domain) and not inspect.isabstract(value)


@lru_cache(maxsize=1)
def bridges() -> dict[str, Bridge]:
    """Return all bridges by family, including bridges whose package is not installed."""
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


def _unpickled(id: str, module: str) -> Domain:
    """Return a domain by id during unpickling; import its module first if this process has not registered it."""
    if id not in _registry:
        import_module(module)
    return get_domain(id)


def domain_ids() -> list[str]:
    """Return the sorted ids of the domains of all installed families. Domains of bridges are not listed."""
    for module in _modules().values():
        import_module(module)
    return sorted(_registry)


def check_split(name: str) -> str:
    """Return the name of a split, which may be any word of letters, digits, `-` and `_`.

    Raises ValueError if it is not such a word, starts with `-`, or looks like a typo of a standard split.
    """
    if not name.replace("-", "").replace("_", "").isalnum() or name.startswith("-"):
        raise ValueError("expected train, dev, test, or another word")
    if name not in SPLITS and (close := get_close_matches(name, SPLITS, n=1, cutoff=0.7)):
        raise ValueError(f"expected train, dev, test, or a word unlike them; the nearest is {close[0]!r}")
    return name


def make_pack(id: str, preset: str, split: str, index: int, size: int) -> Pack:
    """Draw a pack of `size` tasks. The pack depends on these arguments alone.

    A longer pack begins with the tasks of a shorter one. Raises ValueError if the domain or the preset is unknown, if
    the preset cannot be drawn yet, or if `size` is less than 1.
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
