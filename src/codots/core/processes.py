"""Worker processes: they never hear of Ctrl-C, and they end with the work they were made for."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, resource_tracker
from typing import Any


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Ctrl-C is the first process's to handle; one that is started in here never hears of it, not even at first."""
    resource_tracker.ensure_running()  # which multiprocessing would do in here, and let Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def mapped(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` over worker processes, which are stopped if what is inside ends early; one worker is this process."""
    if workers == 1:
        yield map
        return
    others, pool = active_children(), ProcessPoolExecutor(workers, get_context("spawn"))

    def spread(*args: Any) -> Iterator[Any]:
        with deaf_to_ctrl_c():
            return pool.map(*args)

    try:
        yield spread
    except BaseException:
        for child in active_children():
            if child not in others:
                child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
