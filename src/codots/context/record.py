"""Contexts that no model writes: a record of the earlier tasks, cut to a token budget from its oldest side.

`Transcript` keeps what was said word for word, `Facts` one line per task: the last reply and what came of it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from codots.context.rewrite import Prompt, Trajectory
from codots.context.sections import inert_trajectory
from codots.core.templates import Prompts

Count = Callable[[str], int]
"""Function that returns the number of tokens of a text."""
_render = Prompts(__package__)


@runtime_checkable
class Recorder(Protocol):
    """A strategy that writes the context itself, without a model."""

    def initial(self) -> str:
        """Return the context before the first task."""
        ...

    def solve(self, rules: str, context: str, observation: str, style: str) -> Prompt:
        """Return the prompt that opens a solve episode."""
        ...

    def record(self, trajectory: Trajectory, context: str, style: str, count: Count) -> str:
        """Return the context after a task."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return what `strategy_of` needs to make an equal strategy, as plain data."""
        ...


@dataclass(frozen=True)
class Record:
    """Base class of the two kinds of record."""

    budget: int
    """Maximum length of a context, in tokens."""
    name: ClassVar[str]
    """Name of the arm."""
    template: ClassVar[str]
    between: ClassVar[str] = "\n"

    def initial(self) -> str:
        """Return the empty context."""
        return ""

    def solve(self, rules: str, context: str, observation: str, style: str) -> Prompt:
        """Return the prompt of `Rewrite`, so that only the contexts differ. Their headings are those of the record."""
        return Prompt(_render("solve", style, rules=rules, context=context), observation)

    def record(self, trajectory: Trajectory, context: str, style: str, count: Count) -> str:
        """Append a task to the context, and leave out the oldest part that is beyond the budget."""
        said = inert_trajectory(trajectory) if style == "natural" else trajectory
        new = _render(self.template, style, t=said)
        return newest(self.between.join(filter(None, [context, new])), self.budget, count)

    def settings(self) -> dict[str, Any]:
        """Return the name and the fields."""
        return {"strategy": self.name, **vars(self)}


@dataclass(frozen=True)
class Transcript(Record):
    """The turns, outcomes and rewards of the earlier tasks, word for word."""

    name = template = "transcript"
    between = "\n\n"


@dataclass(frozen=True)
class Facts(Record):
    """One line for each earlier task: the last reply and what came of it."""

    name, template = "notes", "fact"


RECORDS: dict[str, type[Record]] = {kind.name: kind for kind in (Transcript, Facts)}
"""Records by the name of their arm."""


def newest(text: str, budget: int, count: Count) -> str:
    """Return the longest end of a text that has at most `budget` tokens and starts with a line, or else with a word."""
    for starts in (r"^.", r"\S+"):
        at = [found.start() for found in re.finditer(starts, text, re.MULTILINE)]
        first = bisect_left(at, True, key=lambda start: count(text[start:]) <= budget)
        if first < len(at):
            return text[at[first] :]
    return ""
