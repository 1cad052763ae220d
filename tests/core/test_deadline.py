"""What takes too long ends, says what it was, and needs neither the main thread nor a free event loop."""

import asyncio
import gc
import threading
import time

import pytest

from codots.core.deadline import SideThread, run_loop, within


async def waits_for(works):
    """Wait for what somebody else is to do, who is not awaited: a task of its own, or a call of the loop."""
    works(asyncio.get_running_loop())
    await asyncio.get_running_loop().create_future()


def spin():
    while True:
        time.monotonic()


async def spins():
    spin()


def task(loop):
    task.of = loop.create_task(spins())


ENDLESS = {
    "asleep": threading.Event().wait,
    "computing": spin,
    "awaiting": lambda: run_loop(asyncio.sleep(60)),
    "a task that nobody awaits": lambda: run_loop(waits_for(task)),
    "a call of the loop": lambda: run_loop(waits_for(lambda loop: loop.call_soon(spin))),
}


@pytest.mark.parametrize("work", ENDLESS.values(), ids=ENDLESS)
def test_what_takes_too_long_ends_and_says_what_it_was_and_nothing_else(work, caplog):
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"gave up after 0\.2 s of sleeping"):
        within(0.2, "sleeping", work)
    assert time.monotonic() - start < 30
    gc.collect()  # asyncio tells of a task's error when the task goes
    assert caplog.messages == []


def test_an_abandoned_call_stops_computing():
    thread, at_work = SideThread(), threading.Event()

    def work(emit):
        at_work.set()
        spin()

    with pytest.raises(TimeoutError):
        thread.call(0.5, "spinning", work)
    assert at_work.is_set()
    assert thread.close(30)


def test_nothing_between_the_work_and_its_deadline_takes_the_interrupt_for_its_own():
    """A life that fails is tried again; one that is out of time is not."""

    async def life():
        while True:
            try:
                await asyncio.sleep(0)
            except Exception:
                continue

    async def lives():
        await asyncio.gather(life(), life())

    thread = SideThread()
    with pytest.raises(TimeoutError, match="living"):
        thread.call(0.3, "living", lambda emit: run_loop(lives()))
    assert thread.close(30)


def test_a_result_an_error_and_a_timeout_of_the_call_itself_come_back():
    assert within(60, "adding", lambda: 1 + 1) == 2
    with pytest.raises(KeyError, match="lost"):
        within(60, "failing", lambda: {}["lost"])
    with pytest.raises(TimeoutError, match="the environment's own"):
        within(60, "waiting", raises(TimeoutError("the environment's own")))
    with pytest.raises(KeyboardInterrupt):
        within(60, "interrupted", raises(KeyboardInterrupt()))


def raises(error):
    def work():
        raise error

    return work


def test_calls_run_in_order_in_one_thread_and_their_events_arrive_in_the_callers():
    thread, heard, where = SideThread(), [], []

    def work(emit):
        where.append(threading.get_ident())
        for number in range(3):
            emit((number, where[-1]))
        return "done"

    def hear(event):
        heard.append((*event, threading.get_ident()))

    for _ in range(2):
        assert thread.call(60, "telling", work, hear) == "done"
    assert len(set(where)) == 1
    assert where[0] != threading.get_ident()
    assert heard == [(n, where[0], threading.get_ident()) for n in (0, 1, 2)] * 2
    assert thread.close(30)


def test_a_failure_of_the_hearer_ends_the_call_and_is_the_callers():
    thread = SideThread()

    def work(emit):
        emit("a start")
        spin()

    def hear(event):
        raise LookupError(event)

    with pytest.raises(LookupError, match="a start"):
        thread.call(60, "telling", work, hear)
    with pytest.raises(RuntimeError, match="cannot go on with more: an earlier call was abandoned during telling"):
        thread.call(60, "more", work)
    assert thread.close(30)


@pytest.mark.parametrize("seconds", [1e-6, 0.0])
def test_a_deadline_that_is_over_at_once_is_one_as_well(seconds):
    with pytest.raises(TimeoutError, match=f"gave up after {seconds:g} s of blinking"):
        within(seconds, "blinking", threading.Event().wait)


def test_a_deadline_holds_in_any_thread_and_inside_another():
    found = []

    def work():
        with pytest.raises(TimeoutError, match="inner"):
            within(0.05, "inner", threading.Event().wait)
        found.append(within(60, "outer", lambda: within(60, "inner", lambda: "both in time")))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["both in time"]


def test_a_deadline_holds_inside_a_running_event_loop():
    async def main():
        with pytest.raises(TimeoutError, match="sleeping"):
            within(0.1, "sleeping", lambda: run_loop(asyncio.sleep(60)))
        return within(60, "sleeping", lambda: run_loop(asyncio.sleep(0, "awake")))

    assert asyncio.run(main()) == "awake"


def test_a_thread_that_an_interrupt_kept_from_starting_is_closed_as_well():
    """Else the error of joining it would hide the interrupt."""
    thread = SideThread()
    thread._thread = threading.Thread(target=thread._run, daemon=True)
    assert thread.close(1)


def test_a_closed_thread_refuses_at_once():
    thread = SideThread()
    assert thread.call(60, "adding", lambda emit: 1 + 1) == 2
    assert thread.close(30)
    with pytest.raises(RuntimeError, match="cannot go on with adding: it is closed"):
        thread.call(60, "adding", lambda emit: 1 + 1)
