"""Nothing is waited for without an end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

PATIENCE = 3600.0
"""Seconds that one stage of the work may take, where nobody says another number."""


class _Late(BaseException):
    """The alarm on its way: no handler of `Exception` between the work and its deadline may take it for its own."""


@contextmanager
def deadline(seconds: float, doing: str) -> Iterator[None]:
    """Raise TimeoutError, which says what was being done, once this takes too long.

    The alarm is the process's own and rings in the main thread: in any other thread, and under an alarm that rings
    sooner, nothing is set.
    """
    sooner = 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= seconds
    if sooner or threading.current_thread() is not threading.main_thread():
        yield
        return
    late, start = _Late(), monotonic()

    def ring(*_: object) -> None:
        raise late

    handler = signal.signal(signal.SIGALRM, ring)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Late as error:
        if error is not late:
            raise
        raise TimeoutError(f"gave up after {seconds:g} s of {doing}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, outer - (monotonic() - start)))
