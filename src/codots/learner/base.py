"""What a learner promises: samples in, better weights out, blind to packs, positions and credit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from codots.core.transcript import Sample


class Learner(Protocol):
    """Holds the weights that are trained; several learners may each take a share of a batch."""

    steps: int
    """Optimizer steps that the weights have taken."""

    def forward_backward(self, samples: Sequence[Sample], normalizer: float) -> dict[str, float]:
        """Add the gradient of the samples' loss to what has accumulated since the last step.

        `normalizer` is that of the whole batch (`learner.batch.normalizer`), so that gradients of shares add up to the
        batch's. Returns sums, of which `learner.batch.means` makes metrics. Numbers that are not finite raise
        ArithmeticError before they reach the weights.
        """
        ...

    def optim_step(self) -> dict[str, float]:
        """Clip what has accumulated and take one optimizer step with it; RuntimeError if there is nothing."""
        ...

    def logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """Return the logprob of every id under the weights as they are, 0 where the mask is False."""
        ...

    def state(self) -> Any:
        """Return the weights in the form that a sampler loads."""
        ...

    def save(self, folder: Path) -> None:
        """Write the optimizer's state."""
        ...

    def load(self, folder: Path) -> None:
        """Read the optimizer's state."""
        ...
