"""The guard: whether the context that an update wrote becomes the newest one, or waits for a person."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codots.context.instructions import find_instruction
from codots.context.trajectory import Trajectory

WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Objection:
    """Why an update is held back."""

    reason: str
    """The reason in one line. It quotes nothing, since a model may read it."""
    passage: str = ""
    """The passage of the context that it is about, if it is one."""


@dataclass(frozen=True)
class Guard:
    """Holds back an update that empties or explodes a context, loses most of it, or adds an instruction."""

    growth: float = 4.0
    """Maximum length of a new context, as a multiple of the old one's."""
    room: int = 500
    """Length that an old context counts as at least, in characters."""
    kept: float = 0.25
    """Minimum fraction of the old context's words that the new one has."""
    words: int = 20
    """Number of different words from which `kept` applies."""
    small: int = 40
    """Length below which a context may be emptied, in characters: a single fact that proved wrong."""

    def check(self, old: str, new: str, said: Trajectory) -> Objection | None:
        """Return why the new context is held back, or None. `said` is what the update has read."""
        if new.split() == old.split():
            return None
        if not new.strip():
            return Objection("it empties the context") if len(old) >= self.small else None
        if len(new) > (limit := self.growth * max(len(old), self.room)):
            return Objection(
                f"it has {len(new):,} characters; the old context has {len(old):,}, the limit is {limit:,.0f}"
            )
        before, after = (set(WORD.findall(text.casefold())) for text in (old, new))
        if len(before) >= self.words and (left := len(before & after)) < self.kept * len(before):
            return Objection(f"it keeps {left} of the {len(before)} different words of the old context")
        if found := find_instruction(new, (old, said.rules), _texts(said)):
            return Objection(f"it has {found.kind}", found.passage)
        return None


GUARD = Guard()
"""The guard of every agent and server, unless told otherwise."""


def _texts(said: Trajectory) -> dict[str, str]:
    """Return what was said in a task, but for its rules, by what it is called."""
    texts = {"the feedback": said.feedback, "the outcome": said.outcome}
    for i, turn in enumerate(said.turns, start=1):
        texts |= {f"observation {i}": turn.observation, f"reply {i}": turn.reply}
    return {name: text for name, text in texts.items() if text}
