"""Protocol of a learner, which trains on samples and does not depend on packs, positions or credit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from codots.core.transcript import Sample


class Learner(Protocol):
    """Holds the trained weights; several learners may each process a share of a batch."""

    steps: int
    """Number of optimizer steps taken."""

    def forward_backward(self, samples: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Accumulate the gradient of the samples' loss.

        `normalizer` is that of the whole batch (`learner.batch.normalizer`), so that the gradients of shares add up to
        the gradient of the batch. Returns sums, which `learner.batch.means` turns into metrics. Raises ArithmeticError
        for non-finite numbers before they reach the weights.
        """
        ...

    def optim_step(self) -> dict[str, float]:
        """Clip the accumulated gradient and take one optimizer step; RuntimeError if there is no gradient."""
        ...

    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """Return the logprob of every token under the current weights, 0 where the mask is False."""
        ...

    def state(self) -> Any:
        """Return the weights in the format that a sampler loads."""
        ...

    def save(self, folder: Path) -> None:
        """Save the optimizer state."""
        ...

    def load(self, folder: Path) -> None:
        """Load the optimizer state."""
        ...
