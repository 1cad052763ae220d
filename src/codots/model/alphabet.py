"""A tokenizer for chats of which only the text counts, so that they are rendered like all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codots.model.renderer import Render

LETTERS = 0x110000
"""Code points there are; the marks of a chat come after them."""
END = LETTERS
ROLES = {LETTERS + 1: "system", LETTERS + 2: "user", LETTERS + 3: "assistant"}
MARKS = {chr(0xF8FC + id - LETTERS): id for id in (END, *ROLES)}
"""How a chat template writes the marks; the same letter inside a message stays a letter."""


class Alphabet:
    """A tokenizer for text that no tokenizer is known of: an id is a code point, or a mark past the last of them."""

    eos_token_id = END

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """Encode what somebody said, which holds no marks."""
        return {"input_ids": [ord(letter) for letter in text]}

    def encode(self, text: str, **_: Any) -> list[int]:
        """Encode what the template wrote."""
        return [MARKS.get(letter, ord(letter)) for letter in text]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Give the letters among the ids."""
        return "".join(chr(id) for id in ids if id < LETTERS)

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        """Put a mark before each message, one after each reply, and one where the next reply goes."""
        end, system, user, assistant = MARKS
        mark = {"system": system, "user": user, "assistant": assistant}
        said = [mark[m["role"]] + m["content"] + (end if m["role"] == "assistant" else "") for m in messages]
        return "".join(said) + assistant


def make_render() -> Render:
    """Make a renderer that needs no model."""
    return Render(Alphabet())
