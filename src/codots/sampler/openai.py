"""A sampler behind an endpoint that speaks as OpenAI's does: text alone, for measuring and playing."""

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
HOME = "https://api.openai.com/v1"
WAIT = 60.0
"""Greatest pause between two tries, in seconds."""
SAID = 200
"""Greatest length of a server's complaint that is passed on, in characters."""
log = logging.getLogger("codots")


def messages(ids: Sequence[int]) -> list[dict[str, str]]:
    """Read a chat back from its ids, up to where the model replies."""
    marks = [i for i, id in enumerate(ids) if id in ROLES]
    letters = Alphabet().decode
    return [{"role": ROLES[ids[i]], "content": letters(ids[i + 1 : end])} for i, end in pairwise(marks)]


class EndpointError(ConnectionError):
    """The endpoint gave no answer: nobody's fault but the infrastructure's."""


class RefusedError(EndpointError):
    """The endpoint will give no answer, however often it is asked."""


class _Silence(Exception):  # noqa: N818
    """An answer that is none."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served, and how long one waits for it."""

    name: str
    url: str = HOME
    key: str = field(default="none", repr=False)
    """Goes into one header and nowhere else."""
    at_once: int = 16
    """Greatest number of requests under way."""
    tries: int = 6
    pause: float = 1.0
    """Seconds before the second try, about; before each later one twice as many, and as many as the server asks for."""
    timeout: float = 600.0
    """Seconds that one try may take, from first to last byte."""

    @classmethod
    def from_environment(cls, name: str, at_once: int) -> Endpoint:
        """Take address and key from the environment. Raises ValueError for what can be none, never quoting the key."""
        url, key = os.environ.get(URL, "").strip(), os.environ.get(KEY, "").strip()
        if not (url or key):
            raise ValueError(f"openai:{name} needs {KEY}, or {URL} for your own server, such as http://host:8000/v1")
        if not _sound(url or HOME):
            raise ValueError(f"{URL} is no address like https://host:port/v1, without a name, a password or a query")
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise ValueError(f"{KEY} holds characters that no header may hold")
        return cls(name, url or HOME, key or "none", at_once)

    def __str__(self) -> str:
        """Name it in an error."""
        return f"openai:{self.name} at {self.url}"


def _sound(url: str) -> bool:
    try:
        where, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        return False
    plain = re.fullmatch(r"[\x21-\x7e]+", url) and not (where.query or where.fragment or "@" in where.netloc)
    return bool(plain and where.scheme in ("http", "https") and where.hostname and port != 0)


