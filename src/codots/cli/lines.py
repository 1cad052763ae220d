"""Progress as plain lines, for an output that is not a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 30.0
"""Maximum number of seconds without a line."""


class Lines:
    """Print a line at each tenth of the work, and at least every 30 seconds, with the estimated time that is left."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.write, self.clock = write, clock
        self.part = ""
        self.first = self.done = self.total = 0
        """Amount of work that was done when the part began, that is done now, and that the part has."""
        self.doing = "starting"
        """Line for the time between two updates."""
        self._began = self._updated = self._printed = self._since = clock()
        self._lock = threading.RLock()

    def update(self, part: str, done: int, total: int, line: str) -> None:
        """Record the progress of a part, and print the line if it is due."""
        with self._lock:
            now = self.clock()
            if part != self.part or total != self.total or done < self.done:
                self.part, self.total, self.first = part, total, 0 if done == 1 else done
                self.done, self._began = self.first, self._updated
                if done != 1:  # nothing yet, or earlier work of unknown duration: print it at once
                    self.done, self._began = -1, now
            crossed = done * 10 // total > self.done * 10 // total
            self.done, self._updated, self.doing, self._since = done, now, line, now
            if crossed or now - self._printed >= EVERY:
                self._print(line + self._left(now))

    def stage(self, doing: str) -> None:
        """Set the line for the time until the next update."""
        with self._lock:
            self.doing, self._since = doing, self.clock()

    def tick(self) -> None:
        """Print what is being done if no line was printed for 30 seconds."""
        with self._lock:
            now = self.clock()
            if now - self._printed >= EVERY:
                self._print(f"{self.doing} ({duration(now - self._since)} ago){self._left(now)}")

    def _left(self, now: float) -> str:
        """Return the estimated time that is left, if it is known and not 0."""
        if self.done <= self.first or self.done >= self.total:
            return ""
        pace = (self._updated - self._began) / (self.done - self.first)
        return f", {duration(max(0.0, pace * (self.total - self.done) - (now - self._updated)))} left"

    def _print(self, line: str) -> None:
        self._printed = self.clock()
        self.write(line)


@contextmanager
def ticking(lines: Lines, seconds: float = 1.0) -> Iterator[Lines]:
    """Call `tick` again and again in a thread inside the `with` block."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds):
            lines.tick()

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield lines
    finally:
        ended.set()


def duration(seconds: float) -> str:
    """Format a number of seconds in its natural unit, such as `40 s`, `3 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
