"""A sampler in this process with continuous batching: each forward pass serves all current requests."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any, cast

import torch

from codots.core.rng import Names
from codots.core.transcript import Sampled
from codots.sampler.base import SamplingParams
from codots.sampler.cache import Reading
from codots.sampler.local import LocalSampler, LocalSession, Request

PREFILL_BUDGET = 2048
"""Default maximum number of prompt token ids in one forward pass."""


class ContinuousSession(LocalSession):
    """One sequence, which keeps its KV cache slot after a request until another session needs the slot."""

    sampler: ContinuousSampler

    def __init__(self, sampler: ContinuousSampler, names: Names, keep_cache: bool) -> None:
        super().__init__(sampler, names)
        self.keep_cache = keep_cache
        self.opening = True
        """Whether the ids are being computed from the first one on. Only then can prefixes be shared."""
        self.stale = False
        """Whether part of the cache was computed by older weights."""
        self.busy = False
        self.opened_at = -1

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Append new ids and sample an answer. Raises RuntimeError if the session is still sampling another answer."""
        if self.busy:
            raise RuntimeError("this session is already sampling; expected one request at a time")
        self.busy = True
        try:
            return await super().sample(ids, params)
        finally:
            self.busy = False

    def fork(self, names: Names) -> ContinuousSession:
        """Return a branch of this session. Enter the branch before use. A cache of older weights is not copied."""
        self._check_open()
        branch = self.sampler.session(names, keep_cache=self.keep_cache)
        branch.pending = [*self.sampler.held(self), *self.pending]
        return branch

    def drop_cache(self) -> None:
        """Drop the cache, so that all ids are computed again before the next one is sampled."""
        self.pending = [*self.sampler.held(self), *self.pending]
        self.length, self.opening, self.stale = 0, True, False

    def _check_open(self) -> None:
        if self.opened_at < 0:
            raise RuntimeError("this session is closed, was cancelled, or was in a forward pass that failed")


