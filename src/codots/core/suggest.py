"""Error messages for unknown names, with the nearest known one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def nearest(given: object, known: Iterable[str], what: str) -> str:
    """Return a one-line error for an unknown name, with the nearest known name.

    More than 40 known names are counted instead of listed.
    """
    names = sorted(known)
    close = get_close_matches(str(given).casefold(), by_case := {name.casefold(): name for name in names}, 1, 0.4)
    hint = f"; the nearest is {by_case[close[0]]!r}" if close else ""
    choices = ", ".join(names) if len(names) <= 40 else f"{len(names)} names, from {names[0]} to {names[-1]}"
    return f"unknown {what} {given!r}; expected one of {choices}{hint}"


def check_known(given: object, known: Iterable[str], what: str) -> None:
    """Raise ValueError, with the nearest known name, if the given name is unknown."""
    if given not in (names := list(known)):
        raise ValueError(nearest(given, names, what))


def closest(path: Path, *others: str) -> str:
    """Return a hint with the sibling path, or the word in `others`, that is nearest to this path.

    Returns an empty string if none is close.
    """
    siblings = path.parent.iterdir() if path.parent.is_dir() else ()
    known = {other: other for other in others} | {e.name: str(e) for e in siblings if e.name != path.name}
    close = get_close_matches(path.name, known, n=1)
    return f"; the nearest is {known[close[0]]!r}" if close else ""
