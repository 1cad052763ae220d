"""Types of the domain contract: worlds, tasks, packs, and the base class of a domain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from codots.core.rng import Names, stream
from codots.core.suggest import check_known

Rng = np.random.Generator
STYLES = ("natural", "compact")
POLICIES = ("random", "bayes", "informed")
"""Names of the scripted policies: `informed` knows the world, `bayes` what it has seen, `random` nothing."""
NO_CHANCE = stream("no chance")
"""Generator passed to environments that draw nothing."""


@dataclass(frozen=True)
class Step:
    """The result of an action in an environment."""

    observation: str
    reward: float
    done: bool
    feedback: str = ""
    """A sentence for the updater on how the episode ended; empty until `done`."""
    stop: str | None = None
    """A one-word reason for the end, chosen by the domain; all domains share `malformed`. None until `done`."""
    view: Any = None
    """The state after the action, as in `Env.view`, for policies and reports. It is never shown to a model."""


class Env(Protocol):
    """A single-use environment for one task."""

    view: Any
    """The public state of the task, read by scripted policies and by `Domain.draw`."""

    def observe(self) -> str:
        """Return the first observation."""
        ...

    def step(self, text: str) -> Step:
        """Apply the model's text. Malformed text returns a `Step` with `stop="malformed"`, never an exception."""
        ...


class Policy(Protocol):
    """A scripted policy; one object plays a whole life."""

    def act(self, view: Any) -> str:
        """Return the text of an action for this view, in any style."""
        ...

    def end(self, step: Step) -> None:
        """Observe the last step of a task."""
        ...


@dataclass(frozen=True)
class World:
    """One draw of the hidden part that stays the same over all tasks of a pack."""

    hidden: Any
    """The hidden part, as a frozen record of the domain's own type."""
    dials: Any
    """The value of the preset that the world was drawn with."""
    split: str = "train"
    """`train` or a held-out name (`dev`, `test`, ...)."""
    names: Names = ()
    """Name of the pack that the world belongs to."""


@dataclass(frozen=True)
class Task:
    """One problem in a world."""

    domain: Domain
    world: World
    position: int
    content: Any
    """The problem, as a frozen record of the domain's own type."""
    names: Names
    """Name of the task's random stream."""

    def env(self, *, style: str = "natural", memory: object | None = None) -> Env:
        """Open a fresh single-use environment; equal tasks open equal environments."""
        return self.domain.open(self, style=style, memory=memory)


@dataclass(frozen=True)
class Pack:
    """One world and its tasks, in the order in which they are played."""

    domain: Domain
    preset: str
    split: str
    index: int
    world: World
    tasks: tuple[Task, ...]

    @property
    def names(self) -> Names:
        """The name that seeds every random draw of this pack."""
        return (self.domain.id, self.preset, self.split, self.index)


class Domain(ABC):
    """A family of worlds; optional methods have defaults, so a small domain stays small."""

    id: str
    """Name with a version, such as `frozen-lake-v1`."""
    presets: dict[str, Any]
    """Dials by preset name."""
    styles: tuple[str, ...] = ("natural",)
    sizes: tuple[int, int] = (4, 8)
    """Default number of tasks in a pack for training, and in a pack for evaluation."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest reward of a task."""
    reveals_reward: bool = True
    """Whether the updater may read the reward."""
    blocking: bool = False
    """Whether `step` waits on I/O; it then runs in a thread."""
    step_timeout: float = 300.0
    """Timeout of a blocking `step`, in seconds. An environment that takes longer counts as down."""
    chance: bool = True
    """Whether environments draw random numbers; if False, they share one unused generator."""
    exact: bool = False
    """Whether `bayes` is the true optimum of the task under the posterior."""

    @abstractmethod
    def make_world(self, rng: Rng, dials: Any) -> Any:
        """Draw the hidden part of a world."""

    @abstractmethod
    def make_task(self, world: World, position: int, rng: Rng) -> Any:
        """Draw the content of one task."""

    @abstractmethod
    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open an environment for a task."""

    def open(self, task: Task, *, style: str, memory: object | None) -> Env:
        """Open an environment seeded by the task's stream; an unknown style raises ValueError with the known ones."""
        check_known(style, self.styles, "prompt style")
        rng = stream(*task.names, "env") if self.chance else NO_CHANCE
        return self.make_env(task, style=style, memory=memory, rng=rng)

    @abstractmethod
    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task, as both the solver and the updater read them."""

    @abstractmethod
    def policy(self, name: str, world: World) -> Policy:
        """Return a scripted policy: `random`, `informed` (knows the world) or `bayes` (knows only what it has seen)."""

    def lacks(self, preset: str) -> str | None:
        """Return one line on what must be set up before this preset can be drawn, or None if it can be drawn now."""
        return None

    def belongs(self, hidden: Any, split: str) -> bool:
        """Whether this hidden part may be used in this split; if not, another one is drawn."""
        return True

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that a task's content belongs to; None if splits share content.

        The side must depend on the content alone.
        """
        return None

    def make_memory(self, world: World) -> object | None:
        """Create the object that environments may use to carry state over the tasks of one life."""
        return None

    def oracle_context(self, world: World, style: str) -> str:
        """Return the context that an agent would write if it knew the world."""
        return ""

    def floor(self, task: Task) -> float:
        """Return a reward that needs no skill."""
        return self.bounds[0]

    def ceiling(self, task: Task) -> float:
        """Return the expected reward of a policy that knows the world."""
        return self.bounds[1]

    def twin(self, world: World, rng: Rng) -> World:
        """Draw a world that looks the same but has another hidden part."""
        for _ in range(100):  # a small hidden part may be drawn again
            hidden = self.make_world(rng, world.dials)
            if hidden != world.hidden and self.belongs(hidden, world.split):
                break
        return replace(world, hidden=hidden)

    def facts(self, world: World, context: str) -> tuple[int, int, int] | None:
        """Count a context's claims as (right, wrong, knowable), or return None if the domain cannot count them."""
        return None

    def draw(self, view: Any) -> str | None:
        """Return a view drawn as text, or None if the domain has no drawing."""
        return None
