"""What an update reads of a finished task."""

from __future__ import annotations

from dataclasses import dataclass


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
    """The observation after the last action; empty if the domain shows none."""
    reward: float | None
    """Reward of the episode, or None if the domain hides it."""
    feedback: str
