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
    for name, value in os.environ.items():
        if NAMED.search(name) and len(value) >= SHORT:
            text = text.replace(value, f"<{name}>")
    return LOGIN.sub(r"\1***@", text)


def without_secrets_in(value: Any) -> Any:
    """Return plain data with the secrets masked in every text."""
    if isinstance(value, dict):
        return {key: without_secrets_in(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(without_secrets_in, value))
    return without_secrets(value) if isinstance(value, str) else value
