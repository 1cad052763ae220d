"""Progress callbacks of long work."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with the part at work, how much of it is done, and how much there is."""


def no_progress(part: str, done: int, total: int) -> None:
    """Report nothing."""