class EndpointSession:
    """One chat; it is sent whole with every request."""

    def __init__(self, sampler: EndpointSampler, names: Names) -> None:
        self.sampler, self.names = sampler, names
        self.ids: list[int] = []
        self.turn = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Say what is new and hear the answer; ids are letters, and no logprob of theirs is known."""
        rng = stream(*self.names, self.turn)
        self.turn += 1
        text, stop = await self.sampler.answer([*self.ids, *ids], params, rng)
        new = [*map(ord, text), *([END] if stop is StopReason.STOP else [])]
        self.ids += [*ids, *new]
        return Sampled(new, [math.nan] * len(new), stop, [0] * len(new))


class EndpointSampler:
    """Ask an endpoint, again where it fails, a bounded number of requests at once; lives in one event loop.

    A request that is answered in no try raises EndpointError. One that is refused for good, such as for a wrong key,
    raises RefusedError, and so do all after it without being sent.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            import openai
            import tenacity  # noqa: F401
        except ImportError as error:
            raise ValueError(f"an endpoint needs {error.name}: pip install 'codots[openai]'") from error
        self.endpoint, self.refused = endpoint, ""
        self._client = openai.AsyncOpenAI(api_key=endpoint.key, base_url=endpoint.url, max_retries=0)
        self._room = asyncio.Semaphore(endpoint.at_once)
        self._complained = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        """Close every connection."""
        await self._client.close()

    def session(self, names: Names) -> EndpointSession:
        """Open a chat whose requests carry seeds from `stream(*names, turn)`; not every server heeds them."""
        return EndpointSession(self, names)

    async def load(self, weights: Any, version: int) -> None:
        """Refuse: what is served elsewhere cannot be trained here."""
        raise ValueError(f"{self.endpoint} only answers; training needs a model folder")

    async def answer(self, ids: list[int], params: SamplingParams, rng: Any) -> tuple[str, StopReason]:
        """Give the model's next message and why it ended; nothing, FULL for a chat longer than it can read."""
        import tenacity

        e, body = self.endpoint, self._body(ids, params, int(rng.integers(2**31)))
        patient = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_passes),
            stop=tenacity.stop_after_attempt(e.tries),
            wait=lambda state: _pause(state, e.pause, rng.random()),
            before_sleep=self._complain,
            reraise=True,
        )
        async with self._room:
            if self.refused:
                raise RefusedError(self.refused)
            try:
                answered: tuple[str, StopReason] = await patient(self._ask, body)
                return answered
            except Exception as error:
                said = _words(error, e.timeout)
                if _too_long(error):
                    return "", StopReason.FULL
                if _passes(error):
                    raise EndpointError(f"{e} gave no answer in {e.tries} tries: {said}") from None
                self.refused = f"{e} refuses: {said}"
                raise RefusedError(self.refused) from None

    def _body(self, ids: list[int], params: SamplingParams, seed: int) -> dict[str, Any]:
        # What is left out is taken from the server's own defaults, so all that shapes the distribution is said.
        limit = "max_completion_tokens" if self.endpoint.url.startswith(HOME) else "max_tokens"
        asked = {"temperature": params.temperature, "top_p": 1.0, "seed": seed, limit: params.max_tokens}
        return {"model": self.endpoint.name, "messages": messages(ids), **asked}

    async def _ask(self, body: dict[str, Any]) -> tuple[str, StopReason]:
        answer = await asyncio.wait_for(self._client.chat.completions.create(**body), self.endpoint.timeout)
        try:
            choice = answer.choices[0]
            text, ended = choice.message.content or "", choice.finish_reason
        except (AttributeError, IndexError, TypeError):
            raise _Silence("the answer is no chat completion") from None
        if not isinstance(text, str) or not isinstance(ended, str):
            raise _Silence("the answer has no text, or no reason why it ended")
        text = text.encode(errors="replace").decode()  # half a pair of surrogates is no text
        return text, StopReason.LENGTH if ended == "length" else StopReason.STOP

    def _complain(self, state: Any) -> None:
        """Say what is waited for, but not for each of many chats at once."""
        if time.monotonic() - self._complained > 10:
            self._complained = time.monotonic()
            said, wait = _words(state.outcome.exception(), self.endpoint.timeout), state.next_action.sleep
            log.warning(f"waiting for {self.endpoint}, which did not answer: {said}; the next try is in {wait:.0f} s")


def _passes(error: BaseException | None) -> bool:
    """Whether a failure may be gone at the next try."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 425, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError | TimeoutError | ValueError | _Silence)


def _pause(state: Any, first: float, draw: float) -> float:
    """Seconds until the next try: what the server asks for, or more with each try, spread so that chats part."""
    asked = getattr(getattr(state.outcome.exception(), "response", None), "headers", {}).get("retry-after", "")
    least = float(asked) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", asked) else 0.0
    grown = first * 2.0 ** int(state.attempt_number - 1)
    return min(WAIT, max(least, grown * (0.5 + draw)))


def _too_long(error: BaseException) -> bool:
    return getattr(error, "status_code", 0) in (400, 413) and bool(
        re.search(r"context[_ ](length|window|size)|prompt is too long|too many tokens", str(error), re.IGNORECASE)
    )


def _words(error: BaseException, timeout: float) -> str:
    """Word a failure in one line that holds no secret."""
    import openai

    if isinstance(error, TimeoutError):
        return f"nothing came within {timeout:g} s"
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        said = body.get("message") or body.get("detail") or error.response.reason_phrase
        line = f"status {error.status_code}, {said}"
    elif isinstance(error, openai.APIConnectionError):
        line = f"it cannot be reached ({error.__cause__ or error})"
    else:
        line = str(error) if isinstance(error, _Silence) else "the answer is not JSON"
    return " ".join(without_secrets(line).split())[:SAID]
