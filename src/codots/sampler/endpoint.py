"""An endpoint: its address, how it is asked, and what it has said about the requests that it takes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from codots.sampler.network import certificates
from codots.sampler.refusals import Room

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Endpoint:
    """Address, retry policy and timeout of a served model."""

    name: str
    url: str = OPENAI_URL
    key: str = field(default="none", repr=False)
    """API key; sent in one header and used nowhere else."""
    at_once: int = 16
    """Maximum number of concurrent requests."""
    tries: int = 6
    pause: float = 1.0
    """Approximate seconds before the second try, doubled for each later try, or longer if the server asks; never more
    than MAX_PAUSE."""
    timeout: float = 600.0
    """Timeout of one try, from first to last byte, in seconds."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Options to add to every request, or to replace its own; an option that is None is not sent."""

    @classmethod
    def from_environment(cls, name: str, at_once: int, extra_body: Mapping[str, Any] | None = None) -> Endpoint:
        """Read address and key from the environment.

        Raises ValueError, without quoting the key, if either is invalid or both are missing, or if the environment
        names certificates that cannot be read.
        """
        url, key = os.environ.get(URL, "").strip(), os.environ.get(KEY, "").strip()
        if not (url or key):
            raise ValueError(f"openai:{name} needs {KEY}, or {URL} for your own server, such as http://host:8000/v1")
        if not _valid_url(url or OPENAI_URL):
            raise ValueError(f"{URL} must look like https://host:port/v1 and contain no user name, password or query")
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise ValueError(f"{KEY} has characters that are not allowed in a header")
        certificates(url or OPENAI_URL)
        return cls(name, url or OPENAI_URL, key or "none", at_once, extra_body=dict(extra_body or {}))

    def __str__(self) -> str:
        """Return the name for error messages."""
        return f"openai:{self.name} at {self.url}"


def _valid_url(url: str) -> bool:
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        return False
    plain = re.fullmatch(r"[\x21-\x7e]+", url) and not (parts.query or parts.fragment or "@" in parts.netloc)
    return bool(plain and parts.scheme in ("http", "https") and parts.hostname and port != 0)


@dataclass
class Terms:
    """What a server has said about the requests that it takes."""

    window: int | None = None
    """Its context window, in tokens."""
    cap: int | None = None
    """Maximum length of a reply, in tokens."""
    refused: set[str] = field(default_factory=set)
    """Options that it does not take."""

    def most(self, asked: int, used: int) -> int:
        """Return how many new tokens to ask for, if the prompt has at least `used` tokens."""
        left = asked if self.window is None else max(1, self.window - used - 1)
        return min(asked, left, self.cap or asked)

    def learn(self, found: Room) -> None:
        """Remember the limits of a refusal."""
        self.window = found.window or self.window
        if found.cap:
            self.cap = found.tokens
