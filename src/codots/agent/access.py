"""Access over HTTP: each request has a key, the key a scope, and the audit log a line for it.

A store without keys is open, which is why a server for it listens on this machine only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse

from codots.agent.audit import AuditLog
from codots.agent.keys import Key, find_key, has_keys, hashed
from codots.agent.records import NAME, ForbiddenError, UnknownWorldError
from codots.agent.sql import reason, sa
from codots.agent.store import Store
from codots.core.redact import without_secrets

CACHE_SECONDS = 5.0
"""Time for which a key that was found counts as valid: a revocation takes effect within it."""
CACHED = 10_000
"""Maximum number of keys in the cache."""
PUBLIC = ("/", "/health", "/ready")
"""Paths that need no key."""
READS = ("GET", "HEAD", "OPTIONS")


@dataclass
class Caller:
    """Who sends a request, and what the audit log says about it."""

    key: Key | None
    guarded: bool
    """Whether the server asks for keys."""
    route: str = ""
    world: str = ""
    status: int = 500

    @property
    def sees_all(self) -> bool:
        """Whether the caller may read every world."""
        return not self.guarded or (self.key is not None and self.key.worlds is None)

    def allows(self, world: str, write: bool) -> bool:
        """Return whether the caller may read, or write, in a world."""
        return not self.guarded or (self.key is not None and self.key.allows(world, write))


LOCAL = Caller(None, guarded=False)
"""A program in this process, or a client over stdin and stdout."""
caller: ContextVar[Caller] = ContextVar("caller", default=LOCAL)
"""Who sends the request that is answered."""


def check(world: str, write: bool) -> None:
    """Raise ForbiddenError, which does not say whether the world exists, if the caller may not use it."""
    of = caller.get()
    if of is not LOCAL:
        of.world = world if NAME.fullmatch(world) else ""
    if not of.allows(world, write):
        assert of.key is not None
        if of.key.allows(world, write=False):
            raise ForbiddenError(f"the key {of.key.name!r} may only read")
        raise ForbiddenError(f"the key {of.key.name!r} is not for the world {world[:100]!r}")


def check_all() -> None:
    """Raise ForbiddenError unless the caller may read every world."""
    of = caller.get()
    if not of.sees_all:
        raise ForbiddenError("this needs a key for all worlds")


async def in_scope(request: Request) -> None:  # async, since FastAPI calls plain functions in a thread
    """Check the world in the path of a request. A dependency of every route of worlds."""
    if (world := request.path_params.get("world")) is not None:
        check(world, write=request.method not in READS)


def explained(error: Exception) -> str:
    """Return what an error says. It names other worlds only to callers who may see them."""
    return error.short if isinstance(error, UnknownWorldError) and not caller.get().sees_all else str(error)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def foreign(headers: list[tuple[bytes, bytes]]) -> str:
    """Return why a request is not of a program on this machine, or an empty text.

    A page of the web can make a browser send requests to this machine: under a name of its own that resolves to a
    loopback address, or from another origin. Without keys, nothing else would keep it from the contexts.
    """
    named = {name: value.decode("latin-1") for name, value in headers if name in (b"host", b"origin")}
    host, origin = named.get(b"host", ""), named.get(b"origin", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if not is_loopback(name):
        return f"the header Host is {host[:100]!r}; without keys, expected localhost (codots keys create)"
    if origin and origin.rpartition("//")[2] != host:
        return f"a page of {origin[:100]!r} may not use this server; without keys, expected one of {host}"
    return ""


def check_host(host: str, store: str) -> None:
    """Raise ValueError for an address that other machines reach, if the store has no key."""
    if is_loopback(host):
        return
    if "://" in store or Path(store).expanduser().is_file():
        with Store(store, create=False) as found:
            if has_keys(found):
                return
    raise ValueError(f"{host} is reached by other machines; make a key first: codots keys create NAME --store {store}")


def told(message: str, kind: str) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it."""
    return {"message": message, "type": kind, "param": None, "code": kind}


