"""An upstream: the OpenAI-compatible server behind ours. Requests pass through it unchanged, but for their context."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

import httpx

from codots.agent.chat import StreamedReply, text_of
from codots.agent.connections import Connections
from codots.core.redact import without_secrets
from codots.core.rng import Names
from codots.sampler.endpoint import Endpoint
from codots.sampler.refusals import words

MODELS, CHAT = "models", "chat/completions"
MAX_PAUSE = 30.0
"""Maximum pause between two tries, in seconds."""
MAX_MESSAGE = 300
"""Maximum length of a reported error, in characters."""
UNREADABLE = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""Errors of reading an answer that is not JSON, or JSON of another shape."""
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
    """A client of an endpoint. What fails is tried again with exponential backoff, a stream only until its first chunk.

    `failures` counts failed tries by kind.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.failures = endpoint, Counter[str]()
        url = endpoint.url.rstrip("/")
        self._urls = {path: httpx.URL(f"{url}/{path}") for path in (MODELS, CHAT)}  # parsed once
        self._connections = Connections(endpoint)

    async def close(self) -> None:
        """Close every connection."""
        await self._connections.close()

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
            async with asyncio.timeout(self.endpoint.timeout), self._connections.client() as client:
                response = await client.request(method, self._urls[path], json=body)
        self._check(response)
        with self._explained():
            answer = response.json()
            if not isinstance(answer, dict):
                raise ValueError
        return answer

    async def _start(self, body: Body) -> tuple[AsyncExitStack, AsyncIterator[Body], Body]:
        """Open a stream, and wait for its first chunk. Return what to close after it, its chunks and the first."""
        async with AsyncExitStack() as held:
            with self._explained():
                client = await held.enter_async_context(self._connections.client())
                request = client.build_request("POST", self._urls[CHAT], json=body)
                response = await client.send(request, stream=True)
            held.push_async_callback(response.aclose)
            if response.status_code != httpx.codes.OK:
                with self._explained():
                    await response.aread()
            self._check(response)
            chunks = self._read(response)
            try:
                first = await anext(chunks)
            except StopAsyncIteration:
                raise UpstreamError("garbage", 502, f"{self.endpoint} sent an empty stream") from None
            return held.pop_all(), chunks, first
        raise AssertionError("no exit of the stack suppresses an error")

    async def _read(self, response: httpx.Response) -> AsyncIterator[Body]:
        seen = False
        with self._explained():
            async for line in response.aiter_lines():
                if (text := line.removeprefix("data:").strip()) == "[DONE]":
                    return
                if line.startswith("data:"):
                    yield self._chunk(text)
                    seen = True
        raise UpstreamError("cut" if seen else "garbage", 502, f"{self.endpoint} ended a stream before [DONE]")

    def _chunk(self, text: str) -> Body:
        """Return a chunk of a stream. Raises UpstreamError, and any of UNREADABLE."""
        chunk = json.loads(text)
        if not isinstance(chunk, dict):
            raise ValueError
        if "error" in chunk:
            raise UpstreamError("server_error", 502, f"{self.endpoint} reported in a stream: {chunk['error']}")
        StreamedReply().add(chunk)
        return chunk

    def _check(self, response: httpx.Response) -> None:
        """Raise UpstreamError for a status that is not OK."""
        status = response.status_code
        if status == httpx.codes.OK:
            return
        kind = "rate_limit" if status == 429 else "server_error" if status >= 500 or status in (408, 425) else "refused"
        asked = response.headers.get("retry-after", "")
        wait = float(asked) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", asked) else 0.0
        message = f"{self.endpoint} answered with status {status}: {words(response.text) or response.reason_phrase}"
        raise UpstreamError(kind, 502 if status >= 500 else status, message, response.text, wait)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise the errors of the client as UpstreamError."""
        try:
            yield
        except (httpx.TimeoutException, TimeoutError):
            seconds = self.endpoint.timeout
            raise UpstreamError("timeout", 504, f"{self.endpoint} gave no answer within {seconds:g} s") from None
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise UpstreamError("cut", 502, f"{self.endpoint} cut the connection: {error}") from None
        except httpx.HTTPError as error:
            raise UpstreamError("connection", 502, f"{self.endpoint} cannot be reached: {error}") from None
        except UNREADABLE:
            raise UpstreamError("garbage", 502, f"{self.endpoint} did not answer in JSON of OpenAI's API") from None
