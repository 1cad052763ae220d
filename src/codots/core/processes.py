"""Cores for processes, signals that stop a program, and worker processes that leave them to the main process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, current_process, get_context, resource_tracker
from pathlib import Path
from typing import Any

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a program to stop: Ctrl-C, the end of a job, and a closed terminal."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""File that contains the CPU quota of a Linux container."""
UNGUARDED = 78
"""Exit code of a worker process whose import of the user's script started worker processes again."""
GUARD = "put calls under `if __name__ == '__main__':`, because worker processes import the script; or use one worker"


def cores() -> int:
    """Return the number of cores that this process may use, given its CPU affinity and the quota of its container."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share, _, period = QUOTA.read_text().partition(" ") if QUOTA.is_file() else ("max", "", "")
    return available if share == "max" else max(1, min(available, int(share) // int(period)))


def check_main_guard() -> None:
    """End this process if it is a worker that is still importing the user's script; the parent says why."""
    if getattr(current_process(), "_inheriting", False):
        os._exit(UNGUARDED)


class DeadError(RuntimeError):
    """A process that others need has died, or shows no sign of life."""


class StopSignal(KeyboardInterrupt):
    """A stop signal was received."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """Exit code of a program stopped by this signal, as shells report it."""
        return 128 + self.number


def _stop(number: int, frame: Any) -> None:
    raise StopSignal(number)


@contextmanager
def stop_signals_to(handler: Callable[[int, Any], Any] = _stop) -> Iterator[None]:
    """Handle the stop signals in this block; by default they raise StopSignal. Ignored ones, as by nohup, stay so."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        for number, own in before.items():
            if own != signal.SIG_IGN or number == signal.SIGINT:
                signal.signal(number, handler)
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block the stop signals while child processes start; only the main process handles them.

    They are often sent to all processes of a job, which could then not finish its step. So children must be killed, not
    terminated.
    """
    resource_tracker.ensure_running()  # otherwise multiprocessing starts it in this block and unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker_map(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a `map` over worker processes, or the built-in `map` for one worker. An exception stops the workers."""
    if workers == 1:
        yield map
        return
    check_main_guard()
    others, pool = active_children(), ProcessPoolExecutor(workers, get_context("spawn"))

    def pool_map(*args: Any) -> Iterator[Any]:
        with stop_signals_blocked():
            results = pool.map(*args)
        return _explained(results)

    try:
        yield pool_map
    except BaseException:
        for child in active_children():
            if child not in others:
                child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _explained(results: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from results
    except BrokenProcessPool as error:
        raise RuntimeError(f"a worker process ended unexpectedly; in a script of your own, {GUARD}") from error
