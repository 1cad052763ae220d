"""Provenance: which version, and so which task, taught each line of a context."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher

from codots.agent.records import Cause, UnknownError, Version
from codots.agent.store import Store

COUNTS = re.compile(r"^(\[\d+) \+\d+ -\d+\]")
"""How often an item of the strategy `delta` helped and harmed: another count is no other line."""


@dataclass(frozen=True)
class Line:
    """One line of a context, and the version that first had it in these words."""

    text: str
    version: int
    cause: Cause
    source: str
    """The task, world or file that the version comes from."""
    certain: bool
    """False if versions before this one were pruned, which may have had the line."""


def blame(store: Store, world: str, number: int | None = None) -> list[Line]:
    """Return the lines of a version, by default the newest, with their provenance.

    A line that only moved keeps its provenance; one that was reworded is that of the rewording. A rollback brings
    lines back with theirs. Raises UnknownError if the version does not exist or was pruned.
    """
    version = store.head(world) if number is None else store.version(world, number)
    lines = version.context.splitlines()
    found: dict[int, Line] = {}
    left = dict(enumerate(lines))
    while left:
        older = _origin(store, world, version)
        kept = set() if older is None else _kept(list(left.values()), older.context.splitlines())
        certain = older is not None or version.number == 0
        gap = older is not None and version.cause != "rollback" and older.number != version.parent
        for i, (at, text) in enumerate(list(left.items())):
            if older is None or i not in kept:
                found[at] = Line(text, version.number, version.cause, version.source, certain and not gap)
                del left[at]
        if older is not None:
            version = older
    return [found[at] for at in range(len(lines))]


def _origin(store: Store, world: str, version: Version) -> Version | None:
    """Return the version that the lines of this one may come from, or None if there is none left."""
    if version.cause == "rollback":
        try:
            return store.version(world, int(version.source.removeprefix("version ")))
        except UnknownError:
            pass  # pruned
    return store.before(world, version.number)


def _kept(lines: list[str], older: list[str]) -> set[int]:
    """Return the indices of the lines that an older context had, in the same order or elsewhere."""
    lines, older = ([COUNTS.sub(r"\1]", line) for line in text] for text in (lines, older))
    blocks = SequenceMatcher(None, older, lines, autojunk=False).get_matching_blocks()
    kept = {block.b + i for block in blocks for i in range(block.size)}
    moved = Counter(older) - Counter(lines[i] for i in kept)
    for i, text in enumerate(lines):
        if i not in kept and moved[text] > 0:
            moved[text] -= 1
            kept.add(i)
    return kept
