"""How busy samplers and learners are, and how late the event loops of samplers are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

T = TypeVar("T")
log = logging.getLogger("codots")
PERIOD = 0.1
"""Time between two wake-ups by which the lag of an event loop is measured, in seconds."""
LAG_SECONDS = 10.0
"""Smallest lag of an event loop that is warned of, in seconds."""


@dataclass(frozen=True)
class Used:
    """Usage of a worker in some time, in seconds."""

    busy: float
    """Time with lives to roll out."""
    lag: float
    """Longest lag of the event loop."""
    longest_pass: float = 0.0
    """Longest forward pass, which is part of the lag."""


class Usage:
    """How long a worker had lives to roll out, and the longest lag of its event loop.

    All lives of a worker share one event loop. While it is blocked, by a forward pass or by a slow environment that is
    not `blocking`, no life goes on.
    """

    def __init__(self) -> None:
        self._running = 0
        self._busy = self._since = self._lag = self._due = 0.0
        self._watcher: asyncio.Task[None] | None = None

    async def measure(self, lives: Awaitable[T]) -> T:
        """Roll out lives and return them. Calls may overlap."""
        self._running += 1
        if self._running == 1:
            self._since = self._due = monotonic()
            self._watcher = asyncio.create_task(self._watch())
        try:
            return await lives
        finally:
            self._running -= 1
            if not self._running and self._watcher is not None:
                self._busy += monotonic() - self._since
                self._look()
                self._watcher.cancel()

    def take(self, longest_pass: float = 0.0) -> Used:
        """Return the usage since the last call."""
        now = monotonic()
        if self._running:
            self._busy += now - self._since
            self._since = now
        found = Used(self._busy, self._lag, longest_pass)
        self._busy = self._lag = 0.0
        return found

    async def _watch(self) -> None:
        while True:
            self._look()
            self._due = monotonic() + PERIOD
            await asyncio.sleep(PERIOD)

    def _look(self) -> None:
        self._lag = max(self._lag, monotonic() - self._due)


class Meter:
    """Turns the usage of the workers of an engine into metrics, from one weight sync to the next."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._learning = 0.0
        self._warn_above = LAG_SECONDS

    def start(self) -> None:
        """Start the clock, if it is not running."""
        self._since = monotonic() if self._since is None else self._since

    def reset(self) -> None:
        """Forget everything measured, and stop the clock until the next `start`."""
        self._since, self._learning = None, 0.0

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Measure work of the learners."""
        start = monotonic()
        try:
            yield
        finally:
            self._learning += monotonic() - start

    def metrics(self, usages: Sequence[Used], sync_seconds: float) -> dict[str, float]:
        """Return the metrics of the time since the last call or the start.

        Warn of an event loop that was blocked, unless by a forward pass.
        """
        now = monotonic()
        elapsed = max(now - (now if self._since is None else self._since), sync_seconds, 1e-9)
        values = {
            "time/sync": sync_seconds,
            "time/samplers_busy": min(1.0, sum(used.busy for used in usages) / (elapsed * len(usages))),
            "time/learner_busy": min(1.0, self._learning / elapsed),
            "time/loop_lag": max(used.lag for used in usages),
        }
        self._since, self._learning = now, 0.0
        blocked = [used.lag - used.longest_pass for used in usages]
        if max(blocked) > self._warn_above:
            self._warn_above = 2 * max(blocked)
            log.warning(
                f"the event loop of sampler {blocked.index(max(blocked))} was blocked for {max(blocked):.1f} s, and "
                "its lives stood still; expected domains with slow steps to be `blocking`"
            )
        return values
