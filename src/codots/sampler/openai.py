"""A sampler for OpenAI-compatible endpoints, which return text only: for evaluation and play, not for training."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Self

from codots.core.redact import SHORT, without_secrets
from codots.core.rng import Names, stream
from codots.core.transcript import Sampled, StopReason
from codots.model.alphabet import END, ROLES, Alphabet
from codots.sampler.base import FinalError, SamplingParams
from codots.sampler.budget import CHARS_PER_TOKEN, Budget
from codots.sampler.endpoint import KEY, OPENAI_URL, Endpoint, Terms
from codots.sampler.network import certificate_hint, http_client, proxy_of
from codots.sampler.refusals import (
    LIMITS,
    concerns_all,
    is_filtered,
    is_spent,
    refused_option,
    room,
    words,
)
from codots.sampler.replies import Reply, UnreadableError, read_reply

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


class RefusedError(EndpointError, FinalError):
    """Permanent refusal by the endpoint, of one request or of all; retries are useless."""


class EndpointSession:
    """One chat, sent as a whole with every request."""

    def __init__(self, sampler: EndpointSampler, names: Names) -> None:
        self.sampler, self.names = sampler, names
        self.ids: list[int] = []
        self.turn = 0
        self.used = 0
        """Number of tokens of the last request, as the server counts them."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Send the chat with the new text and return the answer. Its ids are code points, and its logprobs are NaN."""
        rng = stream(*self.names, self.turn)
        self.turn += 1
        reply = await self.sampler.answer([*self.ids, *ids], params, rng, self.used)
        new = [*map(ord, reply.text), *([END] if reply.stop is StopReason.STOP else [])]
        self.ids += [*ids, *new]
        self.used = reply.prompt_tokens if reply.told else 0
        nan, zero = [math.nan] * len(new), [0] * len(new)
        return Sampled(new, nan, reply.stop, zero, reply.prompt_tokens, reply.completion_tokens)


