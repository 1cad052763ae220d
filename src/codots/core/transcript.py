"""The token-exact record of an episode, and what a learner sees of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class StopReason(StrEnum):
    """Why a sampler stopped."""

    STOP = "stop"
    """A stop id was sampled; it is the last id."""
    LENGTH = "length"
    """The limit of new ids was reached."""
    FULL = "full"
    """The session holds as many ids as the model can read."""


@dataclass(frozen=True)
class Sampled:
    """One answer of a sampler."""

    ids: list[int]
    logprobs: list[float]
    """Of each id, under the distribution it was sampled from."""
    stop: StopReason
    versions: list[int]
    """Of the weights that sampled each id."""


@dataclass(frozen=True)
class Sample:
    """One masked sequence with an advantage on every token it trains."""

    ids: list[int]
    mask: list[bool]
    """True where the policy sampled the id."""
    advantages: list[float]
    logprobs: list[float]
    """The sampler's, 0 where the mask is False."""
    versions: list[int]
    """Of the weights that sampled each id, 0 where the mask is False."""
    ref_logprobs: list[float] | None = None
    """A frozen reference model's, 0 where the mask is False; None where nothing asks for them."""


@dataclass
class Transcript:
    """The ids of one episode in order, growing while the episode runs."""

    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)

    def read(self, ids: list[int]) -> None:
        """Add ids that the policy was given."""
        self.ids += ids
        self.mask += [False] * len(ids)
        self.logprobs += [0.0] * len(ids)
        self.versions += [0] * len(ids)

    def wrote(self, sampled: Sampled) -> None:
        """Add ids that the policy sampled."""
        self.ids += sampled.ids
        self.mask += [True] * len(sampled.ids)
        self.logprobs += sampled.logprobs
        self.versions += sampled.versions

    @property
    def tokens(self) -> int:
        """Number of sampled ids: what this episode trains."""
        return sum(self.mask)

    def sample(self, advantage: float) -> Sample:
        """Give every sampled id the advantage of the episode."""
        advantages = [advantage if m else 0.0 for m in self.mask]
        return Sample(self.ids, self.mask, advantages, self.logprobs, self.versions)
