"""Changes of chats on their way to the store: those that come while it syncs share the next transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from codots.agent.changes import Change
from codots.agent.store import Store

Waiting = tuple[Change, asyncio.Future[Any]]


class Recorder:
    """Makes the changes of one event loop. A disk that syncs slowly delays them, but does not limit their rate."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._waiting: list[Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def make(self, change: Change) -> Any:
        """Make a change, and return its result once it is durable. Raises what the change raises."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        while self._waiting:
            now, self._waiting = self._waiting, []
            for (_, done), result in zip(now, await self._make_all(now), strict=True):
                if done.done():  # the client is gone
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)
        self._writing = None

    async def _make_all(self, changes: list[Waiting]) -> Sequence[Any]:
        try:
            return await asyncio.to_thread(self.store.make_all, [change for change, _ in changes])
        except Exception as error:
            return [error] * len(changes)
