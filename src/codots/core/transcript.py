"""The token-exact record of an episode, and the training sample made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class StopReason(StrEnum):
    """Why a sampler stopped."""

    STOP = "stop"
    """A stop id was sampled and is the last id."""
    LENGTH = "length"
    """The maximum number of new ids was reached."""
    FULL = "full"
    """The session has reached the maximum length of the model."""
    THOUGHT = "thought"
    """The maximum number of new ids was reached in a hidden thought, before any answer. Only servers think hidden."""
    FILTERED = "filtered"
    """A content filter of the server withheld the answer or the rest of it."""
    TOOLS = "tools"
    """The model called a tool of the server instead of answering."""


@dataclass(frozen=True)
class Sampled:
    """One answer of a sampler."""

    ids: list[int]
    logprobs: list[float]
    """Logprob of each id under the distribution that the id was sampled from."""
    stop: StopReason
    versions: list[int]
    """Version of the weights that sampled each id."""
    prompt_tokens: int | None = None
    """Number of prompt tokens that a server counted for this answer, or None for a local model."""
    completion_tokens: int | None = None
    """Number of generated tokens that a server counted for this answer, hidden thoughts included, or None."""


@dataclass(frozen=True)
class Sample:
    """One masked sequence with an advantage for every trained token."""

    ids: list[int]
    mask: list[bool]
    """Whether the policy sampled each id."""
    advantages: list[float]
    logprobs: list[float]
    """Logprob of each id in the sampler, or 0 if the mask is False."""
    versions: list[int]
    """Version of the weights that sampled each id, or 0 if the mask is False."""
    ref_logprobs: list[float] | None = None
    """Logprob of each id in a frozen reference model, or 0 if the mask is False. None if the loss uses no reference."""


@dataclass
class Transcript:
    """The token ids of one episode, in order. Ids are added while the episode runs."""

    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    prompt_tokens: int | None = None
    """Number of prompt tokens of all answers that a server counted, or None for a local model."""
    completion_tokens: int | None = None

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
        if sampled.prompt_tokens is not None and sampled.completion_tokens is not None:
            self.prompt_tokens = (self.prompt_tokens or 0) + sampled.prompt_tokens
            self.completion_tokens = (self.completion_tokens or 0) + sampled.completion_tokens

    @property
    def tokens(self) -> int:
        """Number of sampled ids. Only sampled ids are trained."""
        return sum(self.mask)

    def sample(self, advantage: float) -> Sample:
        """Return a sample in which every sampled id has the advantage of the episode."""
        advantages = [advantage if m else 0.0 for m in self.mask]
        return Sample(self.ids, self.mask, advantages, self.logprobs, self.versions)
