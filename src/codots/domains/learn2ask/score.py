"""What a reply earns: three subscores and the ways to fuse them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STOP = "stop"


@dataclass(frozen=True)
class Scores:
    """The subscores of a reply, each between 0 and 1."""

    action: float
    """1 if stopping or asking on was right, else 0, and the others with it."""
    content: float = 0.0
    """How much of what was still to be asked it asks."""
    format: float = 0.0
    """Whether it is a single question, or nothing but the word to stop."""


FUSIONS: dict[str, tuple[Callable[[Scores], float], float]] = {
    "Ra+Rs": (lambda s: s.action * (1 + 2 * s.content) + s.format, 4.0),
    "sum": (lambda s: s.action + s.content + s.format, 3.0),
    "Ra": (lambda s: 2 * s.content + s.format, 3.0),
    "Rs": (lambda s: 3 * s.action + s.format, 4.0),
}
"""The four ways of arXiv 2606.20002, and the most that each can give."""


def fuse(scores: Scores, mode: str) -> float:
    """Make one reward of the subscores."""
    return FUSIONS[mode][0](scores)


def best(mode: str) -> float:
    """The reward of a reply that is right in all."""
    return FUSIONS[mode][1]


def single(questions: int) -> float:
    """The format of a reply of so many questions."""
    return 1.0 if questions <= 1 else 0.5 if questions == 2 else 0.0
