"""Timeouts end long-running work, name it, and need neither the main thread nor a free event loop."""

import asyncio
import gc
import threading
import time

import pytest

from codots.core.deadline import SideThread, run_loop, within


async def start_and_wait(start):
    """Start a task or a callback that is not awaited, and wait forever."""
    start(asyncio.get_running_loop())
    await asyncio.get_running_loop().create_future()


def spin():
    while True:
        time.monotonic()


async def spins():
    spin()


def start_task(loop):
    start_task.reference = loop.create_task(spins())


ENDLESS = {
    "asleep": threading.Event().wait,
    "computing": spin,
    "awaiting": lambda: run_loop(asyncio.sleep(60)),
    "a task that is not awaited": lambda: run_loop(start_and_wait(start_task)),
    "a callback of the loop": lambda: run_loop(start_and_wait(lambda loop: loop.call_soon(spin))),
}


@pytest.mark.parametrize("work", ENDLESS.values(), ids=ENDLESS)
def test_long_work_ends_in_a_timeout_that_names_it_and_logs_nothing(work, caplog):
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"gave up after 0\.2 s of sleeping"):
        within(0.2, "sleeping", work)
    assert time.monotonic() - start < 30
    gc.collect()  # asyncio logs a task's error when the task is collected
    assert caplog.messages == []


def test_an_abandoned_call_stops_computing():
    thread, started = SideThread(), threading.Event()

    def work(emit):
        started.set()
        spin()

    with pytest.raises(TimeoutError):
        thread.call(0.5, "spinning", work)
    assert started.is_set()
    assert thread.close(30)


def test_no_handler_inside_the_work_catches_the_interrupt():
    """A life that fails is tried again; one that runs into the timeout is not."""

    async def life():
        while True:
            try:
                await asyncio.sleep(0)
            except Exception:
                continue

    async def lives():
        await asyncio.gather(life(), life())

    thread = SideThread()
    with pytest.raises(TimeoutError, match="a rollout"):
        thread.call(0.3, "a rollout", lambda emit: run_loop(lives()))
    assert thread.close(30)


def test_results_and_errors_of_the_call_itself_are_passed_on():
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


def test_calls_run_in_order_in_one_thread_and_events_arrive_in_the_callers():
    thread, events, where = SideThread(), [], []

    def work(emit):
        where.append(threading.get_ident())
        for number in range(3):
            emit((number, where[-1]))
        return "done"

    def on_event(event):
        events.append((*event, threading.get_ident()))

    for _ in range(2):
        assert thread.call(60, "telling", work, on_event) == "done"
    assert len(set(where)) == 1
    assert where[0] != threading.get_ident()
    assert events == [(n, where[0], threading.get_ident()) for n in (0, 1, 2)] * 2
    assert thread.close(30)


def test_an_error_in_the_event_callback_ends_the_call_and_reaches_the_caller():
    thread = SideThread()

    def work(emit):
        emit("a start")
        spin()

    def on_event(event):
        raise LookupError(event)

    with pytest.raises(LookupError, match="a start"):
        thread.call(60, "telling", work, on_event)
    with pytest.raises(RuntimeError, match="cannot go on with more: an earlier call was abandoned during telling"):
        thread.call(60, "more", work)
    assert thread.close(30)


@pytest.mark.parametrize("seconds", [1e-6, 0.0])
def test_a_timeout_may_be_zero(seconds):
    with pytest.raises(TimeoutError, match=f"gave up after {seconds:g} s of blinking"):
        within(seconds, "blinking", threading.Event().wait)


def test_timeouts_work_in_any_thread_and_nested():
    found = []

    def work():
        with pytest.raises(TimeoutError, match="inner"):
            within(0.05, "inner", threading.Event().wait)
        found.append(within(60, "outer", lambda: within(60, "inner", lambda: "both in time")))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["both in time"]


def test_timeouts_work_inside_a_running_event_loop():
    async def main():
        with pytest.raises(TimeoutError, match="sleeping"):
            within(0.1, "sleeping", lambda: run_loop(asyncio.sleep(60)))
        return within(60, "sleeping", lambda: run_loop(asyncio.sleep(0, "awake")))

    assert asyncio.run(main()) == "awake"


def test_a_thread_that_an_interrupt_kept_from_starting_can_be_closed():
    """Otherwise the error of joining it would hide the interrupt."""
    thread = SideThread()
    thread._thread = threading.Thread(target=thread._run, daemon=True)
    assert thread.close(1)


def test_a_closed_thread_refuses_calls():
    thread = SideThread()
    assert thread.call(60, "adding", lambda emit: 1 + 1) == 2
    assert thread.close(30)
    with pytest.raises(RuntimeError, match="cannot go on with adding: it is closed"):
        thread.call(60, "adding", lambda emit: 1 + 1)


def test_an_interrupt_at_the_end_of_a_loop_leaves_none_open():
    """An open loop would be a ResourceWarning, which is an error."""

    async def work(emit):
        emit("done")

    def stop(event):
        raise KeyboardInterrupt

    for _ in range(300):
        thread = SideThread()
        with pytest.raises(KeyboardInterrupt):
            thread.call(60, "a short loop", lambda emit: run_loop(work(emit)), stop)
        assert thread.close()
    gc.collect()
