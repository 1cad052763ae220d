"""Strategy that keeps a bank of titled items, of which a task reads the ones that fit it best."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from codots.context.delta import check_kept
from codots.context.rewrite import Prompt, Rewrite

TITLE = re.compile(r"#+ *(\S.*)")
DELETE = re.compile(r"[-* ]*delete\b[\s:]*(\S.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Bank(Rewrite):
    """Strategy that adds, replaces and deletes titled items. A task is given those that BM25 ranks highest for it.

    Between the tags, a reply holds items, each a line `## TITLE` and the lines of its text, and lines `delete TITLE`.
    An item replaces the one of the same title. The reply is rejected as a whole if text comes before the first title,
    if an item has no text, if a title to delete is unknown, or if it deletes more than half of the items. A reply
    without a line changes nothing.
    """

    name: ClassVar[str] = "bank"
    order: ClassVar[str] = "Now edit the notes."
    shown: int = 1000
    """Maximum length of the items that a task is given, in characters."""

    def solve(self, rules: str, context: str, observation: str, style: str) -> Prompt:
        """Return a prompt with the items that fit the rules and the observation best."""
        return super().solve(rules, self.found(context, f"{rules}\n{observation}"), observation, style)

    def found(self, context: str, query: str) -> str:
        """Return the items that BM25 ranks highest for a query and that fit into `shown`, in the order of the bank.

        Source: Robertson and Zaragoza 2009, as in the package bm25s.
        """
        items = read_items(context)
        if len(context) <= self.shown:
            return context
        texts = [_text(title, text) for title, text in items.items()]
        room, kept = self.shown, set()
        for k in ranked(texts, query):
            if len(texts[k]) + 2 <= room:
                room -= len(texts[k]) + 2
                kept.add(k)
        return "\n\n".join(text for k, text in enumerate(texts) if k in kept)

    def edited(self, inside: str, context: str) -> str:
        """Return the bank after the edits. Raises ValueError, with the reason, to reject the reply."""
        before = read_items(context)
        items, title = dict(before), ""
        new: dict[str, list[str]] = {}
        for line in map(str.strip, inside.splitlines()):
            if found := TITLE.fullmatch(line):
                title = " ".join(found[1].split())
                new[title] = []
            elif found := DELETE.fullmatch(line):
                if items.pop(found[1].strip("# "), None) is None:
                    raise ValueError(f"{line[:60]!r} names no item; expected one of {', '.join(items) or 'none'}")
                title = ""
            elif line and not title:
                raise ValueError(f"{line[:60]!r} stands before the first title; expected ## TITLE")
            elif line:
                new[title].append(line)
        if empty := [title for title, lines in new.items() if not lines]:
            raise ValueError(f"the item {empty[0][:60]!r} has no text")
        items |= {title: "\n".join(lines) for title, lines in new.items()}
        check_kept(before, items)
        return "\n\n".join(_text(title, text) for title, text in items.items())


def read_items(context: str) -> dict[str, str]:
    """Read the text of each item of a bank, by title."""
    items: dict[str, str] = {}
    for part in re.split(r"^## ", context, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        items[title.strip()] = text.strip()
    return items


def ranked(texts: list[str], query: str) -> list[int]:
    """Return the indices of texts in the order of their BM25 scores for a query; the newest first where they tie."""
    import bm25s

    split = re.compile(r"\w+").findall
    words = [split(text.lower()) for text in texts]
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    known = index.vocab_dict
    asked = [word for word in dict.fromkeys(split(query.lower())) if word in known]
    scores = index.get_scores(asked) if asked else [0.0] * len(texts)
    return sorted(range(len(texts)), key=lambda k: (-round(float(scores[k]), 6), -k))


def _text(title: str, text: str) -> str:
    return f"## {title}\n{text}"
