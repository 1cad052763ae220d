"""Progress callbacks of long work."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Callback that receives the name of the current part, the amount done, and the total."""


def no_progress(part: str, done: int, total: int) -> None:
    """Report nothing."""
