"""Usage of samplers and learners: busy times, and the lag of an event loop, which is warned of."""

import asyncio
import time

import pytest

from codots.engine.usage import Meter, Usage, Used


async def blocked(seconds, waits=0.0):
    time.sleep(seconds)
    await asyncio.sleep(waits)


def test_an_environment_that_blocks_the_loop_is_measured_even_as_its_last_call():
    usage = Usage()
    asyncio.run(usage.measure(blocked(0.3)))
    used = usage.take()
    assert used.busy >= 0.3
    assert 0.1 < used.lag <= used.busy
    assert usage.take() == Used(0.0, 0.0)


def test_a_life_that_waits_is_busy_but_does_not_lag():
    usage = Usage()
    asyncio.run(usage.measure(blocked(0.0, waits=0.3)))
    used = usage.take()
    assert used.busy >= 0.3
    assert used.lag < 0.25


def test_rollouts_at_the_same_time_count_once():
    usage = Usage()

    async def both():
        await asyncio.gather(*(usage.measure(blocked(0.0, waits=0.2)) for _ in range(2)))

    start = time.monotonic()
    asyncio.run(both())
    assert 0.2 <= usage.take().busy <= time.monotonic() - start


def test_busy_times_are_fractions_of_the_time_between_two_syncs():
    meter = Meter()
    meter.start()
    with meter.learning():
        time.sleep(0.05)
    values = meter.metrics([Used(0.05, 0.0), Used(0.0, 0.0)], 0.01)
    assert 0 < values["time/samplers_busy"] <= 0.5 < values["time/learner_busy"] <= 1
    assert meter.metrics([Used(0.0, 0.0)], 0.01)["time/learner_busy"] == 0


def test_a_long_lag_is_warned_of_with_the_sampler_and_what_to_change(caplog):
    meter = Meter()
    meter.metrics([Used(1.0, 9.0)], 0.0)
    assert caplog.text == ""
    assert meter.metrics([Used(1.0, 0.0), Used(1.0, 12.0)], 0.0)["time/loop_lag"] == 12
    assert "the event loop of sampler 1 was blocked for 12.0 s" in caplog.text
    assert "`blocking`" in caplog.text
    caplog.clear()
    meter.metrics([Used(1.0, 13.0)], 0.0)
    assert caplog.text == ""  # only a lag twice as long is warned of again
    meter.metrics([Used(1.0, 30.0)], 0.0)
    assert "sampler 0 was blocked for 30.0 s" in caplog.text


def test_a_lag_by_a_long_forward_pass_is_not_warned_of(caplog):
    assert Meter().metrics([Used(60.0, 31.0, longest_pass=30.0)], 0.0)["time/loop_lag"] == 31
    assert caplog.text == ""


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_metrics_are_finite_before_anything_was_measured(seconds):
    values = Meter().metrics([Used(0.0, 0.0)], seconds)
    assert values == {"time/sync": seconds, "time/samplers_busy": 0, "time/learner_busy": 0, "time/loop_lag": 0}