class ContinuousSampler(LocalSampler):
    """Sampler of a causal LM in this process that does not wait for sessions that have no request.

    Slots of the KV cache go to requests in order of arrival. If no slot is free, the session that has been idle longest
    loses its slot, and the next request of that session computes all its ids again. Every request that has a slot is
    part of every forward pass; prompts of more than `prefill_budget` ids in total take several passes. Sessions draw
    the same random numbers as with LocalSampler, and therefore the same ids, up to rounding.
    """

    def __init__(
        self, model: Any, stop_ids: frozenset[int], *, prefill_budget: int = PREFILL_BUDGET, **options: Any
    ) -> None:
        """Accept the options of LocalSampler. `max_sessions` is the maximum number of requests in one forward pass."""
        super().__init__(model, stop_ids, **options)
        self.prefill_budget = prefill_budget
        self._seated: dict[int, ContinuousSession] = {}
        """The session of each occupied slot."""
        self._idle: dict[LocalSession, None] = {}
        """Sessions that have a slot but no request, longest idle first."""

    def session(self, names: Names, *, keep_cache: bool = False) -> ContinuousSession:
        """Open a session that draws every random number from `stream(*names, turn)`.

        With `keep_cache`, the session keeps its cache when other weights are loaded; otherwise the new weights compute
        its ids again. A session that lost its slot has no cache to keep.
        """
        return ContinuousSession(self, names, keep_cache)

    async def load(self, weights: dict[str, torch.Tensor] | None, version: int) -> None:
        """Serve other weights; pass None if the model was changed in place. Answers may be in progress."""
        before, old = self.version, self._cache
        await super().load(weights, version)
        for request in self._active + self._waiting:
            request.versions += [before] * (len(request.ids) - len(request.versions))
        self._cache.layers = old.layers
        for slot, session in self._seated.items():
            self._cache.held[slot] = old.held.get(slot, [])
            if session.keep_cache and session.length:
                session.opening, session.stale = False, True  # no other session copies from it: the prefix index is new
            else:
                session.drop_cache()
                self._cache.held[slot] = []

    def _join_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            for session in list(self._seated.values()):
                self._release(session)
        super()._join_loop()

    async def _enter(self, session: LocalSession) -> None:
        self._join_loop()
        session.opened_at = 0

    def _leave(self, session: LocalSession) -> None:
        for request in self._waiting + self._active:
            if request.session is session and not request.done.done():
                request.done.set_exception(RuntimeError("this session was closed before it had its answer"))
        self._forget(session)
        session.opened_at = -1

    def _forget(self, session: LocalSession) -> None:
        super()._forget(session)
        self._release(session)

    def _release(self, session: LocalSession) -> None:
        """Free the slot of a session. Other sessions may copy from the slot until it is overwritten."""
        self._idle.pop(session, None)
        if session.slot < 0:
            return
        seated = self._seated.pop(session.slot)
        stale = seated.stale
        seated.drop_cache()
        if stale:
            self._cache.held.pop(seated.slot)
        heapq.heappush(self._free, seated.slot)
        seated.slot = -1

    def _queue(self, request: Request) -> None:
        request.session.pending = request.new  # all ids that are not cached, even if the slot is lost meanwhile
        self._idle.pop(request.session, None)
        super()._queue(request)

    async def _serve(self) -> None:
        """Prefill and decode until no request is left."""
        await asyncio.sleep(0)
        while self._waiting or self._active:
            self._seat()
            batch = sorted(self._active, key=lambda request: request.session.slot)
            try:
                self._pass(batch)
            except Exception as error:
                self._fail(batch, error)
            await asyncio.sleep(0)

    def _seat(self) -> None:
        """Assign slots to requests in order of arrival, as long as slots are free or can be freed."""
        while self._waiting:
            session = cast(ContinuousSession, self._waiting[0].session)
            if session.slot < 0:
                if not self._free and not self._evict():
                    return
                session.slot = heapq.heappop(self._free)
                self._seated[session.slot] = session
            self._active.append(self._waiting.pop(0))

    def _evict(self) -> bool:
        """Free the slot of the longest idle session or, if none is idle, of the latest waiting request that has one.

        Return whether a slot was freed.
        """
        last = (request.session for request in reversed(self._waiting) if request.session.slot >= 0)
        session = next(iter(self._idle), None) or next(last, None)
        if session:
            self._release(session)
        return session is not None

    def _pass(self, batch: list[Request]) -> None:
        """Run one forward pass, and sample an id for each request whose prompt is complete."""
        logits_BV = self._forward(batch)
        read = [i for i, request in enumerate(batch) if not request.session.pending]
        if read:
            self._choose([batch[i] for i in read], logits_BV if len(read) == len(batch) else logits_BV[read])
        ended = {id(batch[i]) for i in read if self._finish(batch[i])}
        self._active = [request for request in batch if id(request) not in ended]
        self._idle |= {request.session: None for request in batch if id(request) in ended}

    @torch.inference_mode()
    def _forward(self, batch: list[Request]) -> torch.Tensor:
        """Run the model over as many new ids of each row as the budget allows."""
        if self._free and self._free[0] < batch[-1].session.slot:
            self._compact(batch)
        sessions = [self._seated[request.session.slot] for request in batch]
        readers = [session for session in sessions if session.opening or len(session.pending) > 1]
        rows = [Reading(reader.slot, reader.length, reader.pending, reader.opening) for reader in readers]
        counts = {}
        for reader, (start, count) in zip(readers, self._cache.plan(rows, self.prefill_budget), strict=True):
            reader.pending = reader.pending[start - reader.length :]  # earlier ids are copied
            reader.length, counts[reader.slot] = start, count
        ends = [counts.get(session.slot, 1) for session in sessions]
        rests = [session.pending[end:] for session, end in zip(sessions, ends, strict=True)]
        logits_BV = self._run(batch, [session.pending[:end] for session, end in zip(sessions, ends, strict=True)])
        for session, rest in zip(sessions, rests, strict=True):
            session.pending, session.opening = rest, session.opening and bool(rest)
        return logits_BV

    def _compact(self, batch: list[Request]) -> None:
        sessions = [self._seated.pop(request.session.slot) for request in batch]
        # A move adds a slot to the prefix index, where a cache of older weights must not appear.
        super()._compact([request for request, session in zip(batch, sessions, strict=True) if not session.stale])
        self._seated |= {session.slot: session for session in sessions}
        batch.sort(key=lambda request: request.session.slot)

    def _fail(self, batch: list[Request], error: Exception) -> None:
        """Fail the requests of a failed forward pass, and clear their slots, which may contain anything."""
        slots = [request.session.slot for request in batch]
        for request in batch:
            request.session.length = 0
            request.session.opened_at = -1
            self._forget(request.session)
            if not request.done.done():
                request.done.set_exception(error)
        self._cache.wipe(slots)
