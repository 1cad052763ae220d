"""Worker processes: they never hear of Ctrl-C, and they end with the work they were made for."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, forkserver, get_context, resource_tracker
from typing import Any

HEAVY = [
    "codots.engine.local",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
]
"""What takes far longer to import than a process to start."""


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Ctrl-C is the first process's to handle; one that is started in here never hears of it, not even at first."""
    resource_tracker.ensure_running()  # which multiprocessing would do in here, and let Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def model_processes() -> Any:
    """A context whose processes are copies of one that has imported all that a model needs; that one starts now, once.

    Where system libraries do not survive a fork, which is everywhere but on Linux, each starts from nothing.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    with deaf_to_ctrl_c():
        forkserver.ensure_running()
    return context


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
