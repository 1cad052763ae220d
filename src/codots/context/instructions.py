"""Instructions in a context: text that tells a later reader what to do, where notes should say what holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from codots.context.lookalikes import decoded, hidden, plain, views
from codots.context.phrases import ALWAYS, COMMON, DOING, PATTERNS, TELLING
from codots.context.sections import inert

REST, ARGUMENTS = re.compile(r"[^\s`]*"), re.compile(r"[^\s`]*(?: +[^\s`]+){0,3}")
"""What a passage is extended by: the rest of its word, and of a command three more words on its line."""
LEAD = re.compile(
    r"^(?:[\s>*#\[\]()\"'`+\d.-]|(?:please|then|also|and|so|just|kindly|now|important|note|tip|first)\b[:!]?)+"
)
"""What may come before the first word of an order."""
WORD = re.compile(r"[^\W_]+(?:[./'_-][^\W_]+)*")
"""A word; a path or a name with signs inside is one."""
COPIED = 4
"""Number of words in a row that count as copied."""
CAUSED = 0.5
"""Fraction of the words of an order up to which the task knows nothing of it."""


@dataclass(frozen=True)
class Instruction:
    """A passage of a context that no note should have."""

    kind: str
    """What it is, in words, and where it comes from, if that is why it counts."""
    passage: str


class _Read:
    """A text as it may be understood."""

    def __init__(self, text: str, disguised: bool = True) -> None:
        """`disguised` reads it in all `views`, otherwise as it is and decoded."""
        self.text = text
        self.words = [_spaced(view) for view in (views(text) if disguised else {plain(text), decoded(text)})]

    def has(self, passage: str) -> bool:
        """Return whether it has these words in a row."""
        wanted = _spaced(plain(passage))
        return any(wanted in words for words in self.words) if wanted.strip() else passage in self.text


def _spaced(text: str) -> str:
    return f" {' '.join(WORD.findall(text))} "


def find_instruction(context: str, trusted: Iterable[str], said: Mapping[str, str]) -> Instruction | None:
    """Return the first instruction of a context that stands in no trusted text, or None.

    `said` are the texts that anybody may have written, by what they are called. A passage of `PATTERNS`, a heading of
    the prompts, and a passage that hides what it says always count. An order, which is a clause that starts with a verb
    or says what holds always, counts if four of its words in a row stand in one of these texts, or if it tells others
    something and at most half of its words, but for its verbs, stand in the task.
    """
    known = [_Read(text) for text in trusted]
    for found in _certain(context):
        if not any(one.has(found.passage) for one in known):
            return found
    orders = [order for order in _orders(context) if not any(one.has(order) for one in known)]
    sources = {name: _Read(text, disguised=False) for name, text in said.items()} if orders else {}
    for order in orders:
        if origin := _origin(order, sources, known):
            return Instruction(f"an order {origin}", order)
    return None


def _certain(context: str) -> Iterator[Instruction]:
    if concealed := hidden(context):
        yield Instruction("hidden text", concealed)
    for before, after in zip(context.splitlines(), inert(context).splitlines(), strict=False):
        if before != after:
            yield Instruction("a role marker", before)
    for view in views(context):
        for kind, pattern in PATTERNS.items():
            for found in pattern.finditer(view):
                yield Instruction(kind, _extended(found, ARGUMENTS if kind == "a command" else REST))
            for found in pattern.finditer(" ".join(view.split())):  # also if it is spread over lines
                yield Instruction(kind, _extended(found, REST))


def _extended(found: re.Match[str], more: re.Pattern[str]) -> str:
    rest = more.match(found.string, found.end())
    return found[0] + (rest[0] if rest else "")


def _orders(context: str) -> Iterator[str]:
    """Yield the clauses that tell what to do: those of each line, and of a text of very short lines as one."""
    for view in views(context):
        lines = view.splitlines()
        short = lines and sum(len(line.split()) for line in lines) <= 2 * len(lines)
        for line in [*lines, *([" ".join(lines)] if short else [])]:
            for clause in re.split(r"(?<=[.;!?])\s+", line):
                if ALWAYS.search(clause) or _starts(clause, DOING):
                    yield LEAD.sub("", clause).strip()


def _starts(clause: str, verbs: Collection[str]) -> bool:
    """Return whether a part of a clause starts with a verb and goes on."""
    for part in re.split(r"[:,(\u2013\u2014]| - ", clause):
        first, *rest = WORD.findall(LEAD.sub("", part))[:2] or [""]
        if rest and first in verbs:
            return True
    return False


def _origin(order: str, sources: Mapping[str, _Read], known: Collection[_Read]) -> str:
    """Say where an order comes from, if that is not the task itself."""
    words = WORD.findall(order)
    runs = [" ".join(words[i : i + COPIED]) for i in range(max(1, len(words) - COPIED + 1))]
    if len(words) >= COPIED - 1:
        for name, text in sources.items():
            if any(text.has(run) and not any(one.has(run) for one in known) for run in runs):
                return f"that stands in {name}"
    tells = _starts(order, TELLING) or (ALWAYS.search(order) and TELLING & set(words))
    own = {word for word in words if len(word) > 2 and word not in COMMON | TELLING}
    met = {word for word in own if any(word in words for text in (*sources.values(), *known) for words in text.words)}
    return "of which the task knows nothing" if tells and own and len(met) <= CAUSED * len(own) else ""
