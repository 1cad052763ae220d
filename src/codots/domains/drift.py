"""A hidden part that changes once in a life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Drift:
    """Two hidden parts, of which one holds before a position and the other from there on."""

    before: Any
    after: Any
    position: int
    """The first position at which `after` holds."""

    def at(self, position: int) -> Any:
        """Return the hidden part that holds at a position."""
        return self.before if position < self.position else self.after


def holds(hidden: Any, position: int = 0) -> Any:
    """Return what holds at a position: the hidden part itself, or one of the two if it is a `Drift`."""
    return hidden.at(position) if isinstance(hidden, Drift) else hidden
