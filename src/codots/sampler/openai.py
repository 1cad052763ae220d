"""A sampler for OpenAI-compatible endpoints, which return text only: for evaluation and play, not for training."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self
from urllib.parse import urlsplit

from codots.core.redact import without_secrets
from codots.core.rng import Names, stream
from codots.core.transcript import Sampled, StopReason
from codots.model.alphabet import END, ROLES, Alphabet
from codots.sampler.base import SamplingParams

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"
MAX_PAUSE = 60.0
"""Maximum pause between two tries, in seconds."""
MAX_MESSAGE = 200
"""Maximum length of a reported server error, in characters."""
log = logging.getLogger("codots")


def messages(ids: Sequence[int]) -> list[dict[str, str]]:
    """Convert ids back to the messages of a chat, up to where the model replies."""
    marks = [i for i, id in enumerate(ids) if id in ROLES]
    letters = Alphabet().decode
    return [{"role": ROLES[ids[i]], "content": letters(ids[i + 1 : end])} for i, end in pairwise(marks)]


class EndpointError(ConnectionError):
    """Infrastructure failure: the endpoint gave no answer."""


class RefusedError(EndpointError):
    """Permanent refusal by the endpoint; retries are useless."""


class _BadResponse(Exception):  # noqa: N818
    """A response that is not a chat completion."""


@dataclass(frozen=True)
class Endpoint:
    """Address, retry policy and timeout of a served model."""

    name: str
    url: str = OPENAI_URL
    key: str = field(default="none", repr=False)
    """API key; sent in one header and used nowhere else."""
    at_once: int = 16
    """Maximum number of concurrent requests."""
    tries: int = 6
    pause: float = 1.0
    """Approximate seconds before the second try, doubled for each later try, or longer if the server asks; never more
    than MAX_PAUSE."""
    timeout: float = 600.0
    """Timeout of one try, from first to last byte, in seconds."""

    @classmethod
    def from_environment(cls, name: str, at_once: int) -> Endpoint:
        """Read address and key from the environment.

        Raises ValueError, without quoting the key, if either is invalid or both are missing.
        """
        url, key = os.environ.get(URL, "").strip(), os.environ.get(KEY, "").strip()
        if not (url or key):
            raise ValueError(f"openai:{name} needs {KEY}, or {URL} for your own server, such as http://host:8000/v1")
        if not _valid_url(url or OPENAI_URL):
            raise ValueError(f"{URL} must look like https://host:port/v1 and contain no user name, password or query")
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise ValueError(f"{KEY} has characters that are not allowed in a header")
        return cls(name, url or OPENAI_URL, key or "none", at_once)

    def __str__(self) -> str:
        """Return the name for error messages."""
        return f"openai:{self.name} at {self.url}"


def _valid_url(url: str) -> bool:
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        return False
    plain = re.fullmatch(r"[\x21-\x7e]+", url) and not (parts.query or parts.fragment or "@" in parts.netloc)
    return bool(plain and parts.scheme in ("http", "https") and parts.hostname and port != 0)


class EndpointSession:
    """One chat, sent as a whole with every request."""

    def __init__(self, sampler: EndpointSampler, names: Names) -> None:
        self.sampler, self.names = sampler, names
        self.ids: list[int] = []
        self.turn = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Send the chat with the new text and return the answer. Its ids are code points, and its logprobs are NaN."""
        rng = stream(*self.names, self.turn)
        self.turn += 1
        text, stop = await self.sampler.answer([*self.ids, *ids], params, rng)
        new = [*map(ord, text), *([END] if stop is StopReason.STOP else [])]
        self.ids += [*ids, *new]
        return Sampled(new, [math.nan] * len(new), stop, [0] * len(new))


