"""What takes too long ends, and says what it was."""

import asyncio
import gc
import signal
import threading
import time

import pytest

from codots.core.deadline import deadline


def alarm():
    """The alarm that is set, and who hears it."""
    return round(signal.getitimer(signal.ITIMER_REAL)[0]), signal.getsignal(signal.SIGALRM)


async def waits_for(works):
    """Wait for what somebody else is to do, who is not awaited: a task of its own, or a call of the loop."""
    works(asyncio.get_running_loop())
    await asyncio.get_running_loop().create_future()


async def pauses():
    signal.pause()


def task(loop):
    task.of = loop.create_task(pauses())


@pytest.mark.parametrize(
    "work",
    [
        lambda: time.sleep(60),
        signal.pause,
        lambda: asyncio.run(asyncio.sleep(60)),
        lambda: asyncio.run(waits_for(task)),
        lambda: asyncio.run(waits_for(lambda loop: loop.call_soon(signal.pause))),
    ],
    ids=["asleep", "paused", "awaiting", "a task that nobody awaits", "a call of the loop"],
)
def test_what_takes_too_long_ends_and_says_what_it_was_and_nothing_else(work, caplog):
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="gave up after 2 s of sleeping"), deadline(2, "sleeping"):
        work()
    assert time.monotonic() - start < 30
    gc.collect()  # asyncio tells of a task's error when the task goes
    assert caplog.messages == []


def test_nothing_between_the_work_and_its_deadline_takes_the_alarm_for_its_own():
    """A life that fails is tried again; one that is out of time is not."""

    async def life():
        while True:
            try:
                await asyncio.sleep(60)
            except Exception:
                continue

    async def lives():
        await asyncio.gather(life(), life())

    with pytest.raises(TimeoutError, match="living"), deadline(2, "living"):
        asyncio.run(lives())


def test_what_is_in_time_leaves_no_alarm_behind():
    before = alarm()
    with deadline(60, "adding"):
        assert 1 + 1 == 2
    assert alarm() == before
    with pytest.raises(KeyError), deadline(60, "failing"):
        raise KeyError
    assert alarm() == before


def test_an_outer_deadline_stands_while_an_inner_one_is_set():
    with pytest.raises(TimeoutError, match="outer"), deadline(0.5, "outer"):
        inner_and_then_too_long()


def inner_and_then_too_long():
    with pytest.raises(TimeoutError, match="inner"), deadline(0.05, "inner"):
        signal.pause()
    with deadline(60, "later"):  # would ring after the outer one, so it is not set
        signal.pause()


def test_a_deadline_that_is_over_at_once_is_one_as_well():
    before = alarm()
    with pytest.raises(TimeoutError, match="gave up after 1e-06 s of blinking"), deadline(1e-6, "blinking"):
        signal.pause()
    assert alarm() == before


def test_a_thread_that_is_not_the_first_works_without_one():
    done = []

    def work():
        with deadline(0.01, "working"):
            time.sleep(0.05)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
