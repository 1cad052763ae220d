"""What a store holds, as frozen records, and the errors of asking it for something else."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from difflib import unified_diff
from typing import Any, Literal

from codots.context.rewrite import Turn

MAX_TEXT = 200_000
"""Maximum length of feedback, of a description, or of a text of a turn, in characters."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
"""Names of worlds and tasks; they are also names of files and parts of URLs."""
Cause = Literal["start", "task", "rollback", "fork", "import", "adopt"]
"""Why a version was written."""
Arm = Literal["own", "null"]
"""What a task is given: the context of its world, or none."""


class UnknownError(ValueError):
    """There is no such world, task or version."""


class UnknownWorldError(UnknownError):
    """There is no such world. The message names others; `short` does not."""

    def __init__(self, message: str, world: str) -> None:
        super().__init__(message)
        self.short = f"unknown world {world!r}"


class ForbiddenError(ValueError):
    """The key of the request may not do this."""


class ConflictError(ValueError):
    """The store is in another state than the call expects, such as a task that has been finished before."""


class StaleError(ConflictError):
    """Another version was written meanwhile."""


@dataclass(frozen=True)
class World:
    """One world: how its contexts are updated, and how much happened in it."""

    name: str
    strategy: dict[str, Any]
    """Settings of the strategy, as `strategy_of` reads them."""
    low: float
    """Lowest reward."""
    high: float
    tasks: int
    """Number of tasks started."""
    finished: int
    """Number of tasks finished."""
    created: float
    """Time in seconds since 1970."""


@dataclass(frozen=True)
class Version:
    """One version of the context of a world."""

    number: int
    parent: int | None
    """Version that it replaced; None for the first."""
    cause: Cause
    source: str
    """The task, version, world or file that it comes from."""
    context: str
    model: str
    """Model that wrote it, with a hash of its files; empty if none did."""
    strategy: str
    tokens: int | None
    """Length in tokens of that model, or None."""
    failure: str
    """Why the update was rejected or held back and the context stayed, or an empty text."""
    learned: int
    """Number of finished tasks of the world that this version has learned from."""
    created: float


@dataclass(frozen=True)
class Held:
    """A context that the guard holds back. The version of its number has the context before it."""

    number: int
    """Number of the version whose update is held back."""
    source: str
    """The task that it comes from."""
    reason: str
    passage: str
    """The passage that the reason is about, or an empty text."""
    context: str
    """The context that waits."""
    tokens: int | None
    created: float
    decision: str | None = None
    """What a person decided, `adopted` or `dropped`, or None while it waits."""
    decided: float | None = None
    """When, in seconds since 1970."""


@dataclass(frozen=True)
class Task:
    """One task of a world."""

    world: str
    number: int
    name: str
    rules: str
    description: str
    version: int
    """Newest version of the context when the task began."""
    arm: Arm
    """`own` if the task was given this version, `null` if the context was withheld."""
    null_share: float
    """Probability with which the context was withheld; 0 if the arm was not drawn."""
    created: float
    finish: Finish | None = None
    """How it ended, or None while it is open."""


@dataclass(frozen=True)
class Joined:
    """A task that goes on, with what its prompts need."""

    task: Task
    context: str
    """The context that the task was given; empty if it was withheld."""
    strategy: dict[str, Any]
    """Settings of the world's strategy."""


@dataclass(frozen=True)
class Finish:
    """How a task ended."""

    number: int
    """Place in the order in which the finishes of the world are learned from, from 1."""
    reward: float | None
    feedback: str = ""
    outcome: str = ""
    """Observation after the last reply."""
    revealed: bool = True
    """Whether the update may read the reward."""
    created: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a task ends, as it is reported."""

    reward: float | None = None
    feedback: str = ""
    outcome: str = ""
    revealed: bool = True
    turns: tuple[Turn, ...] = field(default=())
    """Turns that were not recorded before."""
    episode: dict[str, Any] | None = None
    """The solve episode with its token ids, or None if another program sampled the replies."""


def check_name(name: str, what: str) -> None:
    """Raise ValueError for a name that cannot be a world's or a task's."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"the {what} {str(name)[:120]!r}; expected a name of letters, digits, -, _ and . (up to 100)")


def check_share(share: float) -> None:
    """Raise ValueError for a share of tasks without context that leaves no tasks with it."""
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share < 1:
        raise ValueError(f"the null share is {share!r}; expected a number from 0 to below 1, such as 0.2")


def check_is_text(text: object, what: str) -> None:
    """Raise ValueError for anything but a text."""
    if not isinstance(text, str):
        raise ValueError(f"the {what} is {text!r:.100}; expected a text")


def check_text(text: str, what: str) -> None:
    """Raise ValueError for a text that is too long, or anything but a text."""
    check_is_text(text, what)
    if len(text) > MAX_TEXT:
        raise ValueError(f"the {what} has {len(text):,} characters; expected at most {MAX_TEXT:,}")


def shortened(text: str) -> str:
    """Return a text, or the beginning and the end of one that is too long."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2 - 50  # leaves room for the mark
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out]\n{text[-half:]}"


def check_reward(reward: float | None, low: float, high: float) -> None:
    """Raise ValueError for a reward that is not a number between the bounds of the world."""
    if reward is None:
        return
    number = isinstance(reward, int | float) and not isinstance(reward, bool) and math.isfinite(reward)
    if not number or not low <= reward <= high:
        raise ValueError(f"the reward is {reward!r}; expected a number from {low:g} to {high:g}")


def when(seconds: float) -> str:
    """Format a time, such as `2026-11-30 12:00:00 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def diff(old: Version, new: Version) -> str:
    """Return the differences between two contexts, line by line, as `diff -u` writes them."""
    return diff_texts(old.context, new.context, f"version {old.number}", f"version {new.number}")


def diff_texts(old: str, new: str, old_name: str, new_name: str) -> str:
    """Return the differences between two texts, line by line, as `diff -u` writes them."""
    return "\n".join(unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, lineterm=""))


def as_json(record: Any) -> dict[str, Any]:
    """Return a record as plain data, with times as text."""
    values = asdict(record)
    return values | {name: when(values[name]) for name in ("created", "decided") if values.get(name) is not None}


def dump(values: Any) -> str:
    """Return plain data as JSON. NaN, as for the logprobs of an endpoint, is written as NaN."""
    return json.dumps(values, ensure_ascii=False)
