"""The domain contract: worlds, tasks and packs, and what a family of worlds must offer."""

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
"""Names of the scripted policies, by what they know."""
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


@dataclass(frozen=True)
class World:
    """One draw of what is hidden and stable."""

    hidden: Any
    """The domain's own frozen record of the hidden part."""
    dials: Any
    """The preset that it was drawn with."""
    split: str = "train"
    """`train` or a held-out name (`dev`, `test`, ...)."""
    names: Names = ()
    """The name of the pack it belongs to."""


@dataclass(frozen=True)
class Task:
    """One problem in a world."""

    domain: Domain
    world: World
    position: int
    content: Any
    """The domain's own frozen record of the problem."""
    names: Names
    """The name of this task's random stream."""

    def env(self, *, style: str = "natural", memory: object | None = None) -> Env:
        """Open a fresh single-use environment; equal tasks give equal environments."""
        return self.domain.open(self, style=style, memory=memory)


@dataclass(frozen=True)
class Pack:
    """One world and its tasks in the order they are met."""

    domain: Domain
    preset: str
    split: str
    index: int
    world: World
    tasks: tuple[Task, ...]

    @property
    def names(self) -> Names:
        """The name under which everything random about this pack is drawn."""
        return (self.domain.id, self.preset, self.split, self.index)


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
    step_timeout: float = 300.0
    """Seconds that a blocking `step` may take; an environment that needs longer is taken to be down."""
    chance: bool = True
    """Whether an environment draws at random; one that does not is spared a generator of its own."""
    exact: bool = False
    """Whether `bayes` is the true optimum of the task under the posterior."""

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
        check_known(style, self.styles, "prompt style")
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
