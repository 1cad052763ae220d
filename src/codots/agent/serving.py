"""Serve an agent until a stop signal, and drain then."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import uvicorn
from starlette.applications import Starlette

from codots.agent.checkpoint import Checkpoint
from codots.agent.gateway import Gateway
from codots.agent.model import ServedModel
from codots.agent.store import Store
from codots.agent.updates import Updater
from codots.agent.upstream import Upstream
from codots.core.processes import stop_signals_to

DRAIN_SECONDS = 30
"""Time that running chats and updates have after a stop signal. Updates that are not done run at the next start."""


class _Server(uvicorn.Server):
    """A server whose stop signals are handled by `serve`."""

    def capture_signals(self) -> Any:
        """Leave the signal handlers as they are."""
        return nullcontext()


@contextmanager
def gateway(store: str, model: str, world: str, **options: Any) -> Iterator[Gateway]:
    """Open model and store, and run the updates that an earlier process left."""
    with ExitStack() as exits:
        served = ServedModel(model, **options)
        exits.callback(served.close)
        opened = exits.enter_context(Store(store))
        exits.callback(served.close)  # before the store, which its updates write to
        opened.create(world, served.profile.strategy().settings())
        updater = Updater(opened, served)
        updater.wake_all()
        endpoint = served.opened.endpoint
        upstream = Upstream(endpoint) if endpoint else Checkpoint(served, model)
        yield Gateway(opened, updater, upstream, world)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ValueError if the port is in use."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]  # without the address, which Python may add
        raise ValueError(f"cannot listen at {host}:{port}: {why}; give --port ANOTHER") from error


def serve(service: Gateway, app: Starlette, at: socket.socket) -> None:
    """Serve an application until a stop signal; then take no new requests, and finish the running ones and the updates.

    A second signal stops at once.
    """
    server = _Server(
        uvicorn.Config(app, timeout_graceful_shutdown=DRAIN_SECONDS, access_log=False, log_level="warning")
    )

    def stop(number: int, frame: Any) -> None:
        server.force_exit, server.should_exit, app.state.draining = server.should_exit, True, True

    with stop_signals_to(stop):
        asyncio.run(run(server, at, service))


async def run(server: uvicorn.Server, at: socket.socket, service: Gateway) -> None:
    """Run a server until it should exit, and drain."""
    await server.serve([at])
    await service.upstream.close()
    if not server.force_exit:
        await drain(service)


async def drain(service: Gateway) -> None:
    """Wait for the running updates, but not for longer than DRAIN_SECONDS."""
    updates = service.updater.model.submit(service.updater.idle())
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(updates), DRAIN_SECONDS)
