"""Nothing is waited for without an end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

PATIENCE = 3600.0
"""Seconds that one stage of the work may take, where nobody says another number."""
LONGEST = 1e8
"""More seconds than these no alarm can be set for everywhere: three years."""


class _Late(KeyboardInterrupt):
    """The alarm on its way, which nothing between the work and its deadline may take for its own or keep to itself.

    Handlers of `Exception` let it pass, and asyncio keeps any other error of a task until somebody awaits it.
    """


@contextmanager
def deadline(seconds: float, doing: str) -> Iterator[None]:
    """Raise TimeoutError, which says what was being done, once this takes too long.

    The alarm is the process's own and rings in the main thread: in any other thread, and under an alarm that rings
    sooner, nothing is set.
    """
    outer = signal.getitimer(signal.ITIMER_REAL)[0]
    if 0 < outer <= seconds or threading.current_thread() is not threading.main_thread():
        yield
        return
    late, start = _Late(), monotonic()

    def quiet(loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        if told.get("exception") is not late:
            loop.default_exception_handler(told)

    def ring(*_: object) -> None:
        with suppress(RuntimeError):  # no loop is running
            asyncio.get_running_loop().set_exception_handler(quiet)
        raise late

    handler = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Late as error:
        if error is not late:
            raise
        raise TimeoutError(f"gave up after {seconds:g} s of {doing}") from error
    finally:
        signal.signal(signal.SIGALRM, handler)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, outer - (monotonic() - start)))
