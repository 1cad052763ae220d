"""Encode a chat turn by turn to the ids that the tokenizer gives the whole chat."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Encode = Callable[[str], tuple[int, ...]]
THOUGHT_TAGS = ("<think>", "</think>")
MARKER = re.compile(r"[^\w\s](\S*[^\w\s])?")
"""Added tokens that are markers although not special; others are words or runs of spaces."""
SPACES = r"[^\S\x1c-\x1f]+"
"""Whitespace as tokenizers strip it."""


@dataclass(frozen=True)
class Mark:
    """A token of its own in the text of a chat template, such as a role marker."""

    text: str
    id: int
    special: bool
    lstrip: bool
    """Whether it swallows whitespace to its left."""
    rstrip: bool


class Pieces:
    """Encodes text of a chat template, which has marks, together with messages, whose text has none.

    A tokenizer cuts a text at its added tokens and encodes each piece on its own. Here only the template's text is cut,
    so a marker inside a message is plain text, and a message is encoded together with the template's text around it.
    Raises ValueError if a mark of the template cannot be told from plain text.
    """

    def __init__(self, tokenizer: Any, template: Iterable[str]) -> None:
        added = {
            token.content: Mark(token.content, id, token.special, token.lstrip, token.rstrip)
            for id, token in tokenizer.added_tokens_decoder.items()
            if token.special or MARKER.fullmatch(token.content)
        }
        self._marks, longest = added, sorted(added, key=len, reverse=True)
        self._any_mark = re.compile("|".join(map(re.escape, longest)) or "(?!)")
        used = {part for text in template for part in self.split(text) if isinstance(part, Mark)}
        markers = frozenset(mark.id for mark in used if not mark.special and mark.text not in THOUGHT_TAGS)
        # Chats repeat the same text many times: rules, moves, effects.
        self.first: Encode = lru_cache(maxsize=65536)(_encoder(tokenizer, markers, inner=False))
        """Encodes plain text at the start of a chat."""
        self.inner: Encode = lru_cache(maxsize=65536)(_encoder(tokenizer, markers, inner=True))
        """Encodes plain text after a mark."""
        for mark in used:
            if mark.text not in THOUGHT_TAGS and mark.id in self.inner(mark.text):
                raise ValueError(f"the tokenizer encodes {mark.text!r} in a message as a marker of its chat template")

    def split(self, text: str) -> list[str | Mark]:
        """Cut text of the template at its marks."""
        parts: list[str | Mark] = []
        end = 0
        for found in self._any_mark.finditer(text):
            parts += [text[end : found.start()], self._marks[found.group()]]
            end = found.end()
        return [part for part in [*parts, text[end:]] if part]

    def ids(self, parts: Iterable[str | Mark]) -> list[int]:
        """Encode marks and the plain text between them."""
        ids: list[int] = []
        piece, last = "", None
        for part in [*parts, None]:
            if isinstance(part, str):
                piece += part
                continue
            if last and last.rstrip:
                piece = re.sub(rf"\A{SPACES}", "", piece)
            if part and part.lstrip:
                piece = re.sub(rf"{SPACES}\Z", "", piece)
            if piece:
                ids += (self.inner if last else self.first)(piece)
            if part:
                ids.append(part.id)
            piece, last = "", part
        return ids


def _encoder(tokenizer: Any, markers: frozenset[int], inner: bool) -> Encode:
    """Return a function that encodes plain text, `inner` for text that is not at the start of a chat.

    `markers` are ids of tokens that a message must not encode to, although they are not special.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    before = getattr(backend, "pre_tokenizer", None)
    state = before.__getstate__().decode() if before else ""
    # Metaspace would put a space before text that is not at the start of a chat.
    changed = state.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"') if inner else state
    if backend is None or (changed == state and not markers):
        return lambda text: tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    from tokenizers import Tokenizer

    settings = json.loads(backend.to_str())
    settings |= {"pre_tokenizer": json.loads(changed or "null"), "truncation": None, "padding": None}
    for token in settings["added_tokens"]:
        token["special"] |= token["id"] in markers
    copy = Tokenizer.from_str(json.dumps(settings))
    copy.encode_special_tokens = True
    return lambda text: tuple(copy.encode(text, add_special_tokens=False).ids)
