"""Remove secrets from messages and logs."""

from __future__ import annotations

import os
import re
from typing import Any

NAMED = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
"""Matches names of environment variables whose values are secret."""
LOGIN = re.compile(r"(\w+://)[^/\s@]+@")
SHORT = 8
"""Minimum length of a secret; shorter values also occur in ordinary words."""


def without_secrets(text: str) -> str:
    """Mask the login of every URL, and the values of environment variables whose names suggest a secret."""
    return str(without_secrets_in(text))


def without_secrets_in(value: Any) -> Any:
    """Return plain data with the secrets masked in every text, as `without_secrets` does."""
    found = {name: word for name, word in os.environ.items() if NAMED.search(name) and len(word) >= SHORT}
    return _masked(value, found)


def _masked(value: Any, secrets: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_masked(inner, secrets) for inner in value)
    if not isinstance(value, str):
        return value
    for name, word in secrets.items():
        value = value.replace(word, f"<{name}>")
    return LOGIN.sub(r"\1***@", value)
