"""How a context is asked for, read and bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from codots.core.templates import Prompts

OPEN, CLOSE = "<context>", "</context>"


@dataclass(frozen=True)
class Turn:
    """One exchange of a solve episode, as the updater reads it."""

    observation: str
    reply: str


@dataclass(frozen=True)
class Trajectory:
    """A finished solve episode, as the updater reads it."""

    rules: str
    turns: tuple[Turn, ...]
    outcome: str
    """The answer to the last action, empty where the domain does not tell."""
    reward: float | None
    """None where the domain hides it."""
    feedback: str


@dataclass(frozen=True)
class Prompt:
    """The two messages that open an episode."""

    system: str
    user: str


@dataclass(frozen=True)
class Parsed:
    """What came of a rewrite."""

    context: str
    failure: str | None = None
    """Why the rewrite does not count, None if it does."""


class Strategy(Protocol):
    """A way to carry knowledge over tasks as text."""

    def initial(self) -> str:
        """Give the context before any task."""
        ...

    def solve(self, rules: str, context: str, observation: str, style: str) -> Prompt:
        """Open a solve episode."""
        ...

    def prompt(self, trajectory: Trajectory, context: str, style: str) -> Prompt:
        """Open an update episode."""
        ...

    def parse(self, text: str, context: str) -> Parsed:
        """Read the new context out of a reply; `context` is the one it replaces."""
        ...


_render = Prompts(__package__)


@dataclass(frozen=True)
class Rewrite:
    """Write the whole context anew after each task (arXiv 2606.20002, section 2).

    A reply counts if the opening and the closing tag stand in it exactly once, in order, and the text between them is
    no longer than the cap. An empty text is a valid empty context.
    """

    on_parse_failure: Literal["keep", "wipe"] = "keep"
    """Whether a reply that cannot be read leaves the old context or an empty one (the paper's)."""
    cap: int = 4000
    """Greatest length of a context in characters."""

    def initial(self) -> str:
        """Give the empty context."""
        return ""

    def solve(self, rules: str, context: str, observation: str, style: str) -> Prompt:
        """Put the context after the rules."""
        return Prompt(_render("solve", style, rules=rules, context=context), observation)

    def prompt(self, trajectory: Trajectory, context: str, style: str) -> Prompt:
        """Show the old context, what happened and how it ended."""
        system = _render("rewrite_system", style, cap=self.cap, open=OPEN, close=CLOSE)
        return Prompt(system, _render("rewrite_user", style, t=trajectory, context=context))

    def parse(self, text: str, context: str) -> Parsed:
        """Cut out what stands between the tags."""
        failure = None
        if text.count(OPEN) != 1 or text.count(CLOSE) != 1 or text.index(OPEN) > text.index(CLOSE):
            failure = f"expected exactly one {OPEN} and one {CLOSE} after it"
        else:
            new = text.partition(OPEN)[2].partition(CLOSE)[0].strip()
            if len(new) <= self.cap:
                return Parsed(new)
            failure = f"the context has {len(new)} characters, the cap is {self.cap}"
        return Parsed(context if self.on_parse_failure == "keep" else "", failure)
