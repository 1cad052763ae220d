"""The sampler protocol: token ids in; token ids and their logprobs out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

from codots.core.rng import Names
from codots.core.transcript import Sampled

SESSIONS = 256
"""Default number of sessions that a sampler serves at once."""
CACHE_BYTES = 2 * 2**30
"""Default maximum size of a sampler's KV cache, in bytes."""


class FinalError(Exception):
    """Failure that another attempt would only repeat."""


@dataclass(frozen=True)
class SamplingParams:
    """Parameters for sampling one answer."""

    max_tokens: int
    temperature: float = 1.0
    """Sampling temperature; 0 means greedy. Logprobs are computed at this temperature, or at 1 for greedy sampling."""


class Session(Protocol):
    """One growing sequence of token ids and its cache."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None:
        """Free the cache, also after an exception."""

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Append new ids, sample an answer, and keep both in the session."""
        ...


class Sampler(Protocol):
    """A model that serves many sessions at once, with one version of the weights at a time."""

    def session(self, names: Names) -> Session:
        """Open a session that draws every random number from `stream(*names, turn)`."""
        ...

    async def load(self, weights: Any, version: int) -> None:
        """Serve other weights from now on, as `version`. Clear all caches, except those that sessions asked to keep."""
        ...
