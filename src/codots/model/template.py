"""What a chat template writes around the messages of a chat, found by rendering chats of placeholders."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from string import ascii_letters
from typing import Any

Apply = Callable[[list[dict[str, str]]], str]
"""Renders a chat as text, with the generation prompt at the end."""
SYSTEM, *CHAT = (f"\ue000{name}\ue001" for name in ("system", "user", "reply", "next", "reply again", "last"))
"""Placeholders for the messages of a chat."""
REPLIES = CHAT[1::2]
GAP = "\n\n"
"""Between the system text and the first user message, where one message holds both."""
NEW_THOUGHT = re.compile(r"(<think>\s*(</think>\s*)?)?\Z")
"""Reasoning at the end of a generation prompt: empty, to turn reasoning off, or just opened."""
OLD_THOUGHT = re.compile(r"((<think>\s*)?</think>\s*)?\Z")
"""Empty reasoning before an earlier reply."""
DATE = date(2024, 7, 26)
"""The date that templates print as today's; the default of Llama 3."""
CLOCK = "strftime_now"
# The newline at the end is not printed. A macro hides the function of the same name.
FIXED_CLOCK = (
    "{% macro strftime_now(format) %}{% set now = namespace(text=format) %}"
    "{% for code, value in directives.items() %}{% set now.text = now.text.replace(code, value) %}{% endfor %}"
    "{{ now.text }}{% endmacro %}\n"
)
DIRECTIVES = {f"%{flag}{code}": DATE.strftime(f"%{flag}{code}") for flag in ("-", "") for code in ascii_letters}


def fixed_clock(tokenizer: Any) -> dict[str, Any]:
    """Return arguments of `apply_chat_template` with which a template that prints the date prints `DATE`."""
    if CLOCK not in str(getattr(tokenizer, "chat_template", "")):
        return {}
    return {"chat_template": FIXED_CLOCK + tokenizer.get_chat_template(), "directives": DIRECTIVES}


@dataclass(frozen=True)
class Trim:
    """Whether a template strips a message on either side."""

    left: bool
    right: bool

    def __call__(self, text: str) -> str:
        """Strip a message as the template does."""
        text = text.lstrip() if self.left else text
        return text.rstrip() if self.right else text


@dataclass(frozen=True)
class Layout:
    """What a template writes around messages: before, between and after them."""

    opening: tuple[str, ...]
    """Around the system text and the first user message, or around the one message that holds both."""
    turn: tuple[str, str]
    """Around a later user message, from the end of the reply before it."""
    lead: str
    """Whitespace before a reply, which is left to the model."""
    thought: str
    """Opening of a thought at the end of the generation prompt, or an empty text."""
    trims: tuple[Trim, ...]
    """For each message of the opening and for a later user message."""

    def messages(self, system: str, user: str) -> list[str]:
        """Return the messages of the opening, stripped."""
        joined = len(self.opening) == 2
        texts = [system + GAP + user] if joined else [system, user]
        return [trim(text) for trim, text in zip(self.trims[:-1], texts, strict=True)]


class _RejectedError(ValueError):
    """The template raised an error."""


def layout_of(apply: Apply, thinking: bool) -> Layout:
    """Return the layout of a template whose chats only grow.

    If the template rejects, drops or moves a system message, the first user message holds its text. Raises ValueError
    if the template does not fit either way.
    """
    try:
        return _layout(apply, thinking, [SYSTEM, *CHAT])
    except ValueError as error:
        native = error
    try:
        return _layout(apply, thinking, CHAT)
    except ValueError as joined:
        needs_system = isinstance(joined, _RejectedError) and not isinstance(native, _RejectedError)
        raise (native if needs_system else joined) from None


def _layout(apply: Apply, thinking: bool, chat: Sequence[str]) -> Layout:
    first = len(chat) - 4
    short, long, longer = (_cut(apply, chat[:count]) for count in (first, first + 2, first + 4))
    prompt, (lead, close, tail) = short[-1], long[first:]
    if short[:-1] != long[:first] or [*long[:-1], close, tail] != [*longer[:-3], *longer[-2:]]:
        raise _rewrites()
    _check_same_place(prompt, lead, thinking)
    _check_same_place(tail, longer[-3], thinking)
    space = lead.removeprefix(prompt) if lead.startswith(prompt) else ""
    thought = _end(NEW_THOUGHT, prompt)
    return Layout(
        opening=tuple(short),
        turn=(close, tail),
        lead=space if space.isspace() else "",
        thought="" if "</think>" in thought else thought,
        trims=_trims(apply, chat[: first + 2], long),
    )


def _cut(apply: Apply, chat: Sequence[str], left: str = "", right: str = "") -> list[str]:
    """Return what a template writes around the messages of a chat; user and system messages are padded."""
    roles = [*(["system"] if chat[0] == SYSTEM else []), *["user", "assistant"] * 3][: len(chat)]
    texts = [text if text in REPLIES else left + text + right for text in chat]
    try:
        text = apply([{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)])
    except Exception as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise _RejectedError(f"cannot render {', '.join(roles)}: {line}") from error
    if any(text.count(message) != 1 for message in chat if message not in REPLIES):
        raise ValueError("does not write every message exactly once")
    places = [text.find(message) for message in chat]
    if -1 in places or places != sorted(places):
        raise _rewrites()
    ends = [0, *(place + len(message) for place, message in zip(places, chat, strict=True))]
    return [text[start:end] for start, end in zip(ends, [*places, len(text)], strict=True)]


def _check_same_place(prompt: str, lead: str, thinking: bool) -> None:
    """Raise ValueError unless a reply is generated where the template writes it later, but for thoughts and spaces."""
    new, old = _end(NEW_THOUGHT, prompt), _end(OLD_THOUGHT, lead)
    if new and "</think>" not in new and not thinking:
        raise ValueError("always opens a thought before a reply; expected thinking: true in codots.json")
    before, later = prompt.removesuffix(new), lead.removesuffix(old)
    only_adds, late = lead.startswith(prompt), lead.removeprefix(prompt)
    if only_adds and not late.strip():
        return
    if later.startswith(before) and not later.removeprefix(before).strip() and (new or thinking):
        return
    if only_adds:
        raise ValueError(f"writes {late!r} before an earlier reply, but not in its generation prompt")
    raise _rewrites()


def _trims(apply: Apply, chat: Sequence[str], around: Sequence[str]) -> tuple[Trim, ...]:
    """Return how the template strips each message that is not a reply."""
    left, right = "\n \n", "\n  \n"
    gaps = []
    for text, padded in zip(around, _cut(apply, chat, left, right), strict=True):
        after, before = padded.startswith(right), padded.endswith(left)
        gaps.append((after, before))
        if padded != right * after + text + left * before:
            raise ValueError("changes the whitespace around a message, and not by stripping it")
    trims = [Trim(not before, not after) for (_, before), (after, _) in pairwise(gaps)]
    return tuple(trim for trim, message in zip(trims, chat, strict=True) if message not in REPLIES)


def _end(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group() if found else ""


def _rewrites() -> ValueError:
    return ValueError("rewrites earlier turns when a chat grows; expected one that only adds")
