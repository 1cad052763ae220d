"""Start worker processes that ignore Ctrl-C and end with their work."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, resource_tracker
from typing import Any


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Block SIGINT while child processes start; only the main process handles Ctrl-C."""
    resource_tracker.ensure_running()  # otherwise multiprocessing starts it in this block and unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
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
    others, pool = active_children(), ProcessPoolExecutor(workers, get_context("spawn"))

    def pool_map(*args: Any) -> Iterator[Any]:
        with sigint_blocked():
            return pool.map(*args)

    try:
        yield pool_map
    except BaseException:
        for child in active_children():
            if child not in others:
                child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
