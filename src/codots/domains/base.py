"""Types of the domain contract: worlds, tasks, packs, and the base class of a domain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from codots.core.rng import Names, stream
from codots.core.suggest import check_known
from codots.domains.drift import Drift
from codots.domains.noise import Noise

Rng = np.random.Generator
STYLES = ("natural", "compact")
POLICIES = ("random", "bayes", "informed")
"""Names of the scripted policies. `informed` knows the world, `bayes` what it has seen, and `random` nothing."""
NO_CHANCE = stream("no chance")
"""Generator passed to environments that draw no random numbers."""


@dataclass(frozen=True)
class Step:
    """The result of an action in an environment."""

    observation: str
    reward: float
    done: bool
    feedback: str = ""
    """A sentence that tells the updater how the episode ended. Empty until `done`."""
    stop: str | None = None
    """One word for why the episode ended, None until `done`. Domains choose their words, and all use `malformed`."""
    view: Any = None
    """The state after the action, as in `Env.view`, for policies and reports. Models never see the view."""


class Env(Protocol):
    """A single-use environment for one task."""

    view: Any
    """The public state of the task, read by scripted policies and by `Domain.draw`."""

    def observe(self) -> str:
        """Return the first observation."""
        ...

    def step(self, text: str) -> Step:
        """Apply the model's text. For malformed text, return a `Step` with `stop="malformed"` instead of raising."""
        ...


class Policy(Protocol):
    """A scripted policy. One instance plays all tasks of a life. It may also be a `Reader` and a `Writer`."""

    def act(self, view: Any) -> str:
        """Return the text of an action in the environment's prompt style.

        If the styles of a domain read actions differently, its views must include the style.
        """
        ...

    def end(self, step: Step) -> None:
        """Observe the last step of a task."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A policy that plays from what a context claims.

    If `random` reads, it acts on the claims, and at random where they say nothing. If `bayes` reads, it takes the
    claims as known until its own observations contradict them.
    """

    def read(self, context: str) -> None:
        """Read a context in any style of the domain. Called before the first action."""
        ...


@runtime_checkable
class Writer(Protocol):
    """A policy that can state what it knows."""

    def notes(self, style: str) -> dict[str, str]:
        """Return what is known so far, from observations and from the context read, in the form of `Domain.claims`."""
        ...


@runtime_checkable
class Witness(Protocol):
    """A policy that can state what the task it has just played has shown."""

    def shown(self, style: str) -> dict[str, str]:
        """Return what the last task has shown, true or not, by the subjects of `Domain.claims`."""
        ...


