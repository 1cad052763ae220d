"""What a sampler promises: ids in, ids and their logprobs out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

from codots.core.rng import Names
from codots.core.transcript import Sampled

SESSIONS = 256
"""Sessions that a sampler serves at once by default."""
CACHE_BYTES = 2 * 2**30
"""Greatest size of a sampler's KV cache by default."""


@dataclass(frozen=True)
class SamplingParams:
    """How to sample one answer."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy; the logprobs are those of the distribution at this temperature, or at 1 for greedy."""


class Session(Protocol):
    """One growing sequence and its cache."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None:
        """Free the cache, however the block was left."""

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Read new ids and sample an answer; both stay in the session."""
        ...


class Sampler(Protocol):
    """Serves one version of the weights to many sessions at once."""

    def session(self, names: Names) -> Session:
        """Open a session whose every draw comes from `stream(*names, turn)`."""
        ...

    async def load(self, weights: Any, version: int) -> None:
        """Serve other weights from now on, and drop every cache."""
        ...
