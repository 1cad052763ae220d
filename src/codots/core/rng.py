"""Named random streams: equal names give equal draws on every machine."""

from __future__ import annotations

import hashlib

import numpy as np

Names = tuple[str | int, ...]


def digest(*names: str | int) -> int:
    """Hash names to a 128-bit integer that is the same on every machine and in every process."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def stream(*names: str | int) -> np.random.Generator:
    """Return a new random generator seeded by these names. Equal names give equal draws, whatever was drawn before."""
    return np.random.Generator(np.random.PCG64(digest(*names)))
