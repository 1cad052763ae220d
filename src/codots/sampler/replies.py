"""Read a chat completion: its text, why it ended, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codots.core.transcript import StopReason

ENDS = {
    StopReason.LENGTH: ("length", "max_tokens", "max_output_tokens"),
    StopReason.FULL: ("model_length",),
    StopReason.FILTERED: ("content_filter", "safety", "recitation", "blocklist", "prohibited_content"),
}
"""Finish reasons of servers, in lower case, by stop reason. Every other one means that the model ended its reply."""
BROKEN = ("error", "abort")
"""Finish reasons of a reply that the server did not complete."""


class UnreadableError(Exception):
    """An answer that is not a chat completion."""


@dataclass(frozen=True)
class Reply:
    """One message of a model."""

    text: str
    stop: StopReason
    prompt_tokens: int = 0
    """Number of tokens of the request as the server counts them, or 0 if it does not tell."""
    completion_tokens: int = 0
    """Number of generated tokens, hidden thoughts included, or 0 if the server does not tell."""
    told: bool = True
    """Whether the server counted the tokens."""


def read_reply(answer: Any) -> Reply:
    """Read a chat completion. Raises UnreadableError if it is none, or if it has neither text nor a finish reason."""
    try:
        choice = answer.choices[0]
        message, ended = choice.message, choice.finish_reason
        text = text_of(message.content) or text_of(getattr(message, "refusal", None))
    except (AttributeError, IndexError, TypeError):
        raise UnreadableError("the answer is not a chat completion") from None
    ended = ended.lower() if isinstance(ended, str) else None
    if ended in BROKEN or not (text or ended):
        raise UnreadableError(f"the answer has no text and finish reason {choice.finish_reason!r}")
    text = text.encode(errors="replace").decode()  # a lone surrogate cannot be encoded
    stop = next((stop for stop, names in ENDS.items() if ended in names), StopReason.STOP)
    if not text and stop is StopReason.LENGTH and _has_thought(message, answer):
        stop = StopReason.THOUGHT
    if not text and stop is StopReason.STOP and (_has(message, "tool_calls") or _has(message, "function_call")):
        stop = StopReason.TOOLS
    usage = getattr(answer, "usage", None)
    return Reply(text, stop, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))


def text_of(content: Any) -> str:
    """Return the text of a message's content: a text, nothing, or a list of parts of which only texts count.

    Raises TypeError for anything else.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else _text_of_part(part) for part in content)
    raise TypeError(f"a message of type {type(content).__name__}")


def _text_of_part(part: Any) -> str:
    kind = part.get("type", "text") if isinstance(part, dict) else None
    return text_of(part.get("text")) if kind in ("text", "output_text") else ""


def _has(message: Any, name: str) -> bool:
    return bool(getattr(message, name, None))


def _has_thought(message: Any, answer: Any) -> bool:
    """Return whether the server reports reasoning, as text or as a count."""
    details = getattr(getattr(answer, "usage", None), "completion_tokens_details", None)
    parts = message.content if isinstance(message.content, list) else []
    return (
        any(_has(message, name) for name in ("reasoning_content", "reasoning", "thinking"))
        or any(isinstance(part, dict) and part.get("type") in ("thinking", "reasoning") for part in parts)
        or bool(_count(details, "reasoning_tokens"))
    )


def _count(usage: Any, name: str) -> int:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count > 0 else 0
