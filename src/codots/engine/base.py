"""What an engine promises: it rolls out lives and trains on them, on one machine or on many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from codots.core.transcript import Sample
from codots.rollout.life import Job, Life

OnLife = Callable[[Life], None]
"""Hears of a life as it ends."""


class Engine(Protocol):
    """Holds a model in samplers, which roll out, and in learners, which train.

    Timeouts are in seconds. A call that takes longer raises TimeoutError, which names what was being done; after it the
    engine can only be closed. Timeouts hold in any thread, and no call needs an event loop of its own. One call runs at
    a time, but not always in the same thread: `save`, `save_model`, `load` and `init_from` run in threads that a caller
    can stop waiting for.
    """

    @property
    def version(self) -> int:
        """Version of the weights that the samplers serve."""
        ...

    @property
    def steps(self) -> int:
        """Optimizer steps that the weights have taken."""
        ...

    @property
    def pending(self) -> int:
        """Batches of jobs that were submitted and not collected yet."""
        ...

    def submit(self, jobs: Sequence[Job], timeout: float) -> None:
        """Roll these jobs out with the weights of now, at once or in the background; `collect` returns their lives."""
        ...

    def collect(self, timeout: float) -> list[Life]:
        """Return the lives of the batch that was submitted first, in the order of its jobs."""
        ...

    def rollout(self, jobs: Sequence[Job], timeout: float, on_life: OnLife = lambda _: None) -> list[Life]:
        """Roll these jobs out and return their lives, in the order of the jobs; pending batches stay pending."""
        ...

    def logprobs(self, samples: Sequence[Sample], timeout: float, *, reference: bool = False) -> list[list[float]]:
        """Return the logprob of every sampled id under the weights, or under those of the frozen reference model."""
        ...

    def forward_backward(self, samples: Sequence[Sample], normalizer: float, timeout: float) -> dict[str, float]:
        """Add the gradient of the samples' loss to what has accumulated since the last step; return metrics."""
        ...

    def optim_step(self, timeout: float) -> dict[str, float]:
        """Take one optimizer step with what has accumulated, on every learner; return metrics."""
        ...

    def sync(self, timeout: float) -> None:
        """Serve the weights as version + 1 on every sampler, or raise with the cause."""
        ...

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on: weights, optimizer, and the lives of pending batches."""
        ...

    def save_model(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder."""
        ...

    def load(self, folder: Path, version: int) -> None:
        """Go on from what `save` wrote, and serve its weights as this version."""
        ...

    def init_from(self, folder: Path) -> None:
        """Start from the weights and the optimizer that another run saved, at step and version 0."""
        ...

    def close(self) -> None:
        """End every process and thread; may be called twice."""
        ...
