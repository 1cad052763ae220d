"""What a family of worlds must offer, where to find one, and how to draw a pack from it."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from codots.core.rng import Pack, Task, World, stream

Rng = np.random.Generator
STYLES = ("natural", "compact")
POLICIES = ("random", "bayes", "informed")
"""Names of the scripted policies, by what they know."""
ENTRY_POINTS, BRIDGES = "codots.domains", "codots.bridges"
NO_CHANCE = stream("no chance")
"""For environments that draw nothing."""


@dataclass(frozen=True)
class Step:
    """What an environment answers to an action."""

    observation: str
    reward: float
    done: bool
    feedback: str = ""
    """Once done: a sentence for the updater on how it ended."""
    stop: str | None = None
    """Once done: a domain's word for how it ended; `malformed` is shared by all."""
    view: Any = None
    """The state after the action, as `Env.view`, for policies and reports; never shown to a model."""


class Env(Protocol):
    """One task, served once."""

    view: Any
    """The public state of the task, for scripted policies and drawings."""

    def observe(self) -> str:
        """Give the opening observation."""
        ...

    def step(self, text: str) -> Step:
        """Act with the model's text; malformed text is a `Step` with `stop="malformed"`, never an exception."""
        ...


class Policy(Protocol):
    """A scripted player; one object plays a whole life."""

    def act(self, view: Any) -> str:
        """Answer a view with the text of an action, in any style."""
        ...

    def end(self, step: Step) -> None:
        """Learn of the last outcome of a task."""
        ...


class Domain(ABC):
    """A family of worlds; the optional parts fall back, so a small domain stays small."""

    id: str
    """Versioned: `frozen-lake-v1`."""
    presets: dict[str, Any]
    """Dials by name."""
    styles: tuple[str, ...] = ("natural",)
    sizes: tuple[int, int] = (4, 8)
    """Tasks in the packs that are trained on, and in those that are measured on."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """The least and the greatest reward of a task."""
    reveals_reward: bool = True
    """Whether the updater may read the reward."""
    blocking: bool = False
    """Whether `step` waits for the outside world, and so runs in a thread."""
    patience: float = 300.0
    """Seconds that a blocking `step` may take; an environment that needs longer is taken to be down."""
    chance: bool = True
    """Whether an environment draws at random; one that does not is spared a generator of its own."""
    exact: bool = False
    """Whether `bayes` is the true optimum of the task under the posterior."""

    def __reduce__(self) -> Any:
        """Travel between processes by name, and by that of the module that registers it."""
        return _arrived, (self.id, type(self).__module__)

    @abstractmethod
    def make_world(self, rng: Rng, dials: Any) -> Any:
        """Draw what is hidden."""

    @abstractmethod
    def make_task(self, world: World, position: int, rng: Rng) -> Any:
        """Draw the content of one task."""

    @abstractmethod
    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open an environment for a task."""

    def open(self, task: Task, *, style: str, memory: object | None) -> Env:
        """Open the environment that the task's stream gives; an unknown style raises ValueError with the known ones."""
        if style not in self.styles:
            raise ValueError(nearest(style, list(self.styles), "prompt style"))
        rng = stream(*task.names, "env") if self.chance else NO_CHANCE
        return self.make_env(task, style=style, memory=memory, rng=rng)

    @abstractmethod
    def rules_text(self, task: Task, style: str) -> str:
        """Say the rules of a task, to the solver and to the updater alike."""

    @abstractmethod
    def policy(self, name: str, world: World) -> Policy:
        """Give a scripted policy: `random`, `informed` (knows the world) or `bayes` (knows only what it saw)."""

    def lacks(self, preset: str) -> str | None:
        """What has to be set before this preset can be drawn, in one line; None if it can be."""
        return None

    def belongs(self, hidden: Any, split: str) -> bool:
        """Whether what is hidden may be met in this split; what may not is drawn again."""
        return True

    def side(self, task: Task) -> str | None:
        """The side of the wall, `train` or `held-out`, that a task's public content is on; None where there is none.

        It may hang on the content alone.
        """
        return None

    def make_memory(self, world: World) -> object | None:
        """Make what an environment may carry over the tasks of one life."""
        return None

    def oracle_context(self, world: World, style: str) -> str:
        """Write the context of an agent that knows the world."""
        return ""

    def floor(self, task: Task) -> float:
        """A reward that needs no skill."""
        return self.bounds[0]

    def ceiling(self, task: Task) -> float:
        """The expected reward of a player that knows the world."""
        return self.bounds[1]

    def twin(self, world: World, rng: Rng) -> World:
        """Draw a world with the same public face and another hidden rule."""
        for _ in range(100):  # where little is hidden, a draw may be the same again
            hidden = self.make_world(rng, world.dials)
            if hidden != world.hidden and self.belongs(hidden, world.split):
                break
        return replace(world, hidden=hidden)

    def facts(self, world: World, context: str) -> tuple[int, int, int] | None:
        """Count a context's claims: (right, wrong, knowable), or None where the domain cannot tell."""
        return None

    def draw(self, view: Any) -> str | None:
        """Draw a view as text."""
        return None


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


def nearest(given: str, known: list[str], what: str) -> str:
    """Word the one line that a wrong name deserves; of very many names it tells how many there are."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    hint = f"; the nearest is {close[0]!r}" if close else ""
    choices = ", ".join(sorted(known)) if len(known) <= 40 else f"{len(known)} names, from {min(known)} to {max(known)}"
    return f"unknown {what} {given!r}; expected one of {choices}{hint}"


def closest(path: Path, *others: str) -> str:
    """Name the neighbour, or another word, that a path may have meant, or nothing."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    known = {other: other for other in others} | {e.name: str(e) for e in beside if e.name != path.name}
    close = difflib.get_close_matches(path.name, known, n=1)
    return f"; the nearest is {known[close[0]]!r}" if close else ""


@lru_cache(maxsize=1)
def _modules() -> dict[str, str]:
    """Where each family lives, in this package or in any other that is installed."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


_registry: dict[str, Domain] = {}


def register(domain: Domain) -> Domain:
    """Make a domain known by its id."""
    _registry[domain.id] = domain
    return domain


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
    if thing not in there:
        raise ValueError(nearest(thing, list(there), f"domain of {module}"))
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
        return bridge.build(name)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != bridge.package:
            raise ValueError(f"{id} cannot be made: {error}") from error
        raise ValueError(f"{id} needs {bridge.package}: pip install {bridge.extra!r}") from error


def _arrived(id: str, module: str) -> Domain:
    if id not in _registry:
        import_module(module)
    return get_domain(id)


def domain_ids() -> list[str]:
    """Name every registered domain; `bridges` lead to more."""
    for module in _modules().values():
        import_module(module)
    return sorted(_registry)


def make_pack(id: str, preset: str, split: str, index: int, size: int) -> Pack:
    """Draw the pack of this name; it depends on nothing else.

    The tasks of a longer pack begin with those of a shorter one. Raises ValueError for an unknown domain or preset.
    """
    domain = get_domain(id)
    if preset not in domain.presets:
        raise ValueError(nearest(preset, list(domain.presets), f"preset of {id}"))
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
