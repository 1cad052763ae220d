"""Base of the engines that split their work over several workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from time import monotonic
from typing import Any

from codots.core.deadline import MAX_TIMEOUT, SideThread
from codots.core.transcript import Sample
from codots.engine.answers import OutOfStepError
from codots.engine.plan import Plan
from codots.engine.usage import Meter
from codots.learner.batch import fair_shares, means
from codots.rollout.life import Job, Life, OnLife
from codots.rollout.records import read_lives, write_lives

OnEvent = Callable[..., None]
"""Callback for each event of a call. It receives the index of the worker, and what the worker emits."""
Share = tuple[Any, ...]
"""Arguments of one worker's part of a call."""
PENDING = "pending.json"
"""File of the lives that were pending when a checkpoint was saved."""


class SplitEngine(ABC):
    """Engine that splits jobs by index, and samples by their number of tokens.

    Shares and the sums of their gradients are in worker order, so that equal recipes give equal results. Calls run in a
    thread that a timeout can abandon.
    """

    samplers: int
    """Number of workers that roll out."""
    learners: int
    """Number of workers that train. The first one saves and loads."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.version, self.steps = plan, 0, 0
        self._lives: deque[list[Life]] = deque()
        self._thread = SideThread()
        self._meter = Meter()

    @abstractmethod
    def _sample(self, method: str, shares: Sequence[Share], on_event: OnEvent | None = None) -> list[Any]:
        """Call a method of every sampler. With `on_event`, the method's last argument emits events."""

    @abstractmethod
    def _learn(self, method: str, shares: Sequence[Share]) -> list[Any]:
        """Call a method of every learner."""

    @abstractmethod
    def _first(self, method: str, *arguments: Any) -> Any:
        """Call a method of the first learner, in the caller's thread."""

    @abstractmethod
    def _optim_step(self) -> dict[str, float]:
        """Take an optimizer step with the gradients of all learners."""

    @abstractmethod
    def _serve(self, version: int) -> None:
        """Serve the trained weights as this version on every sampler."""

    @abstractmethod
    def _load(self, folder: Path, restart: bool) -> int:
        """Load a checkpoint into every learner and return the number of optimizer steps, 0 if `restart`."""

    @property
    def pending(self) -> int:
        """Number of submitted batches of jobs that have not been collected."""
        return len(self._lives)

    def submit(self, jobs: Sequence[Job], timeout: float) -> None:
        """Roll out jobs with the current weights; `collect` returns their lives."""
        self._lives.append(self.rollout(jobs, timeout))

    def collect(self, timeout: float) -> list[Life]:
        """Return the lives of the oldest pending batch, in the order of its jobs."""
        if not self.pending:
            raise RuntimeError("nothing to collect: call submit before collect")
        return self._lives.popleft()

    def rollout(self, jobs: Sequence[Job], timeout: float, on_life: OnLife | None = None) -> list[Life]:
        """Roll out jobs and return their lives. `on_life` is called for each life when it ends."""
        self._meter.start()
        shares = self._shares(jobs)
        firsts = [0, *accumulate(len(share) for (share,) in shares)]

        def work(emit: Callable[[Any], None]) -> list[list[Life]]:
            on_event = None if on_life is None else lambda k, i, life: emit((firsts[k] + i, life))
            return self._sample("rollout", shares, on_event)

        operation = f"rolling out {len(jobs)} lives"
        parts = self._thread.call(timeout, operation, work, lambda event: on_life(*event) if on_life else None)
        return [life for part in parts for life in part]

    def logprobs(self, samples: Sequence[Sample], timeout: float, *, reference: bool = False) -> list[list[float]]:
        """Return one row of logprobs per sample, with 0 for tokens that were not sampled."""
        shares = [(share, reference) for share in split(samples, self.learners)]
        with self._meter.learning():
            parts = self._call(timeout, "scoring", partial(self._learn, "logprobs", shares))
        return [row for part in parts for row in part]

    def forward_backward(self, samples: Sequence[Sample], normalizer: float, timeout: float) -> dict[str, float]:
        """Accumulate the gradient of the samples' loss and return metrics.

        An error other than a timeout drops the accumulated gradient.
        """
        assert self.plan.learner is not None
        contributing = [sample for sample in samples if self.plan.learner.contributes(sample)]
        shares = [(share, normalizer) for share in fair_shares(contributing, self.learners)]
        try:
            with self._meter.learning():
                work = partial(self._learn, "forward_backward", shares)
                parts = self._call(timeout, "forward and backward passes", work)
        except Exception as error:
            if not isinstance(error, TimeoutError):
                drop = partial(self._learn, "zero_grad", [()] * self.learners)
                with suppress(OutOfStepError):
                    self._call(timeout, "dropping the gradient", drop)
            raise
        return means(parts)

    def optim_step(self, timeout: float) -> dict[str, float]:
        """Take one optimizer step with the accumulated gradient on every learner and return metrics."""
        with self._meter.learning():
            metrics: dict[str, float] = self._call(timeout, "the optimizer step", self._optim_step)
        self.steps += 1
        return metrics

    def sync(self, timeout: float) -> dict[str, float]:
        """Load the trained weights into every sampler, increase the version by 1, and return metrics."""
        start = monotonic()
        self._serve_as(self.version + 1, timeout)
        seconds, read = monotonic() - start, partial(self._sample, "take_usage", [()] * self.samplers)
        return self._meter.metrics(self._call(timeout, "reading the usage of samplers", read), seconds)

    def save(self, folder: Path) -> None:
        """Save a Hugging Face model folder, the optimizer, any LoRA adapter, and the lives of pending batches."""
        self._first("save", folder)
        # Omit the first batch whose lives all failed and all later ones, so that a resumed run rolls them out again.
        if pending := list(takewhile(lambda lives: any(not life.failure for life in lives), self._lives)):
            write_lives(folder / PENDING, pending)

    def save_model(self, folder: Path) -> None:
        """Save the weights as a Hugging Face model folder with its `codots.json`."""
        self._first("save_model", folder)

    def load(self, folder: Path, version: int) -> None:
        """Load a checkpoint written by `save` and serve its weights as `version`."""
        self._meter.reset()
        self.steps = self._load(folder, restart=False)
        self._lives = deque(read_lives(folder / PENDING) if (folder / PENDING).is_file() else ())
        self._serve_as(version, MAX_TIMEOUT)

    def init_from(self, folder: Path) -> None:
        """Load the weights and optimizer of another run's checkpoint, at step 0 and version 0."""
        self._meter.reset()
        self.steps = self._load(folder, restart=True)
        self._lives.clear()
        self._serve_as(0, MAX_TIMEOUT)

    def _shares(self, jobs: Sequence[Job]) -> list[Share]:
        """Split jobs into contiguous shares, since a group shares its prompt prefix."""
        return [(share,) for share in split(jobs, self.samplers)]

    def _serve_as(self, version: int, timeout: float) -> None:
        self._call(timeout, f"serving version {version}", partial(self._serve, version))
        self.version = version

    def _call(self, timeout: float, operation: str, work: Callable[[], Any]) -> Any:
        return self._thread.call(timeout, operation, lambda _: work())


def split(work: Sequence[Any], n: int) -> list[list[Any]]:
    """Split work into n contiguous shares of about equal length."""
    ends = [len(work) * i // n for i in range(n + 1)]
    return [list(work[a:b]) for a, b in pairwise(ends)]