class EndpointSampler:
    """Sampler of an endpoint, with retries and a maximum number of concurrent requests, in one event loop.

    A request that fails in all tries raises EndpointError. A request that is refused permanently, such as for a wrong
    key, raises RefusedError. After that, all requests raise RefusedError and are not sent.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import openai
            import tenacity  # noqa: F401
        except ImportError as error:
            raise ValueError(f"an endpoint needs {error.name}: pip install 'codots[openai]'") from error
        self.endpoint, self.refused = endpoint, ""
        self._client = openai.AsyncOpenAI(api_key=endpoint.key, base_url=endpoint.url, max_retries=0)
        self._slots = asyncio.Semaphore(endpoint.at_once)
        self._warned = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close every connection."""
        await self._client.close()

    def session(self, names: Names) -> EndpointSession:
        """Open a chat whose requests have seeds from `stream(*names, turn)`; some servers ignore seeds."""
        return EndpointSession(self, names)

    async def load(self, weights: Any, version: int) -> None:
        """Raise ValueError: the weights behind an endpoint cannot be trained."""
        raise ValueError(f"{self.endpoint} only answers; training needs a model folder")

    async def answer(self, ids: list[int], params: SamplingParams, rng: Any) -> tuple[str, StopReason]:
        """Return the model's next message and the stop reason.

        If the chat is too long for the model, the message is empty and the stop reason is FULL.
        """
        import tenacity

        e, body = self.endpoint, self._body(ids, params, int(rng.integers(2**31)))
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_transient),
            stop=tenacity.stop_after_attempt(e.tries),
            wait=lambda state: _pause(state, e.pause, rng.random()),
            before_sleep=self._warn,
            reraise=True,
        )
        async with self._slots:
            if self.refused:
                raise RefusedError(self.refused)
            try:
                answered: tuple[str, StopReason] = await retrying(self._ask, body)
                return answered
            except Exception as error:
                message = _describe(error, e.timeout)
                if _too_long(error):
                    return "", StopReason.FULL
                if _transient(error):
                    raise EndpointError(f"{e} gave no answer in {e.tries} tries: {message}") from None
                self.refused = f"{e} refuses: {message}"
                raise RefusedError(self.refused) from None

    def _body(self, ids: list[int], params: SamplingParams, seed: int) -> dict[str, Any]:
        # Send all options that change the distribution, because servers have their own defaults.
        limit = "max_completion_tokens" if self.endpoint.url.startswith(OPENAI_URL) else "max_tokens"
        options = {"temperature": params.temperature, "top_p": 1.0, "seed": seed, limit: params.max_tokens}
        return {"model": self.endpoint.name, "messages": messages(ids), **options}

    async def _ask(self, body: dict[str, Any]) -> tuple[str, StopReason]:
        answer = await asyncio.wait_for(self._client.chat.completions.create(**body), self.endpoint.timeout)
        try:
            choice = answer.choices[0]
            text, ended = choice.message.content or "", choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            raise _BadResponse("the answer is not a chat completion") from None
        if not isinstance(text, str) or not isinstance(ended, str):
            raise _BadResponse("the answer has no text, or no finish reason")
        text = text.encode(errors="replace").decode()  # a lone surrogate cannot be encoded
        return text, StopReason.LENGTH if ended == "length" else StopReason.STOP

    def _warn(self, state: Any) -> None:
        """Log the failure before a retry, at most once in 10 seconds."""
        if time.monotonic() - self._warned > 10:
            self._warned = time.monotonic()
            message, wait = _describe(state.outcome.exception(), self.endpoint.timeout), state.next_action.sleep
            log.warning(
                f"waiting for {self.endpoint}, which did not answer: {message}; the next try is in {wait:.0f} s"
            )


def _transient(error: BaseException | None) -> bool:
    """Return whether another try may succeed."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | TimeoutError | ValueError | _BadResponse)


def _pause(state: Any, first: float, draw: float) -> float:
    """Return the seconds until the next try, at most MAX_PAUSE.

    They are a jittered exponential backoff, doubled for each later try, or longer if the server asks.
    """
    asked = getattr(getattr(state.outcome.exception(), "response", None), "headers", {}).get("retry-after", "")
    least = float(asked) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", asked) else 0.0
    grown = first * 2.0 ** int(state.attempt_number - 1)
    return min(MAX_PAUSE, max(least, grown * (0.5 + draw)))


def _too_long(error: BaseException) -> bool:
    return getattr(error, "status_code", 0) in (400, 413) and bool(
        re.search(r"context[_ ](length|window|size)|prompt is too long|too many tokens", str(error), re.IGNORECASE)
    )


def _describe(error: BaseException, timeout: float) -> str:
    """Describe a failure in one line without secrets."""
    import openai

    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        reason = body.get("message") or body.get("detail") or error.response.reason_phrase
        line = f"status {error.status_code}, {reason}"
    elif isinstance(error, openai.APIConnectionError):
        line = f"it cannot be reached ({error.__cause__ or error})"
    else:
        line = str(error) if isinstance(error, _BadResponse) else "the answer is not JSON"
    return " ".join(without_secrets(line).split())[:MAX_MESSAGE]
