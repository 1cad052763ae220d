"""The sampler protocol: ids in, ids and their logprobs out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

from codots.core.rng import Names
from codots.core.transcript import Sampled

SESSIONS = 256
"""Default number of sessions that a sampler serves at once."""
CACHE_BYTES = 2 * 2**30
"""Default maximum size of a sampler's KV cache."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample one answer."""

    max_tokens: int
    temperature: float = 1.0
    """Sampling temperature; 0 is greedy. Logprobs are those at this temperature, or at 1 for greedy."""


class Session(Protocol):
    """One growing sequence and its cache."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None:
        """Free the cache, also after an exception."""

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Append new ids, sample an answer, and keep both in the session."""
        ...


class Sampler(Protocol):
    """A server of one version of the weights to many sessions at once."""

    def session(self, names: Names) -> Session:
        """Open a session that draws every random number from `stream(*names, turn)`."""
        ...

    async def load(self, weights: Any, version: int) -> None:
        """Serve other weights from now on, and clear every cache."""
        ...
