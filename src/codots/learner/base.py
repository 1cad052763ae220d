"""Protocol of a learner, which trains on samples and does not depend on packs, positions or credit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from codots.core.transcript import Sample


class Learner(Protocol):
    """Holds the trained weights; several learners may each process a share of a batch.

    Logprobs and entropies are those at the temperature that the samples were drawn at.
    """

    steps: int
    """Number of optimizer steps taken."""

    def forward_backward(self, samples: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Accumulate the gradient of the samples' loss.

        `normalizer` is the normalizer of the whole batch (`learner.batch.normalizer`), so that the gradients of shares
        add up to the gradient of the batch. Returns sums, which `learner.batch.means` turns into metrics. Raises
        ArithmeticError if an advantage or a sampler's logprob is not finite.
        """
        ...

    def optim_step(self) -> dict[str, float]:
        """Clip the accumulated gradient and take one optimizer step.

        Raises RuntimeError if there is no gradient. Raises ArithmeticError if the gradient is not finite, before the
        weights change.
        """
        ...

    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """Return the logprob of every sampled token under the current weights, and 0 for all other tokens."""
        ...

    def state(self) -> Any:
        """Return the state dict of the model."""
        ...

    def set_state(self, state: Any) -> None:
        """Replace the weights of the model that a state dict names."""
        ...

    def save(self, folder: Path) -> None:
        """Save the optimizer state."""
        ...

    def load(self, folder: Path) -> None:
        """Load the optimizer state."""
        ...
