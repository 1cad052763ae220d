"""What a learner promises: samples in, better weights out, blind to packs, positions and credit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from codots.core.transcript import Sample


class Learner(Protocol):
    """Holds the weights that are trained."""

    def step(self, batch: Sequence[Sample]) -> dict[str, float]:
        """Take exactly one optimiser step over the batch, however it is cut into micro-batches."""
        ...

    def logprobs(self, batch: Sequence[Sample]) -> list[list[float]]:
        """Give the logprob of every id under the weights as they are, 0 where the mask is False."""
        ...

    def weights(self) -> Any:
        """Give the weights in the form that a sampler loads."""
        ...

    def save(self, folder: Path) -> None:
        """Write the optimiser's state."""
        ...

    def load(self, folder: Path) -> None:
        """Read the optimiser's state."""
        ...
