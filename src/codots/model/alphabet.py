"""A character tokenizer, for chats with models whose own tokenizer is not available."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from codots.model.renderer import Render

LETTERS = 0x110000
"""Number of code points; ids from here on mark the parts of a chat."""
END = LETTERS
ROLES = {LETTERS + 1: "system", LETTERS + 2: "user", LETTERS + 3: "assistant"}
MARKS = {chr(0xF8FC + id - LETTERS): id for id in (END, *ROLES)}
"""Characters that the chat template writes for the marks. Inside a message, these characters are ordinary text."""


class Alphabet:
    """A tokenizer whose ids are code points, or marks above the last code point."""

    eos_token_id = END
    added_tokens_decoder: ClassVar = {
        id: SimpleNamespace(content=mark, special=True, lstrip=False, rstrip=False) for mark, id in MARKS.items()
    }

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """Encode the text of a message, which has no marks."""
        return {"input_ids": [ord(letter) for letter in text]}

    def encode(self, text: str, **_: Any) -> list[int]:
        """Encode the output of the chat template, marks included."""
        return [MARKS.get(letter, ord(letter)) for letter in text]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Return the characters among the ids, without the marks."""
        return "".join(chr(id) for id in ids if id < LETTERS)

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        """Put a mark before each message, after each reply, and at the end, where the next reply starts."""
        end, system, user, assistant = MARKS
        mark = {"system": system, "user": user, "assistant": assistant}
        parts = [mark[m["role"]] + m["content"] + (end if m["role"] == "assistant" else "") for m in messages]
        return "".join(parts) + assistant


def make_render() -> Render:
    """Return a renderer that needs no model."""
    return Render(Alphabet())


def messages_of(ids: Sequence[int]) -> list[dict[str, str]]:
    """Return the chat that ids of this tokenizer encode, as messages with `role` and `content`."""
    messages: list[dict[str, str]] = []
    for id in ids:
        if id in ROLES:
            messages.append({"role": ROLES[id], "content": ""})
        elif id != END:
            messages[-1]["content"] += chr(id)
    return messages
