"""A model folder as an upstream: chat completions by the sampler in this process."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from codots.agent.chat import Message, leading_rules, text_of
from codots.agent.model import ServedModel
from codots.agent.upstream import Body, UpstreamError
from codots.core.rng import Names
from codots.core.suggest import check_known
from codots.core.transcript import Sampled, StopReason
from codots.model.renderer import Render
from codots.sampler.base import SamplingParams

LIMITS = ("max_completion_tokens", "max_tokens")
TAKEN = {"model", "messages", "temperature", "seed", "stream", "stream_options", "user", "metadata", "store", *LIMITS}
"""Fields of a request that a checkpoint takes."""
NEUTRAL: dict[str, Any] = {"n": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}
"""Fields that it takes only with these values."""


class Checkpoint:
    """Chat completions of a model folder, under one name. A stream has one chunk with the whole reply."""

    def __init__(self, model: ServedModel, name: str) -> None:
        self.model, self.name, self.failures = model, name, Counter[str]()

    async def close(self) -> None:
        """Do nothing: the model belongs to the caller."""

    async def models(self) -> Body:
        """Return the one model."""
        return {"object": "list", "data": [{"id": self.name, "object": "model", "created": 0, "owned_by": "codots"}]}

    async def complete(self, body: Body, names: Names, turn: int) -> Body:
        """Return a chat completion, with random numbers from `stream(*names, turn)`."""
        sampled, prompt_tokens = await self._reply(body, names, turn)
        message = {"role": "assistant", "content": self.model.render.text(sampled.ids)}
        reason = "stop" if sampled.stop is StopReason.STOP else "length"
        count = len(sampled.ids)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count}
        made = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": int(time.time())}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return made | {"model": self.name, "choices": [choice], "usage": usage}

    async def stream(self, body: Body, names: Names, turn: int) -> AsyncIterator[Body]:
        """Yield the chunks of a streamed completion."""
        answer = await self.complete(body, names, turn)
        (choice,) = answer["choices"]
        chunk = {"index": 0, "delta": choice["message"], "finish_reason": choice["finish_reason"]}
        yield answer | {"object": "chat.completion.chunk", "choices": [chunk]}

    async def _reply(self, body: Body, names: Names, turn: int) -> tuple[Sampled, int]:
        check_known(body.get("model", self.name), [self.name], "model")
        for key, value in body.items():
            if key not in TAKEN and value is not None and value != NEUTRAL.get(key, []):
                raise ValueError(f"{key}: a model folder does not take it; serve it with vLLM, and codots before that")
        ids, params = chat_ids(self.model.render, body["messages"]), self._params(body)
        if not isinstance(body.get("seed"), int | None):
            raise ValueError(f"seed is {body['seed']!r}; expected a whole number")
        seed = () if body.get("seed") is None else (str(body["seed"]),)
        sampled = await asyncio.wrap_future(self.model.submit(self._sample((*names, *seed), turn, ids, params)))
        if sampled.stop is StopReason.FULL and not sampled.ids:
            raise UpstreamError("refused", 400, f"the chat of {len(ids)} tokens is too long for the model")
        return sampled, len(ids)

    async def _sample(self, names: Names, turn: int, ids: list[int], params: SamplingParams) -> Sampled:
        session: Any = self.model.sampler.session(names)
        session.turn = turn
        async with session:
            sampled: Sampled = await session.sample(ids, params)
        return sampled

    def _params(self, body: Body) -> SamplingParams:
        most = next((body[key] for key in LIMITS if body.get(key) is not None), self.model.profile.solve_tokens)
        heat = body.get("temperature")
        heat = self.model.profile.temperature if heat is None else heat
        if not isinstance(most, int) or most < 1:
            raise ValueError(f"max_tokens is {most!r}; expected a number of at least 1")
        if not isinstance(heat, int | float) or not 0 <= heat <= 100:
            raise ValueError(f"temperature is {heat!r}; expected a number of at least 0")
        return SamplingParams(most, float(heat))


def _parts(messages: list[Message]) -> Iterator[Message]:
    """Yield the parts of all messages that have several."""
    for message in messages:
        if isinstance(message.get("content"), list):
            yield from message["content"]


def chat_ids(render: Render, messages: list[Message]) -> list[int]:
    """Encode a chat of a user and the model, as `SolveSteps` does turn by turn."""
    if kinds := {part["type"] for part in _parts(messages) if part.get("type", "text") not in ("text", "refusal")}:
        raise ValueError(f"messages: {', '.join(map(str, kinds))}: a model folder reads only text")
    rules = leading_rules(messages)
    rest = messages[len(rules) :]
    roles = [message["role"] for message in rest]
    if roles != ["user", "assistant"] * (len(rest) // 2) + ["user"]:
        raise ValueError(f"messages: {', '.join(roles)}; expected user, assistant, user, ..., after the system prompt")
    ids = render.opening("\n\n".join(map(text_of, rules)), text_of(rest[0]))
    for reply, user in zip(rest[1::2], rest[2::2], strict=True):
        ids += [*render.reply(text_of(reply)), *render.turn(text_of(user), StopReason.STOP)]
    return ids
