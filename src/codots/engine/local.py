"""Engine for one machine: worker processes, each with a copy of the model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, cast

from codots.core.deadline import MAX_TIMEOUT
from codots.core.processes import GUARD, UNGUARDED, stop_signals_blocked
from codots.engine.answers import Answer, value_of
from codots.engine.forkserver import model_processes
from codots.engine.plan import Plan
from codots.engine.split import OnEvent, Share, SplitEngine
from codots.engine.worker import Shared, Worker, as_tensor, serve_calls

log = logging.getLogger("codots")


def _ignore(*event: Any) -> None:
    """Do nothing."""


class LocalEngine(SplitEngine):
    """Engine that rolls out lives and trains on them in several worker processes.

    A run is a deterministic function of its recipe, which includes the number of workers, unless it samples with vLLM.
    The first worker runs in this process; on a GPU, and with vLLM, it is the only worker. Submitted jobs are rolled out
    immediately, and `collect` returns their lives later: submitting ahead simulates an asynchronous cluster
    deterministically.
    """

    def __init__(self, plan: Plan, workers: int = 1) -> None:
        super().__init__(plan)
        more = workers - 1 if plan.place.device == "cpu" and not plan.samples_outside else 0
        self.samplers = self.learners = 1 + more
        context: Any = model_processes() if more else None  # imports in parallel with this process
        self.first = Worker(plan)
        for line in self.first.warnings():
            log.warning(line)
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

    def _sample(self, method: str, shares: Sequence[Share], on_event: OnEvent | None = None) -> list[Any]:
        return self._call_all(method, shares, on_event)

    def _learn(self, method: str, shares: Sequence[Share]) -> list[Any]:
        return self._call_all(method, shares)

    def _first(self, method: str, *arguments: Any) -> Any:
        return getattr(self.first, method)(*arguments)

    def _optim_step(self) -> dict[str, float]:
        learner = self.first.learner
        self._call_others("take_gradient")
        for shared in self._shared:
            learner.add_gradient(as_tensor(shared.gradient))
        metrics = learner.optim_step()
        self._share_weights()
        return metrics

    def _serve(self, version: int) -> None:
        self._call_all("serve", [(version,)] * self.samplers)

    def _load(self, folder: Path, restart: bool) -> int:
        steps = self.first.load(folder, restart)
        self._call(MAX_TIMEOUT, "sharing the weights", self._share_weights)
        return steps

    def close(self) -> None:
        """Stop the thread and the other processes. Kill the processes if a call was abandoned."""
        for process, _ in self._others if self._awaiting else ():
            process.kill()  # before closing the connections: the thread may be reading from one
        self._thread.close()
        self.first.close()
        for process, connection in self._others:
            connection.close()
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
                process.join(timeout=30)
        self._others = []

    def _share_weights(self) -> None:
        if self._others:
            self.first.learner.flat_weights(out=as_tensor(self._shared[0].weights))
            self._call_others("take_weights")

    def _call_all(self, method: str, shares: Sequence[Share], on_event: OnEvent | None = None) -> list[Any]:
        """Call a method of every worker in parallel. With `on_event`, the method's last argument emits events."""
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

    def _send(self, method: str, shares: Sequence[Share], wants_events: bool = False) -> None:
        for (process, connection), share in zip(self._others, shares, strict=True):
            self._awaiting = True
            try:
                connection.send((method, share, wants_events))
            except OSError as gone:
                raise RuntimeError(_ended(process)) from gone

    def _receive(self, on_event: OnEvent = _ignore) -> list[Any]:
        """Return the results of the other workers, or raise the first one's error when all have answered."""
        answers: dict[int, Answer] = {}
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
        return [value_of(answers[k]) for k in range(len(self._others))]


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
