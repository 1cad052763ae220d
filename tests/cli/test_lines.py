"""Progress off a terminal: a line at each tenth and at least every 30 seconds, with the time left."""

import io
import threading

import pytest
from rich.console import Console

from codots.cli import display
from codots.cli.lines import EVERY, Lines, duration, ticking


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_there_is_a_line_at_each_tenth_with_the_time_left(clock):
    written = []
    lines = Lines(written.append, clock)
    for done in range(1, 101):
        clock.now += 0.5
        lines.update("own", done, 100, f"own: {done} of 100")
    assert written == [
        f"own: {d} of 100" + (f", {(100 - d) / 2:.0f} s left" if d < 100 else "") for d in range(10, 101, 10)
    ]


def test_no_pause_is_longer_than_30_seconds_and_a_line_says_what_is_being_done(clock):
    written, times = [], []
    lines = Lines(lambda line: (written.append(line), times.append(clock.now)), clock)
    lines.stage("rolling out 8 lives")
    for second in range(1, 401):
        clock.now = second
        if second % 100 == 0:
            lines.update("training", second // 100, 1000, f"step {second // 100}/1000")
        lines.tick()
    assert max(after - before for before, after in zip([0, *times], times, strict=False)) <= EVERY
    assert written[:3] == [f"rolling out 8 lives ({duration(s)} ago)" for s in (30, 60, 90)]
    assert "step 1/1000 (20 s ago), 28 h left" not in written
    assert written[-1] == "step 3/1000 (90 s ago), 27.7 h left"


def test_the_time_left_does_not_count_earlier_work(clock):
    """A resumed evaluation tells first how much is done; each part is timed alone."""
    written = []
    lines = Lines(written.append, clock)
    clock.now = 50
    lines.update("own", 90, 100, "own: 90")
    clock.now = 54
    lines.update("own", 92, 100, "own: 92")
    clock.now = 85
    lines.update("own", 100, 100, "own: 100")
    clock.now = 86
    lines.update("null", 1, 10, "null: 1")
    assert written == ["own: 90", "own: 100", "null: 1, 9 s left"]


def test_the_ticks_end_with_the_block():
    before = set(threading.enumerate())
    with ticking(Lines(print), 60):
        (ticks,) = set(threading.enumerate()) - before
    ticks.join(5)
    assert not ticks.is_alive()


def test_a_line_is_never_wrapped(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(display, "errors", Console(file=out, width=40))
    display.print_line("step [1] " * 20)
    assert out.getvalue() == "step [1] " * 20 + "\n"
