"""A model that stays open for years: its sampler runs in an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from codots.engine.open import OpenModel
from codots.model.alphabet import make_render
from codots.model.renderer import Render
from codots.sampler.base import Sampler
from codots.sampler.openai import EndpointSampler

T = TypeVar("T")


class ServedModel:
    """A model folder, or `openai:NAME`, whose sampler serves any number of episodes at once.

    Takes the options of `OpenModel`.
    """

    def __init__(self, model: str | Path, **options: Any) -> None:
        self.opened = OpenModel(model, None, **options)
        self.profile = self.opened.profile
        endpoint = self.opened.endpoint
        self.name = str(endpoint) if endpoint else f"{model}@{self.opened.identity}"
        """Name of the model in versions: its folder with a hash of the files, or its endpoint."""
        self._exits = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.sampler: Sampler
        self.render: Render
        try:
            self.sampler, self.render = self.call(self._open())
        except BaseException:
            self.close()
            raise

    async def _open(self) -> tuple[Sampler, Render]:
        if self.opened.endpoint:
            return await self._exits.enter_async_context(EndpointSampler(self.opened.endpoint)), make_render()
        from codots.engine.plan import Plan, continuous
        from codots.engine.worker import Worker  # only a local model needs torch

        plan = Plan(self.opened.folder, self.profile, None, make_sampler=continuous, place=self.opened.place)
        worker = Worker(plan)
        return worker.sampler, worker.render

    @property
    def refuses_all(self) -> bool:
        """Whether the endpoint has refused a request for a reason that concerns every request, such as a wrong key."""
        return isinstance(self.sampler, EndpointSampler) and bool(self.sampler.refused)

    def ask_again(self) -> None:
        """Send the next requests, even if the endpoint has refused every request before."""
        if isinstance(self.sampler, EndpointSampler):
            self.sampler.refused = ""

    def check_open(self) -> None:
        """Raise ValueError if the model is closed."""
        if self._loop.is_closed():
            raise ValueError("the agent is closed; expected calls before close() or the end of its with block")

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the model's event loop. Raises ValueError if the model is closed."""
        try:
            self.check_open()
        except ValueError:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine in the model's event loop, and return its result. After a timeout or Ctrl-C, cancel it."""
        future = self.submit(work)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is running, and end the thread."""
        if self._loop.is_closed():
            return
        self.submit(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._exits.aclose()
        await self._loop.shutdown_default_executor()
