"""Protocol of an engine, which rolls out lives and trains on them, on one machine or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from codots.core.transcript import Sample
from codots.rollout.life import Job, Life, OnLife


class Engine(Protocol):
    """A model in samplers, which roll out, and in learners, which train.

    Timeouts are in seconds. A call that takes longer raises TimeoutError, which names the operation; afterwards the
    engine can only be closed. Timeouts work in any thread, and no call needs an event loop. Calls are sequential but
    may come from different threads: `save`, `save_model`, `load` and `init_from` run in threads that a caller can
    abandon. Logprobs and entropies, of samplers and learners alike, are those at the temperature of the sampling.
    """

    @property
    def version(self) -> int:
        """Version of the weights that the samplers serve."""
        ...

    @property
    def steps(self) -> int:
        """Number of optimizer steps taken."""
        ...

    @property
    def pending(self) -> int:
        """Number of submitted batches of jobs that have not been collected."""
        ...

    def submit(self, jobs: Sequence[Job], timeout: float) -> None:
        """Roll out jobs with the current weights, now or in the background; `collect` returns their lives."""
        ...

    def collect(self, timeout: float) -> list[Life]:
        """Return the lives of the oldest pending batch, in the order of its jobs."""
        ...

    def rollout(self, jobs: Sequence[Job], timeout: float, on_life: OnLife | None = None) -> list[Life]:
        """Roll out jobs and return their lives in the same order; pending batches stay pending.

        `on_life` is called for each life when it ends, in the caller's thread.
        """
        ...

    def logprobs(self, samples: Sequence[Sample], timeout: float, *, reference: bool = False) -> list[list[float]]:
        """Return one row of logprobs per sample, with 0 for tokens that were not sampled.

        Logprobs are those of the current weights or, if `reference`, of the frozen reference model.
        """
        ...

    def forward_backward(self, samples: Sequence[Sample], normalizer: float, timeout: float) -> dict[str, float]:
        """Accumulate the gradient of the samples' loss and return metrics."""
        ...

    def optim_step(self, timeout: float) -> dict[str, float]:
        """Take one optimizer step with the accumulated gradient on every learner and return metrics."""
        ...

    def sync(self, timeout: float) -> dict[str, float]:
        """Load the trained weights into every sampler, increase the version by 1, and return metrics."""
        ...

    def save(self, folder: Path) -> None:
        """Save everything that `load` needs: weights, optimizer, and lives of pending batches."""
        ...

    def save_model(self, folder: Path) -> None:
        """Save the weights as a Hugging Face model folder."""
        ...

    def load(self, folder: Path, version: int) -> None:
        """Load a checkpoint written by `save` and serve its weights as `version`."""
        ...

    def init_from(self, folder: Path) -> None:
        """Load the weights and optimizer of another run's checkpoint, at step 0 and version 0."""
        ...

    def close(self) -> None:
        """Stop all processes and threads; may be called repeatedly."""
        ...
