"""Chats of tasks on their way to the upstream: the context goes into the system prompt, and turns are recorded."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from codots.agent import access
from codots.agent.access import told
from codots.agent.changes import Joining, Said
from codots.agent.chat import Chat, Message, StreamedReply, read_chat, text_of, with_system
from codots.agent.checkpoint import Checkpoint
from codots.agent.quotes import contexts_of, without
from codots.agent.recorder import Recorder
from codots.agent.records import Finish, Joined, Outcome, Task, as_json
from codots.agent.sql import reason, sa
from codots.agent.store import Store
from codots.agent.updates import Updater, described, stream_names
from codots.agent.upstream import Body, Upstream, UpstreamError
from codots.context.rewrite import Rewrite, Turn
from codots.context.strategies import strategy_of
from codots.core.redact import without_secrets
from codots.core.rng import Names

NAMED = ("world", "task")
"""Keys of `metadata` that are not passed on."""
DONE = b"data: [DONE]\n\n"
log = logging.getLogger("codots")


@dataclass(frozen=True)
class Asked:
    """A request of a task, ready for the upstream."""

    task: Task
    chat: Chat
    body: Body
    began: float
    """When the request came, by `perf_counter`."""

    @property
    def came(self) -> float:
        """When the request came, in seconds since 1970."""
        return time.time() - (perf_counter() - self.began)

    @property
    def names(self) -> Names:
        """Names of the random stream of the task, as in training."""
        return (*stream_names(self.task.world), self.task.number, "solve")


class Gateway:
    """What the server does with chats. `world` is that of requests that name none.

    `null_share` is the fraction of tasks that get no context.
    """

    def __init__(
        self, store: Store, updater: Updater, upstream: Upstream | Checkpoint, world: str, null_share: float = 0.0
    ) -> None:
        self.store, self.updater, self.upstream, self.world = store, updater, upstream, world
        self.null_share = null_share
        self.style = updater.model.profile.style
        self._recorder = Recorder(store)
        self.chats = Counter[str]()
        """Number of chats by how they ended: `answered`, or the kind of the upstream's error."""
        self.on_added: Callable[[float], None] = lambda seconds: None
        """Called with the seconds that codots added to an answered chat."""

    async def ask(self, body: Body, world: str | None, task: str | None, began: float) -> Asked:
        """Find or start the task of a request, and put its context in place. Headers come before `metadata`."""
        metadata = body.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise ValueError("metadata: expected an object")
        named = [metadata.get(key) for key in NAMED]
        if not all(name is None or isinstance(name, str) for name in named):
            raise ValueError("metadata: expected texts as world and task")
        others = {key: value for key, value in metadata.items() if key not in NAMED}
        kept = {"metadata": others} if others else {}
        body = {key: value for key, value in body.items() if key != "metadata"} | kept
        chat = read_chat(body.get("messages"))
        at = world or named[0] or self.world
        access.check(at, write=True)
        wanted = Joining(at, task or named[1], chat.name, chat.rules, chat.description)
        if (joined := await self._find(wanted)) is None:
            new = replace(wanted, said=chat.history(), null_share=self.null_share)
            joined = await self._recorder.make(new)
        strategy = strategy_of(joined.strategy)
        assert isinstance(strategy, Rewrite)
        prompt = strategy.solve(chat.rules, joined.context, joined.task.description, self.style)
        body["messages"] = with_system(body["messages"], prompt.system)
        return Asked(joined.task, chat, body, began)

    async def _find(self, wanted: Joining) -> Joined | None:
        if self.store.file:  # a read of SQLite takes less time than its way through a thread
            return self.store.find(wanted)
        return await asyncio.to_thread(self.store.find, wanted)

    async def complete(self, asked: Asked) -> Body:
        """Return the upstream's completion, once its turn is recorded."""
        sent = perf_counter()
        with self._counting(asked.task):
            answer = await self.upstream.complete(asked.body, asked.names, asked.chat.position)
        answered = perf_counter()
        await self._record(asked, answer["choices"][0]["message"])
        self._count(asked, answered - sent)
        return answer

    async def stream(self, asked: Asked) -> AsyncIterator[bytes]:
        """Yield the events of a streamed completion. Its turn is recorded before the last one.

        Raises UpstreamError before the first event. A later error is an event, and the turn is not recorded.
        """
        reply, waited, sent, started = StreamedReply(), 0.0, perf_counter(), False
        try:
            with self._counting(asked.task):
                async for chunk in self.upstream.stream(asked.body, asked.names, asked.chat.position):
                    waited += perf_counter() - sent
                    reply.add(chunk)
                    started = True
                    yield event(chunk)
                    sent = perf_counter()
        except UpstreamError as error:
            if not started:
                raise
            yield event({"error": told(str(error), error.kind)})
            return
        try:
            await self._record(asked, reply.message)
        except ValueError as error:
            yield event({"error": told(access.explained(error), "invalid_request_error")})
            return
        except sa.exc.SQLAlchemyError as error:
            yield event({"error": told(without_secrets(reason(error)), "server_error")})
            return
        self._count(asked, waited)
        yield DONE

    def start(self, world: str, description: str, rules: str, name: str | None = None) -> tuple[Task, str]:
        """Start a task without a chat, and return it with the context that it is given."""
        task = self.store.start(world, description, rules, name, self.null_share)
        return task, self.store.given(task)

    def finish(self, world: str, task: str, told: Outcome) -> Finish:
        """End a task, and run its update in the background. Contexts that its replies quote are not recorded."""
        known = contexts_of(self.store, self.store.task(world, task), self.store.head(world))
        turns = tuple(replace(turn, reply=without(known, turn.reply)) for turn in told.turns)
        finish = self.store.finish(world, task, replace(told, turns=turns))
        self.updater.wake(world)
        return finish

    async def version_after(self, world: str, number: int, seconds: float) -> dict[str, Any]:
        """Return the version that learned from a finish, or None if it is not written in time, and why."""
        if not seconds:
            return {"version": None}
        waiting = self.updater.model.submit(self.updater.version_after(world, number))
        try:
            return {"version": as_json(await asyncio.wait_for(asyncio.wrap_future(waiting), seconds))}
        except TimeoutError:
            return {"version": None}
        except Exception as error:
            return {"version": None, "error": described(error)}

    async def _record(self, asked: Asked, message: Message) -> None:
        turn, of = Turn(asked.chat.observation, text_of(message)), asked.task
        await self._recorder.make(Said(of.world, of.name, asked.chat.position, turn, asked.came))

    def _count(self, asked: Asked, waited: float) -> None:
        self.chats["answered"] += 1
        self.on_added(perf_counter() - asked.began - waited)

    @contextmanager
    def _counting(self, task: Task) -> Iterator[None]:
        try:
            yield
        except UpstreamError as error:
            self.chats[error.kind] += 1
            log.warning(f"a chat of {task.world}, task {task.name}, failed: {error}")
            raise


def event(data: Any) -> bytes:
    """Return one event of a stream."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
