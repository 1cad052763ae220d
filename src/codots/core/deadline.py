"""Timeouts for long-running work, in any thread and under any event loop."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")
STAGE_TIMEOUT = 3600.0
"""Default timeout of one stage of the work, in seconds."""
MAX_TIMEOUT = 1e8
"""Largest timeout that works on every platform, in seconds: three years."""
GRACE = 10.0
"""Time that an interrupted call has to clean up before its thread is abandoned, in seconds."""


_LOOPS = threading.Lock()
"""Held while an event loop is made or closed: an interrupt in the middle would leave its sockets open."""
LOOP_SECONDS = 1.0
"""Time that an interrupt waits for a loop to be made or closed, in seconds."""


class _Interrupt(SystemExit):
    """Exception that ends an abandoned call. Neither `except Exception` nor asyncio swallows it."""


@dataclass
class _Call:
    """One call and the queue of its answers: events, then a result or an error."""

    work: Callable[[Callable[[Any], None]], Any]
    answers: SimpleQueue[tuple[str, Any]] = field(default_factory=SimpleQueue)


class SideThread:
    """A thread that runs calls one after another, so that the caller can stop waiting for a call.

    After a timeout or an interrupt the call ends at its next bytecode, and the thread accepts no further calls. The
    thread is a daemon: a call that hangs outside of Python does not keep the process alive.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._broken = ""
        self._closed = False

    def call(
        self,
        seconds: float,
        doing: str,
        work: Callable[[Callable[[Any], None]], T],
        on_event: Callable[[Any], None] = lambda event: None,
    ) -> T:
        """Run `work` in the thread, and return its result or raise its exception.

        `work` receives a function that sends an event to `on_event`, which runs in the caller's thread. Raises
        TimeoutError, with `doing` in the message, after `seconds`. Raises RuntimeError if an earlier call was abandoned
        or the thread is closed.
        """
        if self._broken:
            raise RuntimeError(f"cannot go on with {doing}: an earlier call was abandoned during {self._broken}")
        if self._closed:
            raise RuntimeError(f"cannot go on with {doing}: it is closed")
        if sys.is_finalizing():  # no thread can start any more
            return work(on_event)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        call, until = _Call(work), monotonic() + seconds
        try:
            self._calls.put(call)
            kind, value = call.answers.get(timeout=seconds)
            while kind == "event":
                on_event(value)
                kind, value = call.answers.get(timeout=max(0.0, until - monotonic()))
        except BaseException as error:  # a timeout, an interrupt of the caller, or a failure of `on_event`
            self._abandon(doing)
            if isinstance(error, Empty):
                raise TimeoutError(f"gave up after {seconds:g} s of {doing}") from None
            raise
        if kind == "error":
            raise value
        result: T = value
        return result

    def close(self, grace: float = GRACE) -> bool:
        """End the thread, and return whether it ended within `grace` seconds."""
        self._closed = True
        if self._thread is None or sys.is_finalizing():
            return True
        self._calls.put(None)
        if self._thread.is_alive():  # otherwise an interrupt came before the thread started
            self._thread.join(grace)
        return not self._thread.is_alive()

    def _abandon(self, doing: str) -> None:
        self._broken = doing
        if self._thread is not None and self._thread.ident is not None:
            thread, interrupt = ctypes.c_ulong(self._thread.ident), ctypes.py_object(_Interrupt)
            waited = _LOOPS.acquire(timeout=LOOP_SECONDS)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, interrupt)
            if waited:
                _LOOPS.release()

    def _run(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                try:
                    call.answers.put(("result", call.work(partial(_emit, call))))
                except _Interrupt:
                    raise
                except BaseException as error:
                    call.answers.put(("error", error))
        except _Interrupt:
            return


def _emit(call: _Call, event: Any) -> None:
    call.answers.put(("event", event))


def within(seconds: float, doing: str, work: Callable[[], T]) -> T:
    """Run `work` in a new thread and return its result. Raises TimeoutError if `work` takes longer than `seconds`."""
    thread = SideThread()
    try:
        return thread.call(seconds, doing, lambda _: work())
    finally:
        thread.close(0.0)


class LoopThread:
    """An event loop in a thread of its own. It runs on between calls, and calls from several threads share it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return its result or raise its exception."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def await_(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop while the event loop of the caller goes on. A cancellation reaches it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """Stop the loop. Coroutines that have not ended never will."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop, and log nothing if the surrounding call is abandoned.

    In a thread that already runs an event loop, as in a notebook, the new one runs in another thread.
    """
    if asyncio._get_running_loop() is not None:
        return within(MAX_TIMEOUT, "running an event loop", lambda: run_loop(work))

    def quiet(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), _Interrupt):
            loop.default_exception_handler(context)

    runner = asyncio.Runner()
    try:
        with _LOOPS:
            runner.get_loop().set_exception_handler(quiet)
        return runner.run(work)
    finally:
        with _LOOPS:
            runner.close()
