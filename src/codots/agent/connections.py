"""Connections to an upstream, as many as there are requests at once."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import httpx

from codots.sampler.endpoint import Endpoint
from codots.sampler.network import certificates, is_loopback

IDLE_SECONDS = 4.0
"""Time that an idle connection is used again. Uvicorn, on which vLLM runs, closes it after 5 s."""


class Connections:
    """HTTP clients of an endpoint with one connection each.

    A client with many connections looks at all of them for each request, at some several times: from a hundred requests
    at once on, that takes longer than all else.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._verify = certificates(endpoint.url) or httpx.create_ssl_context()  # read once
        self._idle = deque([(self._client(), monotonic())])
        """Clients with the time of their last use, the oldest first."""

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers={"authorization": f"Bearer {self.endpoint.key}"},
            timeout=httpx.Timeout(self.endpoint.timeout),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=IDLE_SECONDS),
            trust_env=not is_loopback(self.endpoint.url),
            verify=self._verify,
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield a client for one request, the one that was used last. After an error it is closed: it may hang."""
        client = self._idle.pop()[0] if self._idle else self._client()
        try:
            yield client
        except BaseException:
            await client.aclose()
            raise
        self._idle.append((client, monotonic()))
        while self._idle and self._idle[0][1] < monotonic() - IDLE_SECONDS:
            await self._idle.popleft()[0].aclose()

    async def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            await self._idle.pop()[0].aclose()
