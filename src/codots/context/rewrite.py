"""Prompt for a new context, and parse and bound the reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from codots.context.sections import inert, inert_trajectory
from codots.context.trajectory import Trajectory, Turn
from codots.core.templates import Prompts

__all__ = ["Parsed", "Prompt", "Rewrite", "Strategy", "Trajectory", "Turn"]

OPEN, CLOSE = "<context>", "</context>"


@dataclass(frozen=True)
class Prompt:
    """The two messages that open an episode."""

    system: str
    user: str


@dataclass(frozen=True)
class Parsed:
    """The result of a rewrite."""

    context: str
    failure: str | None = None
    """Why the rewrite was rejected, or None if it was accepted."""


class Strategy(Protocol):
    """A strategy that carries knowledge from task to task as text."""

    def initial(self) -> str:
        """Return the context before the first task."""
        ...

    def solve(self, rules: str, context: str, observation: str, style: str) -> Prompt:
        """Return the prompt that opens a solve episode."""
        ...

    def prompt(self, trajectory: Trajectory, context: str, style: str) -> Prompt:
        """Return the prompt that opens an update episode."""
        ...

    def parse(self, text: str, context: str) -> Parsed:
        """Parse the new context from a reply. `context` is the old context."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return what `strategy_of` needs to make an equal strategy, as plain data."""
        ...


_render = Prompts(__package__)


@dataclass(frozen=True)
class Rewrite:
    """Strategy that rewrites the whole context after each task (arXiv 2606.20002, section 2).

    A reply is accepted if it contains the opening and the closing tag exactly once, in order, and the text between them
    is no longer than the cap. An empty text is a valid empty context.
    """

    name: ClassVar[str] = "rewrite"
    """Name of the strategy, and of its system prompt."""
    order: ClassVar[str] = "Now rewrite the notes."
    """Last line of the prompt."""
    on_parse_failure: Literal["keep", "wipe"] = "keep"
    """Context after a rejected reply: the old one (`keep`) or, as in the paper, an empty one (`wipe`)."""
    cap: int = 4000
    """Maximum length of a context, in characters."""

    def initial(self) -> str:
        """Return the empty context."""
        return ""

    def solve(self, rules: str, context: str, observation: str, style: str) -> Prompt:
        """Return a prompt with the context after the rules. In the natural style, it stays in its section."""
        context = inert(context) if style == "natural" else context
        return Prompt(_render("solve", style, rules=rules, context=context), observation)

    def prompt(self, trajectory: Trajectory, context: str, style: str) -> Prompt:
        """Return a prompt with the old context, the turns of the episode and its outcome.

        In the natural style, each stays in its section (`sections.inert`).
        """
        if style == "natural":
            trajectory, context = inert_trajectory(trajectory), inert(context)
        system = _render(f"{self.name}_system", style, cap=self.cap, open=OPEN, close=CLOSE)
        return Prompt(system, _render("rewrite_user", style, t=trajectory, context=context, order=self.order))

    def settings(self) -> dict[str, Any]:
        """Return the fields, and the name if it is not `rewrite`."""
        return ({} if self.name == Rewrite.name else {"strategy": self.name}) | vars(self)

    def parse(self, text: str, context: str) -> Parsed:
        """Return the new context, or the fallback and the reason why the reply was rejected."""
        try:
            if text.count(OPEN) != 1 or text.count(CLOSE) != 1 or text.index(OPEN) > text.index(CLOSE):
                raise ValueError(f"expected exactly one {OPEN} and one {CLOSE} after it")
            new = self.edited(text.partition(OPEN)[2].partition(CLOSE)[0].strip(), context)
            if len(new) > self.cap:
                raise ValueError(f"the context has {len(new)} characters, the cap is {self.cap}")
        except ValueError as error:
            return Parsed(context if self.on_parse_failure == "keep" else "", str(error))
        return Parsed(new)

    def edited(self, inside: str, context: str) -> str:
        """Return the new context, given the text between the tags and the old context.

        Raises ValueError, with the reason, to reject the reply.
        """
        return inside
