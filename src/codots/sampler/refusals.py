"""What a server's refusal says: its words, the room that a prompt leaves, and the option that it does not take."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import Any

SPOKEN = ("message", "msg", "error", "detail", "errors", "error_description", "reason", "title")
"""Keys of an error body that hold its words, the most specific first."""
OPTIONS = ("seed", "top_p", "temperature", "max_tokens", "max_completion_tokens")
"""Options that a request can do without, the most dispensable first."""
LIMITS = ("max_tokens", "max_completion_tokens")
"""Two names of the same option."""

_UNSUPPORTED = re.compile(
    r"unsupported|not (be )?(\w+ )?(support|allow|permit|accept|recogni|available|valid)|unknown|unrecogni|unexpected|"
    r"extra (inputs|fields)|both|only one|deprecated|no longer|cannot be (used|set|specified)|"
    r"invalid (param|arg|field)",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size|limit)|max(imum)?[_ ]model[_ ]len|(prompt|input) (is )?too long|too many tokens|"
    r"(input|prompt) tokens? count|(prompt|input|inputs`?)\b.{0,40}\b(exceeds?|longer than|larger than|less than \d)|"
    r"input tokens exceed|`inputs` tokens|requested token count exceeds",
    re.IGNORECASE | re.DOTALL,
)
_ASKED = re.compile(
    r"max_(new_|completion_|output_)?tokens|completion|in the output|requested (a total|about|\d|token)|output tokens",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(r"too (large|high|big|many)|exceed|greater|at most|maximum|less than|range|>", re.IGNORECASE)
_SUMS = (
    r"(?P<prompt>\d+) \+ \d+ > (?P<window>\d+)",
    r"\d+ > (?P<window>\d+) - (?P<prompt>\d+)",
)
_WINDOW = (
    r"(?:context (?:length|size|window|limit)|model length)\D{0,40}?(\d+)",
    r"must be <= (\d+)",
)
_PROMPT = (
    r"(\d+) (?:tokens? )?(?:in|from|of) (?:the|your|text) (?:input|messages|prompt)",
    r"(\d+) (?:`?inputs?`?|prompt) tokens",
    r"(?:input|prompt|request) \((?:length )?(\d+)",
    r"(?:resulted in|prompt contains)(?: at least)? (\d+)",
)
_CAP = (
    r"at most (\d+) (?:completion|output)",
    r"\[1, ?(\d+)\]",
    r"max_\w*tokens\W{0,4}\d+ > (\d+)",
    r"less than or equal to `?(\d+)",
    r"up to (\d+) (?:completion|output)",
)


def words(text: str) -> str:
    """Return the words of an error body in one line: JSON of any usual shape, plain text or HTML."""
    try:
        found = _spoken(json.loads(text))
    except (ValueError, RecursionError):
        found = text
    if re.search(r"<(!doctype|html|body|head)\b", found, re.IGNORECASE):
        found = html.unescape(re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", found))
    return " ".join("".join(letter if letter.isprintable() else " " for letter in found).split())


def _spoken(body: Any) -> str:
    if isinstance(body, list):
        return "; ".join(filter(None, map(_spoken, body)))
    if not isinstance(body, dict):
        return "" if body is None else str(body)
    said = next((said for key in SPOKEN if (said := _spoken(body.get(key)))), "")
    if not said:
        return json.dumps(body) if body else ""
    where, raw = body.get("loc"), body.get("metadata")
    if isinstance(where, list):  # of a Pydantic error
        said = f"{'.'.join(map(str, where))}: {said}"
    return f"{said}: {raw['raw']}" if isinstance(raw, dict) and raw.get("raw") else said


@dataclass(frozen=True)
class Room:
    """What a refused request may ask for instead."""

    tokens: int
    """Maximum number of new tokens; 0 if the prompt alone is too long."""
    window: int | None = None
    """Context window of the server, in tokens, if it was told."""
    cap: bool = False
    """Whether the server limits the length of replies, whatever the prompt."""


def room(text: str, asked: int) -> Room | None:
    """Return what a request for `asked` new tokens may ask for after this refusal.

    If the server tells no numbers, that is half as much. Returns None if neither the prompt nor `asked` was too long.
    """
    said = re.sub(r"(?<=\d),(?=\d{3})", "", f"{words(text)} {text}")
    if re.search(r"unsupported_(parameter|value)", said):
        return None
    window, prompt, cap = _number(_WINDOW, said), _number(_PROMPT, said), _number(_CAP, said)
    for pattern in _SUMS:
        if found := re.search(pattern, said):
            window, prompt = int(found["window"]), int(found["prompt"])
    if _TOO_LONG.search(said):
        if window and prompt:
            left = max(0, window - prompt)
            return Room(left if left < asked else asked // 2, window)
        return Room(asked // 2 if _ASKED.search(said) else 0, window)
    if re.search(r"max_\w*tokens", said) and _TOO_MANY.search(said) and not _UNSUPPORTED.search(words(text)):
        return Room(cap if cap and cap < asked else asked // 2, cap=True)
    return None


def _number(patterns: tuple[str, ...], said: str) -> int | None:
    found = (re.search(pattern, said, re.IGNORECASE) for pattern in patterns)
    return next((int(match[1]) for match in found if match), None)


def refused_option(text: str, sent: set[str]) -> str | None:
    """Return the option, among those sent, that a refusal names as not supported, or None."""
    said = words(text)
    if not _UNSUPPORTED.search(said) and not re.search(r"unsupported_(parameter|value)|extra_forbidden", text):
        return None
    if named := re.search(r'"param":\s*"(\w+)"', text):
        found = {named[1]} & sent
    else:
        found = {name for name in sent if re.search(rf"\b{name}\b", said)}
    if set(LIMITS) <= {*re.findall(r"\w+", said)} and len(found & set(LIMITS)) == 1:
        return (found & set(LIMITS)).pop()  # "max_tokens is not supported, use max_completion_tokens"
    return next((name for name in OPTIONS if name in found), None)


def concerns_all(status: int, text: str) -> bool:
    """Return whether a permanent refusal concerns every request: a key, a model or an address, not one prompt."""
    named = r"api[ _]?key|(invalid|unknown|no such) model|\bmodel\b.{0,80}(not exist|not found|not available)"
    return status not in (400, 413, 422) or bool(re.search(named, words(text), re.IGNORECASE))


def is_spent(text: str) -> bool:
    """Return whether a refusal says that the account has no money left."""
    return bool(re.search(r"insufficient_quota|insufficient (balance|credit|quota)|billing_", text, re.IGNORECASE))


def is_filtered(text: str) -> bool:
    """Return whether a content filter of the server rejected the prompt."""
    return bool(re.search(r"content[_ ]filter|content_policy|ResponsibleAIPolicy|data_inspection_failed", text))
