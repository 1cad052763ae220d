"""Noise on what a scripted policy writes, for policies that are imitated."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Noise:
    """Probabilities that control what is written about each fact."""

    right: float = 1.0
    """Probability that a known fact is written correctly."""
    wrong: float = 0.0
    """Probability that a known fact is written as a guess. A fact that is neither right nor wrong is omitted."""
    invent: float = 0.0
    """Probability that an unknown fact is written as a guess. `literate` knows all facts, and writes one as a guess of
    the domain with this probability if it writes neither a claim of the world nor one of its twin."""
    seen: float = 0.0
    """Probability that a fact is written as the task has just shown it. Only for `literate`, and comes before the other
    probabilities."""
    ending: float = 0.0
    """Probability that a rewrite in natural style first says in one line how the task ended."""
    keep: float = 0.0
    """Probability that the old notes are kept, after the new ones. An old line that begins with the same word as a new
    one is left out."""

    def __post_init__(self) -> None:
        """Raise ValueError for a probability outside 0 to 1."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{field.name} is {value!r}; expected a probability from 0 to 1")
        if (total := self.seen + self.right + self.wrong) > 1:
            raise ValueError(f"seen + right + wrong is {total:g}; expected at most 1")
