"""Requests at once have a connection each, which later requests use again, and which is closed when it was idle."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from codots.agent import connections
from codots.agent.connections import IDLE_SECONDS, Connections
from codots.sampler.endpoint import Endpoint


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still."""
    now = [100.0]
    monkeypatch.setattr(connections, "monotonic", lambda: now[0])
    return now


def test_a_request_uses_the_connection_that_was_used_last(clock):
    async def use():
        own = Connections(Endpoint("m", "http://127.0.0.1:9/v1"))
        async with own.client() as first, own.client() as second:
            assert first is not second
        async with own.client() as third:
            assert third is first
        await own.close()
        return first.is_closed, second.is_closed

    assert asyncio.run(use()) == (True, True)


def test_a_connection_that_failed_is_closed_and_not_used_again(clock):
    async def use():
        own = Connections(Endpoint("m", "http://127.0.0.1:9/v1"))
        with pytest.raises(TimeoutError):
            async with own.client() as first:
                raise TimeoutError
        async with own.client() as second:
            assert second is not first
        return first.is_closed, second.is_closed

    assert asyncio.run(use()) == (True, False)


def test_connections_of_a_burst_are_closed_when_they_were_idle(clock):
    async def use():
        own = Connections(Endpoint("m", "http://127.0.0.1:9/v1"))
        async with AsyncExitStack() as burst:
            clients = [await burst.enter_async_context(own.client()) for _ in range(20)]
        clock[0] += IDLE_SECONDS / 2
        async with own.client() as used:
            pass
        clock[0] += IDLE_SECONDS / 2 + 1
        async with own.client() as again:
            pass
        assert used is again
        return [client.is_closed for client in clients if client is not used]

    assert asyncio.run(use()) == [True] * 19
