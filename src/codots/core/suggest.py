"""Word the error for a wrong name, with the nearest right one."""

from __future__ import annotations

import difflib
from pathlib import Path


def nearest(given: str, known: list[str], what: str) -> str:
    """Word the one line that a wrong name deserves; of very many names it tells how many there are."""
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
    hint = f"; the nearest is {close[0]!r}" if close else ""
    choices = ", ".join(sorted(known)) if len(known) <= 40 else f"{len(known)} names, from {min(known)} to {max(known)}"
    return f"unknown {what} {given!r}; expected one of {choices}{hint}"


def closest(path: Path, *others: str) -> str:
    """Name the neighbour, or another word, that a path may have meant, or nothing."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    known = {other: other for other in others} | {e.name: str(e) for e in beside if e.name != path.name}
    close = difflib.get_close_matches(path.name, known, n=1)
    return f"; the nearest is {known[close[0]]!r}" if close else ""
