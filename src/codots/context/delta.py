"""Strategy that edits its context: numbered items are added, amended, deleted, and counted when they help or harm."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from codots.context.rewrite import Rewrite

ITEM = re.compile(r"\[(\d+) \+(\d+) -(\d+)\] (.*)")
EDIT = re.compile(r"[-* ]*(add|amend|delete|helpful|harmful)\b[\s:]*(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One item of a context."""

    text: str
    helped: int = 0
    harmed: int = 0


Items = dict[int, Item]
"""Items by number."""


@dataclass(frozen=True)
class Delta(Rewrite):
    """Strategy that changes single items of the context, so that one poor update cannot lose the rest.

    A reply holds one edit per line between the tags: `add TEXT`, `amend NUMBER TEXT`, `delete NUMBERS`,
    `helpful NUMBERS` or `harmful NUMBERS`. It is rejected as a whole if a line is none of these, if it names an unknown
    item, or if it deletes more than half of the items. A reply without a line changes nothing.
    """

    name: ClassVar[str] = "delta"
    order: ClassVar[str] = "Now edit the notes."

    def edited(self, inside: str, context: str) -> str:
        """Return the context after the edits. Raises ValueError, with the reason, to reject the reply."""
        before = read_items(context)
        items = dict(before)
        for line in filter(None, map(str.strip, inside.splitlines())):
            edit(items, line)
        check_kept(before, items)
        return "\n".join(f"[{number} +{i.helped} -{i.harmed}] {i.text}" for number, i in items.items())


def read_items(context: str) -> Items:
    """Read the items of a context. Lines that are no item are ignored."""
    found = map(ITEM.fullmatch, context.splitlines())
    return {int(item[1]): Item(item[4], int(item[2]), int(item[3])) for item in found if item}


def edit(items: Items, line: str) -> None:
    """Apply one edit. Raises ValueError if the line is not an edit or names an unknown item."""
    found = EDIT.fullmatch(line)
    if found is None:
        raise ValueError(f"{line[:60]!r} is not an edit; expected add, amend, delete, helpful or harmful")
    verb, rest = found[1].lower(), " ".join(found[2].split())
    if verb == "add":
        items[max(items, default=0) + 1] = Item(_some(rest, line))
    elif verb == "amend":
        named, _, text = rest.partition(" ")
        [known] = _numbers(items, named, line)
        items[known] = replace(items[known], text=_some(text, line))
    else:
        for number in _numbers(items, rest, line):
            item = items.pop(number)
            if verb == "helpful":
                items[number] = replace(item, helped=item.helped + 1)
            elif verb == "harmful":
                items[number] = replace(item, harmed=item.harmed + 1)
        ordered = sorted(items.items())
        items.clear()
        items.update(ordered)


def check_kept(before: Iterable[object], after: Iterable[object]) -> None:
    """Raise ValueError if more than half of the items were deleted, as a context collapses in one careless update."""
    old = set(before)
    lost = len(old - set(after))
    if lost > (len(old) + 1) // 2:
        raise ValueError(f"{lost} of {len(old)} items would be deleted; at most half may be")


def _some(text: str, line: str) -> str:
    if not text:
        raise ValueError(f"{line[:60]!r} has no text")
    return text


def _numbers(items: Items, text: str, line: str) -> list[int]:
    """Return the numbers of known items that a text lists, each once."""
    words = text.replace(",", " ").split()
    numbers = [int(word.strip("[]#:.")) if word.strip("[]#:.").isdecimal() else -1 for word in words]
    unknown = next((word for word, number in zip(words, numbers, strict=True) if number not in items), None)
    if unknown is not None or not words:
        known = ", ".join(map(str, items)) or "none"
        raise ValueError(f"{line[:60]!r} names no item; expected one of {known}")
    return list(dict.fromkeys(numbers))