class Access:
    """An application that asks for a key in front of another one, unless the store has none."""

    def __init__(self, app: Any, store: Store, required: bool = False, audit: AuditLog | None = None) -> None:
        """`required` asks for a key even if the store has none."""
        self.app, self.store, self.audit = app, store, audit
        self.clock: Callable[[], float] = time.monotonic
        self._guarded, self._checked = required, -CACHE_SECONDS
        self._known: dict[str, tuple[Key, float]] = {}
        self._buckets: dict[str, tuple[float, float]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it: 401 without a valid key, 429 above the rate of the key."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        try:
            key = await self._key(scope["headers"]) if await self._is_guarded() else None
        except sa.exc.SQLAlchemyError as error:
            await _error(503, without_secrets(reason(error)), "server_error")(scope, receive, send)
            return
        of = scope["caller"] = Caller(key, self._guarded)
        if not self._guarded and (why := foreign(scope["headers"])):
            await _error(403, why, "invalid_request_error")(scope, receive, send)
            return

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start" and of.status == 500:
                of.status = message["status"]
            await send(message)

        token = caller.set(of)
        try:
            refused = self._refused(of, scope["path"])
            await (refused or self.app)(scope, receive, sending)
        finally:
            caller.reset(token)
            if self._guarded and self.audit and scope["path"] not in PUBLIC:
                self._note(scope, of)

    async def _is_guarded(self) -> bool:
        """Return whether a key was ever made; once that is so, it stays so."""
        if not self._guarded and self.clock() - self._checked >= CACHE_SECONDS:
            self._guarded = await asyncio.to_thread(has_keys, self.store)
            self._checked = self.clock()
        return self._guarded

    async def _key(self, headers: list[tuple[bytes, bytes]]) -> Key | None:
        given = next((value for name, value in headers if name == b"authorization"), b"").decode("latin-1")
        kind, _, text = given.partition(" ")
        if kind.lower() != "bearer":
            return None
        digest, now = hashed(text.strip()), self.clock()
        if (known := self._known.get(digest)) and now - known[1] < CACHE_SECONDS:
            return known[0]
        self._known.pop(digest, None)
        if (found := await asyncio.to_thread(find_key, self.store, digest)) is not None:
            if len(self._known) >= CACHED:
                self._known.clear()
            self._known[digest] = (found, now)
        return found

    def _refused(self, of: Caller, path: str) -> JSONResponse | None:
        if not of.guarded or path in PUBLIC:
            return None
        if of.key is None:
            message = "expected the header Authorization: Bearer KEY with a valid key (codots keys create)"
            return _error(401, message, "invalid_request_error", {"www-authenticate": "Bearer"})
        if wait := self._wait(of.key):
            message = f"the key {of.key.name!r} may send {of.key.per_minute} requests a minute"
            return _error(429, message, "rate_limit", {"retry-after": str(wait)})
        return None

    def _wait(self, key: Key) -> int:
        """Take one request from the bucket of a key, and return 0, or the seconds until there is one."""
        if key.per_minute is None:
            return 0
        now, full = self.clock(), float(key.per_minute)
        left, at = self._buckets.get(key.name, (full, now))
        left = min(full, left + (now - at) * full / 60)
        self._buckets[key.name] = (left - (left >= 1), now)
        return 0 if left >= 1 else int((1 - left) * 60 / full) + 1

    def _note(self, scope: Any, of: Caller) -> None:
        assert self.audit is not None
        # The path may have texts in it, so only the template of a route that exists is kept.
        route = of.route or getattr(scope.get("route"), "path", "")
        who = {"key": of.key.name if of.key else None, "client": (scope.get("client") or ("",))[0]}
        did = {"method": scope["method"], "route": route or None, "world": of.world or None, "status": of.status}
        self.audit.write(time.time(), who | did)


def _error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": told(message, kind)}, status, headers)
