"""What contexts are worth in production: rewards of tasks that were given one minus those of tasks that were not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from codots.agent import rows
from codots.agent.records import Arm, when
from codots.agent.schema import finishes, tasks
from codots.agent.sql import sa
from codots.agent.store import Store

if TYPE_CHECKING:
    from codots.evaluation.stats import MeanEstimate

LAST = 1000
"""Number of newest tasks that are compared by default."""
ARMS: tuple[Arm, ...] = ("own", "null")
BLOCK, NULLS = 200, 50
"""Minimum size of a block, and of the part of it that is expected to be without context, in tasks."""


@dataclass(frozen=True)
class Rewarded:
    """Rewards of the tasks of one arm."""

    tasks: int
    """Number of tasks with a reward."""
    mean: float | None
    """Mean reward, or None if there is none."""


@dataclass(frozen=True)
class Block:
    """Tasks that began one after another, drawn with one probability."""

    first: int
    """Number of the first task."""
    last: int
    began: float
    """When the first task began, in seconds since 1970."""
    null_share: float
    own: Rewarded
    null: Rewarded
    lift: float | None
    """Mean reward with the context minus that without it, or None if an arm has no rewards."""
    interval: tuple[float, float] | None
    """95% interval of the lift."""


@dataclass(frozen=True)
class Lift:
    """What the context of a world is worth, on average over the tasks of its blocks."""

    world: str
    own: Rewarded
    null: Rewarded
    unrewarded: dict[str, int]
    """Number of tasks without a reward, open or finished, by arm. They are not compared."""
    lift: float | None
    """Mean of the lifts of the blocks, weighted by their tasks, or None if it cannot be told."""
    interval: tuple[float, float] | None
    blocks: tuple[Block, ...]

    @property
    def verdict(self) -> str:
        """`helping` or `hurting` if the interval excludes 0, otherwise `not yet known`."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return "not yet known"
        return "helping" if self.interval[0] > 0 else "hurting"

    @property
    def sentence(self) -> str:
        """What is known, in one sentence."""
        if self.lift is None or self.interval is None:
            return "Not yet known: no rewards of tasks with and without context to compare (--null-share 0.2)."
        figures = f"95% interval {self.interval[0]:+.3f} to {self.interval[1]:+.3f}"
        tasks = f"{self.own.tasks} tasks with and {self.null.tasks} without"
        if self.verdict == "not yet known":
            return f"Not yet known: the {figures} of the lift includes 0 ({tasks} context)."
        more = "more" if self.lift > 0 else "less"
        return f"{self.verdict.capitalize()}: {abs(self.lift):.3f} {more} reward with the context ({figures}; {tasks})."

    def as_json(self) -> dict[str, Any]:
        """Return the fields with the verdict and the sentence, and times as text."""
        plain = asdict(self)
        blocks = [block | {"began": when(block["began"])} for block in plain["blocks"]]
        return {"verdict": self.verdict, "sentence": self.sentence} | plain | {"blocks": blocks}


def lift_of(store: Store, world: str, last: int = LAST) -> Lift:
    """Compare the rewards of the newest `last` tasks of a world whose arm was drawn.

    Each draw is independent of what came before, so a block of tasks is an experiment, and its difference of means is
    unbiased for the mean lift of the contexts that these tasks were given, whatever updates learn from. Means are
    compared inside of blocks alone, so that neither a drift of the rewards nor a change of the share is taken for lift.
    A block in which an arm has no rewards is left out.
    """
    with store.read() as c:
        row = rows.known_world(c, world)
        columns = (tasks.c.number, tasks.c.created, tasks.c.arm, tasks.c.null_share, finishes.c.reward)
        ended = tasks.outerjoin(finishes, finishes.c.task_id == tasks.c.id)
        drawn = sa.select(*columns).select_from(ended).where(tasks.c.world_id == row.id, tasks.c.null_share > 0)
        found = c.execute(drawn.order_by(tasks.c.number.desc()).limit(last)).all()[::-1]
    return compare(world, found, row.low, row.high)


def compare(world: str, drawn: Sequence[Any], low: float, high: float) -> Lift:
    """Compare the rewards, from `low` to `high`, of tasks whose arm was drawn, oldest first."""
    from codots.evaluation.stats import MeanEstimate, pooled_ci  # SciPy takes a second to import

    found = [task for task in drawn if task.reward is not None]
    blocks = sorted((block_of(part, low, high) for part in parts(found)), key=lambda block: block.first)
    known, weights = [], []
    for block in blocks:
        if block.lift is not None and block.interval is not None:
            known.append(MeanEstimate(block.lift, list(block.interval)))
            weights.append(block.own.tasks + block.null.tasks)
    own, null = (_rewarded(rewards(found, arm)) for arm in ARMS)
    unrewarded: dict[str, int] = {arm: sum(task.arm == arm and task.reward is None for task in drawn) for arm in ARMS}
    return Lift(world, own, null, unrewarded, *_known(pooled_ci(known, weights)), tuple(blocks))


def parts(drawn: list[Any]) -> Iterator[list[Any]]:
    """Cut the tasks of each share into blocks of about equal size, in order."""
    for share in sorted({task.null_share for task in drawn}):
        alike = [task for task in drawn if task.null_share == share]
        size = max(BLOCK, math.ceil(NULLS / share))
        for at in np.array_split(np.arange(len(alike)), max(1, len(alike) // size)):
            yield [alike[i] for i in at]


def block_of(part: list[Any], low: float, high: float) -> Block:
    """Compare the arms of tasks with rewards from `low` to `high`."""
    from codots.evaluation.stats import difference_ci

    own, null = (rewards(part, arm) for arm in ARMS)
    lift, interval = _known(difference_ci(own, null, low, high))
    first, last = part[0], part[-1]
    arms = (_rewarded(own), _rewarded(null))
    return Block(first.number, last.number, first.created, first.null_share, *arms, lift, interval)


def rewards(found: list[Any], arm: str) -> np.ndarray:
    """Return the rewards of an arm."""
    return np.array([task.reward for task in found if task.arm == arm])


def _rewarded(values: np.ndarray) -> Rewarded:
    return Rewarded(len(values), float(values.mean()) if len(values) else None)


def _known(estimate: MeanEstimate) -> tuple[float | None, tuple[float, float] | None]:
    if math.isnan(estimate.mean):
        return None, None
    low, high = estimate.interval
    return estimate.mean, (low, high)
