"""Secrets stay where they are: out of every line and every log."""

from __future__ import annotations

import os
import re

NAMED = re.compile("KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
"""What the name of an environment variable says when its value is nobody else's business."""
LOGIN = re.compile(r"(\w+://)[^/\s@]+@")
SHORT = 8
"""Anything shorter would be found in words that are no secret."""


def without_secrets(text: str) -> str:
    """Blot out the login of every address, and the values of all variables that are named like a secret."""
    for name, value in os.environ.items():
        if NAMED.search(name) and len(value) >= SHORT:
            text = text.replace(value, f"<{name}>")
    return LOGIN.sub(r"\1***@", text)
