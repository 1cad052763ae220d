"""The engine of one machine: a process for each core, each with the whole model."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import pairwise, takewhile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from codots.core.deadline import MAX_TIMEOUT, SideThread
from codots.core.processes import sigint_blocked
from codots.core.transcript import Sample
from codots.engine.base import OnLife
from codots.engine.forkserver import model_processes
from codots.engine.worker import Plan, Worker, serve_calls
from codots.learner.batch import fair_shares, means
from codots.learner.lora import ADAPTER, load_adapter, merged, save_adapter
from codots.model.device import Place
from codots.model.load import identity, load_model
from codots.rollout.life import Job, Life
from codots.rollout.records import read_lives, write_lives

PENDING = "pending.json"
"""Lives that were rolled out and not collected when a checkpoint was written."""


class LocalEngine:
    """Roll out lives and train on them, shared out over worker processes.

    Jobs are dealt by index and gradients added in the order of the workers, so that a run is a function of its recipe,
    of which the number of workers is a part. The first worker is this process, in a thread of its own that a timeout
    can abandon; on a GPU it is the only one. What is submitted is rolled out at once and held until it is collected: a
    run that submits ahead is the deterministic twin of an asynchronous cluster.
    """

    def __init__(self, plan: Plan, workers: int = 1) -> None:
        self.plan = plan
        more = workers - 1 if plan.place.device == "cpu" else 0
        context: Any = model_processes() if more else None  # it imports while this process does
        self.first = Worker(plan)
        self.beside = identity(plan.model) if plan.lora else ""
        """Of what LoRA trains, the model that it stands beside."""
        self.version = 0
        self._lives: deque[list[Life]] = deque()
        self._thread = SideThread()
        self._owing = False
        self._others: list[tuple[Any, Connection]] = []
        for _ in range(more):
            here, there = context.Pipe()
            process = context.Process(target=serve_calls, args=(there, plan), daemon=True)
            with sigint_blocked():
                process.start()
            there.close()
            self._others.append((process, here))

    @property
    def steps(self) -> int:
        """Optimizer steps that the weights have taken."""
        return self.first.learner.steps

    @property
    def pending(self) -> int:
        """Batches of jobs that were submitted and not collected yet."""
        return len(self._lives)

    def submit(self, jobs: Sequence[Job], timeout: float) -> None:
        """Roll these jobs out with the weights of now; `collect` returns their lives."""
        self._lives.append(self.rollout(jobs, timeout))

    def collect(self, timeout: float) -> list[Life]:
        """Return the lives of the batch that was submitted first, in the order of its jobs."""
        if not self._lives:
            raise RuntimeError("nothing to collect: submit comes before collect")
        return self._lives.popleft()

    def rollout(self, jobs: Sequence[Job], timeout: float, on_life: OnLife = lambda _: None) -> list[Life]:
        """Roll these jobs out and return their lives; `on_life` hears of those of this process as they end."""
        shares = [(share,) for share in self._deal(jobs)]  # neighbours, as a group is, begin alike
        parts = self._thread.call(
            timeout, f"rolling out {len(jobs)} lives", partial(self._all, "rollout", shares), on_life
        )
        return [life for part in parts for life in part]

    def logprobs(self, samples: Sequence[Sample], timeout: float, *, reference: bool = False) -> list[list[float]]:
        """Return the logprob of every sampled id under the weights, or under those of the frozen reference model."""
        shares = [(share, reference) for share in self._deal(samples)]
        parts = self._call(timeout, "scoring", partial(self._all, "logprobs", shares))
        return [row for part in parts for row in part]

    def forward_backward(self, samples: Sequence[Sample], normalizer: float, timeout: float) -> dict[str, float]:
        """Add the gradient of the samples' loss to what has accumulated since the last step; return metrics.

        After an error nothing is accumulated.
        """
        config = self.first.learner.config
        moving = [sample for sample in samples if config.contributes(sample)]
        shares = [(share, normalizer) for share in fair_shares(moving, 1 + len(self._others))]
        try:
            parts = self._call(timeout, "forward and backward passes", partial(self._all, "forward_backward", shares))
        except Exception as error:
            if not isinstance(error, TimeoutError):
                self._call(timeout, "dropping a gradient", partial(self._all, "zero_grad"))
            raise
        return means(parts)

    def optim_step(self, timeout: float) -> dict[str, float]:
        """Take one optimizer step with what has accumulated, on every learner; return metrics."""
        metrics: dict[str, float] = self._call(timeout, "the optimizer step", self._optim_step)
        return metrics

    def _optim_step(self) -> dict[str, float]:
        learner = self.first.learner
        for gradient in self._others_do("take_gradient"):
            learner.add_gradient(torch.from_numpy(gradient))
        metrics = learner.optim_step()
        self._share_weights()
        return metrics

    def sync(self, timeout: float) -> None:
        """Serve the weights as version + 1 on every sampler, or raise with the cause."""
        self._call(timeout, f"serving version {self.version + 1}", partial(self._serve, self.version + 1))

    def save(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder, the optimizer, and the lives of pending batches."""
        self.save_model(folder / "model")
        self.first.learner.save(folder)
        if self.plan.lora:
            save_adapter(self.first.model, folder, self.beside)
        # A batch that an outage took as a whole is rolled out again by whoever goes on, and so are those after it.
        if pending := list(takewhile(lambda lives: any(not life.failure for life in lives), self._lives)):
            write_lives(folder / PENDING, pending)

    def save_model(self, folder: Path) -> None:
        """Write the weights as a Hugging Face folder that `codots.json` stands beside."""
        self.first.model.generation_config.do_sample = True  # else who serves it stays greedy at any temperature
        weights = merged(self.first.model) if self.plan.lora else None
        self.first.model.save_pretrained(folder, state_dict=weights)
        self.first.render.tokenizer.save_pretrained(folder)
        self.plan.profile.save(folder)

    def load(self, folder: Path, version: int) -> None:
        """Go on from what `save` wrote, and serve its weights as this version."""
        if self.plan.lora:
            load_adapter(self.first.model, folder, self.beside)
        elif (folder / ADAPTER).is_file():
            raise ValueError(
                f"{folder} was trained with LoRA; expected learner.lora, or model={folder} and no --init-from"
            )
        else:
            saved, _ = load_model(folder / "model", Place(dtype=self.plan.place.dtype))
            self.first.model.load_state_dict(saved.state_dict())
        self.first.learner.load(folder)
        self._lives = deque(read_lives(folder / PENDING) if (folder / PENDING).is_file() else ())
        self._call(MAX_TIMEOUT, "sharing the weights", self._share_weights)
        self._call(MAX_TIMEOUT, f"serving version {version}", partial(self._serve, version))

    def init_from(self, folder: Path) -> None:
        """Start from the weights and the optimizer that another run saved, at step and version 0."""
        self.load(folder, 0)
        self._lives.clear()
        self.first.learner.steps = 0

    def close(self) -> None:
        """End the other processes, by force if they owe an answer that nobody waits for any more."""
        for process, _ in self._others if self._owing else ():
            process.kill()  # before the connections: the thread may be reading from one
        self._thread.close()
        for process, connection in self._others:
            connection.close()
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
                process.join(timeout=30)
        self._others = []

    def _deal(self, work: Sequence[Any]) -> list[list[Any]]:
        n = 1 + len(self._others)
        ends = [len(work) * i // n for i in range(n + 1)]
        return [list(work[a:b]) for a, b in pairwise(ends)]

    def _share_weights(self) -> None:
        if self._others:
            weights = self.first.learner.flat().numpy()
            self._others_do("take_weights", [(weights,)] * len(self._others))

    def _serve(self, version: int) -> None:
        self._all("serve", [(version,)] * (1 + len(self._others)))
        self.version = version

    def _call(self, timeout: float, doing: str, work: Any) -> Any:
        return self._thread.call(timeout, doing, lambda _: work())

    def _all(self, method: str, shares: Sequence[tuple[Any, ...]] = (), *own: Any) -> list[Any]:
        """Let every worker do its share at once; the one in this process is given `own` besides."""
        shares = shares or [()] * (1 + len(self._others))
        self._ask(method, shares[1:])
        try:
            first = getattr(self.first, method)(*shares[0], *own)
        except Exception:
            self._answers()  # the next call would take them for its own
            raise
        return [first, *self._answers()]

    def _others_do(self, method: str, shares: Sequence[tuple[Any, ...]] = ()) -> list[Any]:
        """Let every worker but the first do its share."""
        self._ask(method, shares or [()] * len(self._others))
        return self._answers()

    def _ask(self, method: str, shares: Sequence[tuple[Any, ...]]) -> None:
        for (process, connection), share in zip(self._others, shares, strict=True):
            self._owing = True
            try:
                connection.send((method, share))
            except OSError as gone:
                raise RuntimeError(_ended(process)) from gone

    def _answers(self) -> list[Any]:
        answers, errors = [], []
        for process, connection in self._others:
            try:
                answer, error = connection.recv()
            except (EOFError, OSError):
                answer, error = None, (RuntimeError, _ended(process), "")
            answers.append(answer)
            errors += [error] if error else []
        self._owing = False
        if errors:
            kind, said, trace = errors[0]
            failure: Exception = kind(said)
            failure.add_note(trace)  # for whoever looks further than the message
            raise failure
        return answers


def _ended(process: Any) -> str:
    process.join(timeout=30)
    return f"a worker process ended with exit code {process.exitcode}"
