"""Turns of chats on their way to the store: those that come while it syncs share the next transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from codots.agent.records import Said
from codots.agent.store import Store

Waiting = tuple[Said, asyncio.Future[None]]


class Recorder:
    """Records the turns of one event loop. A disk that syncs slowly delays them, but does not limit their rate."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._waiting: list[Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, said: Said) -> None:
        """Record a turn. It is durable at the end. Raises what `Store.record` raises."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((said, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            now, self._waiting = self._waiting, []
            for (_, done), error in zip(now, await self._write_all(now), strict=True):
                if done.done():  # the client is gone
                    continue
                if error:
                    done.set_exception(error)
                else:
                    done.set_result(None)
        self._writing = None

    async def _write_all(self, turns: list[Waiting]) -> Sequence[Exception | None]:
        try:
            return await asyncio.to_thread(self.store.record_all, [said for said, _ in turns])
        except Exception as error:
            return [error] * len(turns)
