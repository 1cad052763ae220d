"""Serve an agent until a stop signal, and drain then."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from codots.agent.access import Access, check_host, is_loopback
from codots.agent.audit import AuditLog
from codots.agent.checkpoint import Checkpoint
from codots.agent.gateway import Gateway
from codots.agent.guard import GUARD, Guard
from codots.agent.model import ServedModel
from codots.agent.records import check_share
from codots.agent.store import Store
from codots.agent.updates import Updater, opened_world
from codots.agent.upstream import Upstream
from codots.core.files import writable
from codots.core.processes import stop_signals_to

DRAIN_SECONDS = 30
"""Time that running chats and updates have after a stop signal. Updates that are not done run at the next start."""
KEEP_ALIVE_SECONDS = 75
"""Time that an idle connection stays open: longer than clients keep theirs, so that none sends into a closed one."""
THREADS = 32
"""Threads that use the store: those that read go on while others wait for the disk."""
POLL_SECONDS = 0.1
"""Time after which a second signal is seen."""


class _Server(uvicorn.Server):
    """A server whose stop signals are handled by `serve`."""

    def capture_signals(self) -> Any:
        """Leave the signal handlers as they are."""
        return nullcontext()


@contextmanager
def gateway(
    store: str, model: str, world: str, null_share: float = 0.0, guard: Guard | None = GUARD, **options: Any
) -> Iterator[Gateway]:
    """Open model and store, and run the updates that an earlier process left."""
    check_share(null_share)
    with ExitStack() as exits:
        served = ServedModel(model, **options)
        exits.callback(served.close)
        opened = exits.enter_context(Store(store))
        exits.callback(served.close)  # before the store, which its updates write to
        opened_world(opened, served.profile, world)
        updater = Updater(opened, served, guard)
        updater.wake_all()
        endpoint = served.opened.endpoint
        upstream = Upstream(endpoint) if endpoint else Checkpoint(served, model)
        yield Gateway(opened, updater, upstream, world, null_share)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises ValueError if the port is in use."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        at = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. Otherwise the body of an answer waits for an acknowledgment of its head, 40 ms.
        at.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return at
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]  # without the address, which Python may add
        raise ValueError(f"cannot listen at {host}:{port}: {why}; give --port ANOTHER") from error


class Stop:
    """Stop signals: from the first one on, DRAIN_SECONDS are left, and a second one ends them."""

    def __init__(self) -> None:
        self.signals, self._deadline = 0, math.inf

    def __call__(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        self.signals += 1
        self._deadline = min(self._deadline, time.monotonic() + DRAIN_SECONDS)

    async def within(self, work: asyncio.Future[Any]) -> None:
        """Wait for work until it is done or time is over. Without a signal, there are DRAIN_SECONDS from now on."""
        deadline = min(self._deadline, time.monotonic() + DRAIN_SECONDS)
        while not work.done() and self.signals < 2 and (left := min(self._deadline, deadline) - time.monotonic()) > 0:
            await asyncio.wait([work], timeout=min(left, POLL_SECONDS))


@dataclass(frozen=True)
class Terms:
    """Who reaches a server, and how."""

    host: str = "127.0.0.1"
    certfile: Path | None = None
    """Certificate of TLS, with its chain."""
    keyfile: Path | None = None
    """Private key of the certificate."""
    audit_log: Path | None = None
    """File of the audit log, by default beside the store. It is written if the server asks for keys."""

    def check(self, store: str) -> None:
        """Raise ValueError if the server must not be reached like this, or the certificate cannot be used."""
        check_host(self.host, store)
        if self.audit_log is not None:
            writable(self.audit_log)
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("TLS needs a certificate and its key; expected --certfile FILE --keyfile FILE")
        if self.certfile is not None and self.keyfile is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certfile, self.keyfile)
            except OSError as error:
                pair = f"the certificate {self.certfile} with the key {self.keyfile}"
                raise ValueError(f"TLS cannot use {pair}: {error.strerror or error}") from None

    def audit_path(self, store: Store) -> Path:
        """Return the file of the audit log."""
        beside = store.file.with_name(f"{store.file.name}.audit.jsonl") if store.file else Path("codots.audit.jsonl")
        return self.audit_log or beside


def serve(service: Gateway, app: Starlette, at: socket.socket, terms: Terms | None = None) -> None:
    """Serve an application until a stop signal; then take no new requests, and finish the running ones and the updates.

    A second signal stops at once.
    """
    terms = terms or Terms()
    audit = AuditLog(terms.audit_path(service.store))
    config = uvicorn.Config(
        without_cancelled(Access(app, service.store, not is_loopback(terms.host), audit)),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=terms.certfile,
        ssl_keyfile=terms.keyfile,
        access_log=False,
        log_level="warning",
    )
    server, stop = _Server(config), Stop()

    def stopping(number: int, frame: Any) -> None:
        stop(number, frame)
        server.force_exit, server.should_exit, app.state.draining = stop.signals > 1, True, True

    with closing(audit), stop_signals_to(stopping):
        asyncio.run(run(server, at, service, stop))


def without_cancelled(app: Any) -> Any:
    """Return an application that ends requests which are cancelled, at the end of the time, without a traceback."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        with suppress(asyncio.CancelledError):
            await app(scope, receive, send)

    return call


async def run(server: uvicorn.Server, at: socket.socket, service: Gateway, stop: Stop) -> None:
    """Run a server until it should exit, and drain."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    gc.collect()
    gc.freeze()  # otherwise a full collection goes through all imported modules, and every chat waits for 100 ms
    await server.serve([at])
    await service.upstream.close()
    await drain(service, stop)


async def drain(service: Gateway, stop: Stop) -> None:
    """Wait for the running updates, as long as there is time."""
    await stop.within(asyncio.wrap_future(service.updater.model.submit(service.updater.idle())))