class EndpointSampler:
    """Sampler of an endpoint, with retries and a maximum number of concurrent requests, in one event loop.

    A request that fails in all tries raises EndpointError. A request that is refused permanently raises RefusedError.
    If the reason concerns every request, such as a wrong key, later requests raise RefusedError and are not sent.
    """

    def __init__(self, endpoint: Endpoint, terms: Terms | None = None, budget: Budget | None = None) -> None:
        """`terms` holds what earlier samplers of the endpoint have learned; `budget` limits all requests."""
        try:
            import openai
            import tenacity  # noqa: F401
        except ImportError as error:
            raise ValueError(f"an endpoint needs {error.name}: pip install 'codots[openai]'") from error
        self.endpoint, self.refused, self.terms = endpoint, "", Terms() if terms is None else terms
        self.budget = Budget() if budget is None else budget
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.key, base_url=endpoint.url, max_retries=0, http_client=http_client(endpoint.url)
        )
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

    async def answer(self, ids: list[int], params: SamplingParams, rng: Any, used: int = 0) -> Reply:
        """Return the model's next message. `used` is a lower bound of the server's count of prompt tokens.

        A refusal that says how to ask instead, such as for fewer tokens or without an option, is followed. If the chat
        is too long for the model, the message is empty and the stop reason is FULL. Raises SpentError if a limit of the
        budget is reached.
        """
        chat, seed = messages(ids), int(rng.integers(2**31))
        async with self._slots:
            most, told = self.terms.most(params.max_tokens, used), False
            while most:
                self.budget.check()
                options = self._options(params.temperature, seed, most)
                try:
                    reply = await self._try(chat, options, rng)
                except _RefusedRequest as refusal:
                    if is_filtered(refusal.text):
                        return Reply("", StopReason.FILTERED)
                    if found := room(refusal.text, most):
                        self.terms.learn(found)
                        most = min(found.tokens, most // 2) if told else found.tokens  # a server may count wrong
                        told = True
                    elif not self._drop(refusal, options):
                        raise RefusedError(f"{self.endpoint} refuses this request: {refusal}") from None
                else:
                    reply = self._counted(chat, self._marked(reply, most, params.max_tokens))
                    self.budget.spend(reply.prompt_tokens, reply.completion_tokens)
                    return reply
        return Reply("", StopReason.FULL)

    def _counted(self, chat: list[dict[str, str]], reply: Reply) -> Reply:
        """Estimate the numbers of tokens that the server does not tell."""
        if reply.prompt_tokens:
            return reply
        letters = sum(len(message["content"]) for message in chat), len(reply.text)
        prompt, said = (-(-count // CHARS_PER_TOKEN) for count in letters)
        return replace(reply, prompt_tokens=prompt, completion_tokens=reply.completion_tokens or said, told=False)

    def _marked(self, reply: Reply, most: int, asked: int) -> Reply:
        """Mark a reply that filled the window of the server, not the length that was asked for."""
        filled = reply.stop is StopReason.LENGTH and most < min(asked, self.terms.cap or asked)
        return replace(reply, stop=StopReason.FULL) if filled else reply

    def _options(self, temperature: float, seed: int, most: int) -> dict[str, Any]:
        # Send all options that change the distribution, because servers have their own defaults.
        given, openai_first = self.endpoint.extra_body, self.endpoint.url.startswith(OPENAI_URL)
        options = {"temperature": temperature, "top_p": 1.0, "seed": seed}
        names = [name for name in (reversed(LIMITS) if openai_first else LIMITS) if name not in self.terms.refused]
        if names and not any(given.get(name) for name in LIMITS):
            options[next((name for name in names if name not in given), names[0])] = most
        kept = {name: value for name, value in options.items() if name not in self.terms.refused}
        return {name: value for name, value in (kept | dict(given)).items() if value is not None}

    def _drop(self, refusal: _RefusedRequest, options: dict[str, Any]) -> bool:
        """Return whether the refusal names an option that later requests do without; log it the first time."""
        option = refused_option(refusal.text, set(options) - set(self.endpoint.extra_body))
        if option is None:
            return False
        if option not in self.terms.refused:
            self.terms.refused.add(option)
            other = next((name for name in LIMITS if option in LIMITS and name not in self.terms.refused), None)
            instead = f"{other} is sent instead" if other else "it is no longer sent"
            log.warning(f"{self.endpoint} does not take {option}; {instead} ({refusal})")
        return True

    async def _try(self, chat: list[dict[str, str]], options: dict[str, Any], rng: Any) -> Reply:
        """Send a request until it is answered. Raises EndpointError, RefusedError or _RefusedRequest."""
        import tenacity

        e = self.endpoint
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_transient),
            stop=tenacity.stop_after_attempt(e.tries),
            wait=lambda state: _pause(state, e.pause, rng.random()),
            before_sleep=self._warn,
            reraise=True,
        )
        if self.refused:
            raise RefusedError(self.refused)
        try:
            reply: Reply = await retrying(self._ask, chat, options)
            return reply
        except Exception as error:
            message = _describe(error, e)
            if _transient(error):
                raise EndpointError(f"{e} gave no answer in {e.tries} tries: {message}") from None
            if not concerns_all(getattr(error, "status_code", 0), text := _text(error)):
                raise _RefusedRequest(message, text) from None
            self.refused = f"{e} refuses: {message}"
            raise RefusedError(self.refused) from None

    async def _ask(self, chat: list[dict[str, str]], options: dict[str, Any]) -> Reply:
        create = self._client.chat.completions.create(model=self.endpoint.name, messages=chat, extra_body=options)
        return read_reply(await asyncio.wait_for(create, self.endpoint.timeout))

    def _warn(self, state: Any) -> None:
        """Log the failure before a retry, at most once in 10 seconds."""
        if time.monotonic() - self._warned > 10:
            self._warned = time.monotonic()
            message, wait = _describe(state.outcome.exception(), self.endpoint), state.next_action.sleep
            log.warning(
                f"waiting for {self.endpoint}, which did not answer: {message}; the next try is in {wait:.0f} s"
            )


class _RefusedRequest(Exception):  # noqa: N818
    """Refusal of one request, with its description and the body of the response."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


def _transient(error: BaseException | None) -> bool:
    """Return whether another try may succeed."""
    import openai

    if isinstance(error, openai.APIStatusError):
        waits = error.status_code in (408, 409, 425, 429) or error.status_code >= 500
        return waits and not (error.status_code == 429 and is_spent(_text(error)))
    return isinstance(error, openai.APIConnectionError | TimeoutError | ValueError | UnreadableError)


def _text(error: BaseException) -> str:
    """Return the body of an error response."""
    return str(getattr(getattr(error, "response", None), "text", ""))


def _pause(state: Any, first: float, draw: float) -> float:
    """Return the seconds until the next try, at most MAX_PAUSE.

    They are a jittered exponential backoff, doubled for each later try, or longer if the server asks.
    """
    asked = getattr(getattr(state.outcome.exception(), "response", None), "headers", {}).get("retry-after", "")
    least = float(asked) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", asked) else 0.0
    grown = first * 2.0 ** int(state.attempt_number - 1)
    return min(MAX_PAUSE, max(least, grown * (0.5 + draw)))


def _describe(error: BaseException, endpoint: Endpoint) -> str:
    """Describe a failure in one line without secrets."""
    import openai

    proxy = proxy_of(endpoint.url)
    if isinstance(error, TimeoutError):
        line = f"no answer within {endpoint.timeout:g} s"
    elif isinstance(error, openai.APIStatusError):
        line = f"status {error.status_code}, {words(_text(error)) or error.response.reason_phrase}"
    elif isinstance(error, openai.APIConnectionError):
        cause = str(error.__cause__ or error)
        hint = certificate_hint() if "CERTIFICATE" in cause else ""
        return _line(f"{proxy or 'it'} cannot be reached ({cause}){hint}", endpoint)
    else:
        line = str(error) if isinstance(error, UnreadableError) else "the answer is not JSON"
    return _line(line, endpoint) + (f", through {_line(proxy, endpoint)}" if proxy else "")


def _line(text: str, endpoint: Endpoint) -> str:
    known = text.replace(endpoint.key, f"<{KEY}>") if len(endpoint.key) >= SHORT else text
    return " ".join(without_secrets(known).split())[:MAX_MESSAGE]
