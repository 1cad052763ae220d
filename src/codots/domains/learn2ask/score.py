"""Subscores of a reply and the reward modes that combine them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STOP = "stop"
"""The word with which a reply stops."""


@dataclass(frozen=True)
class Scores:
    """The subscores of a reply, each between 0 and 1."""

    action: float
    """1 if the choice to stop or to ask was right, otherwise 0. If `action` is 0, all other subscores are 0."""
    content: float = 0.0
    """How well the question matches what is still wanted."""
    format: float = 0.0
    """1 if the reply is a single question or only the word that stops. Lower if the reply contains more."""


FUSIONS: dict[str, tuple[Callable[[Scores], float], float]] = {
    "Ra+Rs": (lambda s: s.action * (1 + 2 * s.content) + s.format, 4.0),
    "sum": (lambda s: s.action + s.content + s.format, 3.0),
    "Ra": (lambda s: 2 * s.content + s.format, 3.0),
    "Rs": (lambda s: 3 * s.action + s.format, 4.0),
}
"""Formula and maximum of each of the four reward modes of arXiv 2606.20002."""


def fuse(scores: Scores, mode: str) -> float:
    """Combine the subscores into a reward."""
    return FUSIONS[mode][0](scores)


def best(mode: str) -> float:
    """Return the reward of a perfect reply in a reward mode."""
    return FUSIONS[mode][1]


def single(questions: int) -> float:
    """Return the format score of a reply with this number of questions."""
    return 1.0 if questions <= 1 else 0.5 if questions == 2 else 0.0
