"""An upstream: the OpenAI-compatible server behind ours. Requests pass through it unchanged, but for their context."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
from aiohttp.http import HttpProcessingError

from codots.agent.chat import StreamedReply, text_of
from codots.core.redact import without_secrets
from codots.core.rng import Names
from codots.sampler.endpoint import Endpoint
from codots.sampler.network import proxy_of, proxy_url, usual_certificates
from codots.sampler.refusals import words

MODELS, CHAT = "models", "chat/completions"
MAX_PAUSE = 30.0
"""Maximum pause between two tries, in seconds."""
MAX_MESSAGE = 300
"""Maximum length of a reported error, in characters."""
IDLE_SECONDS = 4.0
"""Time that an idle connection is used again. Uvicorn, on which vLLM runs, closes it after 5 s."""
READ_AHEAD = 2**23
"""Maximum number of bytes that are read ahead; a line of a stream has at most twice as many."""
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError, HttpProcessingError)
"""Errors of reading an answer that is not JSON, or JSON of another shape, or whose lines do not end."""
CONNECTION_ERRORS = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientProxyConnectionError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)
"""Errors of reaching the endpoint; other errors of the client end a connection that there was."""
Body = dict[str, Any]
T = TypeVar("T")


class UpstreamError(Exception):
    """The upstream gave no answer, or refused the request."""

    def __init__(self, kind: str, status: int, message: str, body: str = "", retry_after: float = 0.0) -> None:
        super().__init__(" ".join(without_secrets(message).split())[:MAX_MESSAGE])
        self.kind = kind
        """`rate_limit`, `server_error`, `timeout`, `connection`, `cut`, `garbage` or `refused`."""
        self.status = status
        """HTTP status that the client is given."""
        self.body = body
        """What the upstream said, if it refused the request."""
        self.retry_after = retry_after
        """Seconds after which the upstream wants to be asked again."""


class Upstream:
    """A client of an endpoint, through the proxy that the environment names.

    What fails is tried again with exponential backoff, a stream only until its first chunk.
    `failures` counts failed tries by kind.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.failures = endpoint, Counter[str]()
        self._url = endpoint.url.rstrip("/")
        self._proxy, self._verify = proxy_url(endpoint.url), usual_certificates(endpoint.url)
        through = proxy_of(endpoint.url)
        if self._proxy and not self._proxy.startswith(("http://", "https://")):
            raise ValueError(without_secrets(f"{through} cannot be used; expected one that begins with http://"))
        self._name = f"{endpoint} through {through}" if through else str(endpoint)
        self._opened: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._opened is not None:
            await self._opened.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        """The connections, as many as there are requests at once. They belong to the running event loop."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS, ssl=self._verify),
                headers={"authorization": f"Bearer {self.endpoint.key}"},
                timeout=aiohttp.ClientTimeout(sock_connect=self.endpoint.timeout, sock_read=self.endpoint.timeout),
                read_bufsize=READ_AHEAD,
            )
        return self._opened

    async def models(self) -> Body:
        """Return the models of the upstream."""
        return await self._retrying(lambda: self._send("GET", MODELS, None))

    async def complete(self, body: Body, names: Names = (), turn: int = 0) -> Body:
        """Return a chat completion. Raises UpstreamError. The upstream draws its own random numbers."""
        return await self._retrying(lambda: self._complete(body))

    async def stream(self, body: Body, names: Names = (), turn: int = 0) -> AsyncIterator[Body]:
        """Yield the chunks of a streamed completion. Raises UpstreamError, also in the middle of a stream."""
        held, chunks, first = await self._retrying(lambda: self._start(body))
        async with held:
            try:
                yield first
                async for chunk in chunks:
                    yield chunk
            except UpstreamError as error:
                self.failures[error.kind] += 1
                raise

    async def _retrying(self, ask: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(self.endpoint.tries):
            try:
                return await ask()
            except UpstreamError as error:
                self.failures[error.kind] += 1
                if error.kind == "refused" or attempt + 1 == self.endpoint.tries:
                    raise
                grown = self.endpoint.pause * 2.0**attempt * (0.5 + random.random())
                await asyncio.sleep(min(MAX_PAUSE, max(error.retry_after, grown)))
        raise AssertionError("an endpoint has at least one try")

    async def _complete(self, body: Body) -> Body:
        answer = await self._send("POST", CHAT, body)
        with self._explained():
            text_of(answer["choices"][0]["message"])
        return answer

    async def _send(self, method: str, path: str, body: Body | None) -> Body:
        """Send a request, and return the JSON object of the answer."""
        with self._explained():
            async with asyncio.timeout(self.endpoint.timeout), self._request(method, path, body) as response:
                read = await response.read()
        self._check(response, read)
        with self._explained():
            answer = json.loads(read)
            if not isinstance(answer, dict):
                raise ValueError
        return answer

    def _request(self, method: str, path: str, body: Body | None) -> Any:
        to = f"{self._url}/{path}"
        return self._session.request(method, to, json=body, proxy=self._proxy, allow_redirects=False)

    async def _start(self, body: Body) -> tuple[AsyncExitStack, AsyncIterator[Body], Body]:
        """Open a stream, and wait for its first chunk. Return what to close after it, its chunks and the first."""
        async with AsyncExitStack() as held:
            with self._explained():
                response = await held.enter_async_context(self._request("POST", CHAT, body))
                read = b"" if response.status == HTTPStatus.OK else await response.read()
            self._check(response, read)
            chunks = self._read(response)
            try:
                first = await anext(chunks)
            except StopAsyncIteration:
                raise UpstreamError("garbage", 502, f"{self._name} sent an empty stream") from None
            return held.pop_all(), chunks, first
        raise AssertionError("no exit of the stack suppresses an error")

    async def _read(self, response: aiohttp.ClientResponse) -> AsyncIterator[Body]:
        seen = False
        with self._explained():
            async for line in response.content:
                if (text := line.removeprefix(b"data:").strip()) == b"[DONE]":
                    return
                if line.startswith(b"data:"):
                    yield self._chunk(text)
                    seen = True
        raise UpstreamError("cut" if seen else "garbage", 502, f"{self._name} ended a stream before [DONE]")

    def _chunk(self, text: bytes) -> Body:
        """Return a chunk of a stream. Raises UpstreamError, and any of UNREADABLE."""
        chunk = json.loads(text)
        if not isinstance(chunk, dict):
            raise ValueError
        if "error" in chunk:
            raise UpstreamError("server_error", 502, f"{self._name} reported in a stream: {chunk['error']}")
        StreamedReply().add(chunk)
        return chunk

    def _check(self, response: aiohttp.ClientResponse, read: bytes) -> None:
        """Raise UpstreamError for a status that is not OK, with what the body says."""
        status, said = response.status, read.decode(errors="replace")
        if status == HTTPStatus.OK:
            return
        kind = "rate_limit" if status == 429 else "server_error" if status >= 500 or status in (408, 425) else "refused"
        asked = response.headers.get("retry-after", "")
        wait = float(asked) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", asked) else 0.0
        message = f"{self._name} answered with status {status}: {words(said) or response.reason}"
        passed_on = status if 400 <= status < 500 else 502  # a redirect would lead the client past this server
        raise UpstreamError(kind, passed_on, message, said if passed_on == status else "", wait)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise the errors of the client as UpstreamError."""
        try:
            yield
        except TimeoutError:
            seconds = self.endpoint.timeout
            raise UpstreamError("timeout", 504, f"{self._name} gave no answer within {seconds:g} s") from None
        except CONNECTION_ERRORS as error:
            raise UpstreamError("connection", 502, f"{self._name} cannot be reached: {error}") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UpstreamError("cut", 502, f"{self._name} cut the connection: {error}") from None
        except OSError as error:
            raise UpstreamError("connection", 502, f"{self._name} cannot be reached: {error}") from None
        except UNREADABLE:
            raise UpstreamError("garbage", 502, f"{self._name} did not answer in JSON of OpenAI's API") from None