@dataclass(frozen=True)
class World:
    """One draw of the hidden part that stays the same over all tasks of a pack."""

    hidden: Any
    """The hidden part, as a frozen record of the domain's own type."""
    dials: Any
    """Dials of the preset that the world was drawn from."""
    split: str = "train"
    """`train` or a held-out name (`dev`, `test`, ...)."""
    names: Names = ()
    """Name of the pack that the world belongs to."""

    def at(self, position: int) -> World:
        """Return the world as it is at a position. Only a hidden part that is a `Drift` differs by position."""
        return replace(self, hidden=self.hidden.at(position)) if isinstance(self.hidden, Drift) else self


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
        """Open a new single-use environment. Equal tasks open equal environments."""
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
    """A family of worlds. Subclasses set `id` and `presets` and define the abstract methods."""

    id: str
    """Name and version, such as `frozen-lake-v1`."""
    presets: dict[str, Any]
    """Dials by preset name."""
    styles: tuple[str, ...] = ("natural",)
    sizes: tuple[int, int] = (4, 8)
    """Default number of tasks in a training pack and in an evaluation pack."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest reward of a task."""
    reveals_reward: bool = True
    """Whether the updater may read the reward."""
    blocking: bool = False
    """Whether environments are slow, because they wait on I/O or compute for long.

    If so, the rollout plays the environments of each life in a process of their own.
    """
    step_timeout: float = 300.0
    """Timeout of a `step`, or of opening an environment, in seconds, if the domain is blocking.

    An environment that takes longer is killed and counts as down.
    """
    solved_above: float = 0.0
    """Reward above which a task counts as solved."""
    repeats: bool = False
    """Whether the tasks of a pack are attempts at one task."""
    stops: bool = False
    """Whether a life ends with its first solved task."""
    chance: bool = True
    """Whether environments draw random numbers. If False, all environments receive the same unused generator."""
    noise: type[Noise] = Noise
    """Settings of the noise on `skilled`."""
    exact: bool = False
    """Whether `bayes` exactly maximizes the expected reward of each task under the posterior over worlds.

    `is_exact` may except presets.
    """

    @abstractmethod
    def make_world(self, rng: Rng, dials: Any) -> Any:
        """Draw the hidden part of a world."""

    @abstractmethod
    def make_task(self, world: World, position: int, rng: Rng) -> Any:
        """Draw the content of one task."""

    @abstractmethod
    def make_env(self, task: Task, *, style: str = "natural", memory: object | None = None, rng: Rng) -> Env:
        """Open the environment of a task."""

    def open(self, task: Task, *, style: str, memory: object | None) -> Env:
        """Open an environment whose generator is seeded by the task's name, in the world as it is at the task.

        Raises ValueError, listing the known styles, if the style is unknown.
        """
        check_known(style, self.styles, "prompt style")
        rng = stream(*task.names, "env") if self.chance else NO_CHANCE
        if isinstance(task.world.hidden, Drift):
            task = replace(task, world=task.world.at(task.position))
        return self.make_env(task, style=style, memory=memory, rng=rng)

    @abstractmethod
    def rules_text(self, task: Task, style: str) -> str:
        """Return the rules of a task, as both the solver and the updater read them."""

    @abstractmethod
    def policy(self, name: str, world: World) -> Policy:
        """Return a scripted policy: `random`, `informed` (knows the world) or `bayes` (knows only what it has seen)."""

    def skilled(self, world: World, noise: Any, rng: Rng) -> Policy:
        """Return the policy that imitation teaches, with noise on its actions if the domain defines any.

        `noise` is a `self.noise`. By default, the policy is `bayes`, and the noise affects only what is written.
        """
        return self.policy("bayes", world)

    def lacks(self, preset: str) -> str | None:
        """Return one line on what must be set up before this preset can be drawn, or None if it can be drawn now."""
        return None

    def is_exact(self, preset: str) -> bool:
        """Return whether `bayes` is exact in this preset."""
        return self.exact

    def belongs(self, hidden: Any, split: str) -> bool:
        """Return whether a hidden part may be used in a split. If not, `make_pack` draws another one."""
        return True

    def side(self, task: Task) -> str | None:
        """Return the side, `train` or `held-out`, that a task's content belongs to, or None if splits share content.

        The side must depend on the content alone.
        """
        return None

    def make_memory(self, world: World) -> object | None:
        """Create an object in which environments carry state across the tasks of a life. Returns None by default."""
        return None

    def claims(self, world: World, style: str) -> dict[str, str]:
        """Return the true statements about the hidden part, one line each, by subject.

        Twins have the same subjects in the same order. If the hidden part is a `Drift`, the statements are true at the
        first task, and those of `world.at(position)` at another. By default, every line of `oracle_context` is a claim,
        if the domain defines that context.
        """
        if type(self).oracle_context is Domain.oracle_context:
            return {}
        lines = filter(str.strip, self.oracle_context(world, style).splitlines())
        return {f"line {i}": line for i, line in enumerate(lines)}

    def guess(self, world: World, subject: str, style: str, rng: Rng) -> str:
        """Draw a claim about a subject that is right only by chance. By default, it is true in a drawn twin."""
        return self.claims(self.twin(world, rng), style)[subject]

    def note(self, claims: Iterable[str], style: str) -> str:
        """Return a context that makes these claims: one per line, or in the compact style all on one line."""
        return (" " if style == "compact" else "\n").join(claims)

    def oracle_context(self, world: World, style: str) -> str:
        """Return the context that an agent would write if it knew the world. By default, it makes all true claims."""
        if type(self).claims is Domain.claims:  # which are the lines of this context
            return ""
        return self.note(self.claims(world, style).values(), style)

    def partial_context(self, world: World, style: str, rng: Rng) -> str:
        """Draw a context that says a part of what is hidden. By default, each true claim has a probability of 0.5."""
        return self.note((claim for claim in self.claims(world, style).values() if rng.random() < 0.5), style)

    def floor(self, task: Task) -> float:
        """Return an expected reward that takes no skill. Defaults to the lowest reward."""
        return self.bounds[0]

    def ceiling(self, task: Task) -> float:
        """Return the best expected reward of a policy that knows the world. Defaults to the highest reward."""
        return self.bounds[1]

    def twin(self, world: World, rng: Rng) -> World:
        """Draw a world that looks the same but has a different hidden part.

        If 100 draws yield no suitable hidden part, the last draw is used.
        """
        for _ in range(100):  # a small hidden part may be drawn again
            hidden = self.make_world(rng, world.dials)
            if hidden != world.hidden and self.belongs(hidden, world.split):
                break
        return replace(world, hidden=hidden)

    def facts(self, world: World, context: str) -> tuple[int, int, int] | None:
        """Return a context's number of right claims, its number of wrong claims, and the number of facts to know.

        Returns None if the domain cannot count claims.
        """
        return None

    def draw(self, view: Any) -> str | None:
        """Return a drawing of a view as text, or None if the domain has no drawing."""
        return None
