"""Reading and writing claims about codes in a context."""

from __future__ import annotations

import re

CLAIM = re.compile(r"\b([1-4])\b(?:\W+(?!up\b|down\b|left\b|right\b)[a-z]+){0,4}?\W+(up|down|left|right)\b", re.I)
Claim = tuple[str, str]
"""A code and its claimed direction."""


def read_claims(context: str) -> list[Claim]:
    """Return all claims of a text in either style, in order."""
    return [(code, direction.lower()) for code, direction in CLAIM.findall(context)]


def write_claim(code: str, direction: str, style: str) -> str:
    """Return a claim as text."""
    return f"{code}={direction}" if style == "compact" else f"- code {code} moves you {direction}"
