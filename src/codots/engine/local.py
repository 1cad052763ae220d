"""Engine for one machine: worker processes, each with a copy of the model."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise, takewhile
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, cast

from codots.core.deadline import MAX_TIMEOUT, SideThread
from codots.core.files import writing
from codots.core.processes import GUARD, UNGUARDED, stop_signals_blocked
from codots.core.transcript import Sample
from codots.engine.forkserver import model_processes
from codots.engine.worker import Plan, Shared, Worker, as_tensor, serve_calls
from codots.learner.batch import fair_shares, means
from codots.learner.lora import ADAPTER, load_adapter, merged, save_adapter
from codots.model.adapter import CONFIG, Adapted
from codots.model.device import Place
from codots.model.load import identity, load_model
from codots.model.path import path_of
from codots.rollout.life import Job, Life, OnLife
from codots.rollout.records import read_lives, write_lives

log = logging.getLogger("codots")
OnEvent = Callable[..., None]
"""Callback for each event of a call. It receives the index of the worker, and what the worker emits."""
PENDING = "pending.json"
"""File of the lives that were pending when a checkpoint was saved."""


def _ignore(*event: Any) -> None:
    """Do nothing."""


class LocalEngine:
    """Engine that rolls out lives and trains on them in several worker processes.

    Jobs are split by index and gradients are added in worker order, so a run is a deterministic function of its recipe,
    which includes the number of workers. The first worker runs in this process, in a thread that a timeout can abandon;
    on a GPU it is the only worker. Submitted jobs are rolled out immediately, and `collect` returns their lives later:
    submitting ahead simulates an asynchronous cluster deterministically.
    """

    def __init__(self, plan: Plan, workers: int = 1) -> None:
        self.plan = plan
        more = workers - 1 if plan.place.device == "cpu" else 0
        context: Any = model_processes() if more else None  # imports in parallel with this process
        self.first = Worker(plan)
        if isinstance(plan.model, Adapted) and plan.model.adapter == plan.model.base:
            log.warning(
                f"{plan.model.base} has all weights and a LoRA adapter; the adapter is merged into them, and without "
                f"its {CONFIG} it is not"
            )
        if not (path := path_of(self.first.model)).rows:
            log.warning(f"{plan.model}: {path}")
        self.base_identity = identity(plan.model) if plan.lora else ""
        """Hash of the base model of the LoRA adapter, or an empty string if there is no adapter."""
        self.version = 0
        self._lives: deque[list[Life]] = deque()
        self._thread = SideThread()
        self._awaiting = False  # whether other workers owe a reply
        self._others: list[tuple[Any, Connection]] = []
        self._shared = Shared.of(context, self.first.learner.size, more) if plan.learner and more else []
        for k in range(more):
            here, there = context.Pipe()
            shared = self._shared[k] if self._shared else None
            process = context.Process(target=serve_calls, args=(there, plan, shared), daemon=True)
            with stop_signals_blocked():
                process.start()
            Finalize(None, process.kill, exitpriority=0)  # at exit, multiprocessing would terminate it and wait
            there.close()
            self._others.append((process, here))

    @property
    def steps(self) -> int:
        """Number of optimizer steps taken."""
        return self.first.learner.steps

    @property
    def pending(self) -> int:
        """Number of submitted batches of jobs that have not been collected."""
        return len(self._lives)

    def submit(self, jobs: Sequence[Job], timeout: float) -> None:
        """Roll out jobs with the current weights; `collect` returns their lives."""
        self._lives.append(self.rollout(jobs, timeout))

    def collect(self, timeout: float) -> list[Life]:
        """Return the lives of the oldest pending batch, in the order of its jobs."""
        if not self._lives:
            raise RuntimeError("nothing to collect: call submit before collect")
        return self._lives.popleft()

    def rollout(self, jobs: Sequence[Job], timeout: float, on_life: OnLife | None = None) -> list[Life]:
        """Roll out jobs and return their lives. `on_life` is called for each life when it ends."""
        shares = [(share,) for share in self._split(jobs)]  # contiguous: a group shares its prompt prefix
        operation, firsts = f"rolling out {len(jobs)} lives", [0, *accumulate(len(share) for (share,) in shares)]
        if on_life is None:
            parts = self._call(timeout, operation, partial(self._call_all, "rollout", shares))
        else:
            parts = self._thread.call(
                timeout,
                operation,
                lambda emit: self._call_all("rollout", shares, lambda k, i, life: emit((firsts[k] + i, life))),
                lambda event: on_life(*event),
            )
        return [life for part in parts for life in part]

    def logprobs(self, samples: Sequence[Sample], timeout: float, *, reference: bool = False) -> list[list[float]]:
        """Return one row of logprobs per sample, with 0 for tokens that were not sampled."""
        shares = [(share, reference) for share in self._split(samples)]
        parts = self._call(timeout, "scoring", partial(self._call_all, "logprobs", shares))
        return [row for part in parts for row in part]

    def forward_backward(self, samples: Sequence[Sample], normalizer: float, timeout: float) -> dict[str, float]:
        """Accumulate the gradient of the samples' loss and return metrics.

        An error other than a timeout drops the accumulated gradient.
        """
        config = self.first.learner.config
        contributing = [sample for sample in samples if config.contributes(sample)]
        shares = [(share, normalizer) for share in fair_shares(contributing, 1 + len(self._others))]
        try:
            parts = self._call(
                timeout, "forward and backward passes", partial(self._call_all, "forward_backward", shares)
            )
        except Exception as error:
            if not isinstance(error, TimeoutError):
                self._call(timeout, "dropping the gradient", partial(self._call_all, "zero_grad"))
            raise
        return means(parts)

    def optim_step(self, timeout: float) -> dict[str, float]:
        """Take one optimizer step with the accumulated gradient on every learner and return metrics."""
        metrics: dict[str, float] = self._call(timeout, "the optimizer step", self._optim_step)
        return metrics

    def _optim_step(self) -> dict[str, float]:
        learner = self.first.learner
        self._call_others("take_gradient")
        for shared in self._shared:
            learner.add_gradient(as_tensor(shared.gradient))
        metrics = learner.optim_step()
        self._share_weights()
        return metrics

    def sync(self, timeout: float) -> None:
        """Load the trained weights into every sampler and increase the version by 1."""
        self._call(timeout, f"serving version {self.version + 1}", partial(self._serve, self.version + 1))

    def save(self, folder: Path) -> None:
        """Save a Hugging Face model folder, the optimizer, any LoRA adapter, and the lives of pending batches."""
        self.save_model(folder / "model")
        with writing(folder / "optimiser.pt"):
            self.first.learner.save(folder)
        if self.plan.lora:
            with writing(folder / ADAPTER):
                save_adapter(self.first.model, folder, self.base_identity)
        # Omit the first batch whose lives all failed and all later ones, so that a resumed run rolls them out again.
        if pending := list(takewhile(lambda lives: any(not life.failure for life in lives), self._lives)):
            write_lives(folder / PENDING, pending)

    def save_model(self, folder: Path) -> None:
        """Save the weights as a Hugging Face model folder with its `codots.json`."""
        self.first.model.generation_config.do_sample = True  # otherwise servers sample greedily at any temperature
        weights = merged(self.first.model) if self.plan.lora else None
        with writing(folder / "model.safetensors"):
            self.first.model.save_pretrained(folder, state_dict=weights)
        self.first.render.tokenizer.save_pretrained(folder)
        self.plan.profile.save(folder)

    def load(self, folder: Path, version: int) -> None:
        """Load a checkpoint written by `save` and serve its weights as `version`."""
        if self.plan.lora:
            load_adapter(self.first.model, folder, self.base_identity)
        elif (folder / ADAPTER).is_file():
            raise ValueError(
                f"{folder} is a LoRA checkpoint: set learner.lora, or use model={folder} instead of --init-from"
            )
        else:
            saved, _ = load_model(folder / "model", Place(dtype=self.plan.place.dtype))
            self.first.model.load_state_dict(saved.state_dict())
        self.first.learner.load(folder)
        self._lives = deque(read_lives(folder / PENDING) if (folder / PENDING).is_file() else ())
        self._call(MAX_TIMEOUT, "sharing the weights", self._share_weights)
        self._call(MAX_TIMEOUT, f"serving version {version}", partial(self._serve, version))

    def init_from(self, folder: Path) -> None:
        """Load the weights and optimizer of another run's checkpoint, at step 0 and version 0."""
        self.load(folder, 0)
        self._lives.clear()
        self.first.learner.steps = 0

    def close(self) -> None:
        """Stop the thread and the other processes. Kill the processes if a call was abandoned."""
        for process, _ in self._others if self._awaiting else ():
            process.kill()  # before closing the connections: the thread may be reading from one
        self._thread.close()
        for process, connection in self._others:
            connection.close()
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
                process.join(timeout=30)
        self._others = []

    def _split(self, work: Sequence[Any]) -> list[list[Any]]:
        n = 1 + len(self._others)
        ends = [len(work) * i // n for i in range(n + 1)]
        return [list(work[a:b]) for a, b in pairwise(ends)]

    def _share_weights(self) -> None:
        if self._others:
            self.first.learner.flat_weights(out=as_tensor(self._shared[0].weights))
            self._call_others("take_weights")

    def _serve(self, version: int) -> None:
        self._call_all("serve", [(version,)] * (1 + len(self._others)))
        self.version = version

    def _call(self, timeout: float, operation: str, work: Any) -> Any:
        return self._thread.call(timeout, operation, lambda _: work())

    def _call_all(
        self, method: str, shares: Sequence[tuple[Any, ...]] = (), on_event: OnEvent | None = None
    ) -> list[Any]:
        """Call a method of every worker in parallel. With `on_event`, the method's last argument emits events."""
        shares = shares or [()] * (1 + len(self._others))
        self._send(method, shares[1:], on_event is not None)
        own = [] if on_event is None else [partial(on_event, 0)]
        # Events are received at once, because a full pipe would stop the other workers.
        receive = self._receive if on_event is None else _in_thread(partial(self._receive, on_event))
        try:
            first = getattr(self.first, method)(*shares[0], *own)
        except Exception:
            receive()  # otherwise the next call would receive these results
            raise
        return [first, *receive()]

    def _call_others(self, method: str) -> None:
        """Call a method of every worker but the first."""
        self._send(method, [()] * len(self._others))
        self._receive()

    def _send(self, method: str, shares: Sequence[tuple[Any, ...]], wants_events: bool = False) -> None:
        for (process, connection), share in zip(self._others, shares, strict=True):
            self._awaiting = True
            try:
                connection.send((method, share, wants_events))
            except OSError as gone:
                raise RuntimeError(_ended(process)) from gone

    def _receive(self, on_event: OnEvent = _ignore) -> list[Any]:
        """Return the results of the other workers, or raise the first one's error when all have answered."""
        answers: dict[int, tuple[str, Any]] = {}
        waiting = {connection: k for k, (_, connection) in enumerate(self._others)}
        while waiting:
            for connection in cast(list[Connection], wait(list(waiting))):
                k = waiting[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, OSError):
                    kind, value = "error", (RuntimeError, _ended(self._others[k][0]), "")
                if kind == "event":
                    on_event(1 + k, *value)
                else:
                    answers[k] = kind, value
                    del waiting[connection]
        self._awaiting = False
        if errors := [value for _, (kind, value) in sorted(answers.items()) if kind == "error"]:
            error, message, trace = errors[0]
            failure: Exception = error(message)
            if trace:
                failure.add_note(trace)
            raise failure
        return [answers[k][1] for k in range(len(self._others))]


def _in_thread(call: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
    """Run a call in a new thread, and return a function that waits for its result or raises its exception."""
    done: list[list[Any]] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(call())
        except BaseException as error:
            failed.append(error)

    def result() -> list[Any]:
        thread.join()
        for error in failed:
            raise error
        return done[0]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return result


def _ended(process: Any) -> str:
    process.join(timeout=30)
    if process.exitcode == UNGUARDED:
        return f"worker processes cannot start: {GUARD}"
    return f"a worker process ended with exit code {process.exitcode}"
