"""A sampler in this process: one lockstep batch over growing sessions with a KV cache."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Self, cast

import numpy as np
import torch

from codots.core.rng import Names, stream
from codots.core.transcript import Sampled, StopReason
from codots.model.attention import Rows, run
from codots.model.kind import max_positions, text_config
from codots.model.path import path_of
from codots.sampler.base import CACHE_BYTES, SESSIONS, SamplingParams
from codots.sampler.cache import SlotCache, bytes_per_id
from codots.sampler.draw import inverse_cdf
from codots.sampler.plain import PlainCache


@dataclass
class Request:
    """One answer that is being sampled."""

    session: LocalSession
    new: list[int]
    params: SamplingParams
    draws: list[float]
    """Uniform random numbers, one for each id that may be sampled."""
    done: asyncio.Future[Sampled]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    """Versions of the ids that older weights sampled; all later ids are of the current weights."""


class LocalSession:
    """One sequence and its slot in the cache."""

    def __init__(self, sampler: LocalSampler, names: Names) -> None:
        self.sampler = sampler
        self.names = names
        self.length = 0
        """Number of token ids in the cache."""
        self.pending: list[int] = []
        """Token ids that are not cached yet: the last sampled id, or all earlier ids of a new branch."""
        self.turn = 0
        self.slot = -1
        self.opened_at = 0

    async def __aenter__(self) -> Self:
        await self.sampler._enter(self)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.sampler._leave(self)

    async def sample(self, ids: list[int], params: SamplingParams) -> Sampled:
        """Append new ids and sample an answer. Logprobs are those of the distribution that was sampled from."""
        self._check_open()
        return await self.sampler._sample(self, ids, params)

    def fork(self, names: Names) -> LocalSession:
        """Return a branch of this session. Enter the branch before use. The prefix is copied, not computed again."""
        self._check_open()
        branch = LocalSession(self.sampler, names)
        branch.pending = [*self.sampler.held(self), *self.pending]
        return branch

    def _check_open(self) -> None:
        if self.slot < 0 or self.opened_at != self.sampler.generation:
            raise RuntimeError(
                "this session is closed, was cancelled, or lost its cache when other weights were loaded"
            )


class LocalSampler:
    """Sampler of a causal LM in this process.

    The batch decodes as soon as every open session has a request. Rows are in the order of their slots, so that equal
    seeds give equal numbers. More sessions than `max_sessions`, or than fit in the cache at full length, wait.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: frozenset[int],
        *,
        max_sessions: int = SESSIONS,
        max_length: int | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.model, self.path = model, path_of(model)
        self.device = model.device
        self.stop_ids = stop_ids
        self.max_length = min(max_positions(text_config(model)), max_length or 2**31)
        self.version = 0
        self.generation = 0
        """Number of times that weights were loaded."""
        self.sampled_tokens = 0
        self.longest_pass = 0.0
        """Seconds of the longest forward pass since this was set to 0."""
        self._cache = self._empty_cache()
        self.places = max(1, min(max_sessions, cache_bytes // (self.max_length * bytes_per_id(model))))
        """Number of sessions that are served at once; others wait."""
        self._free = list(range(self.places))
        self._open = 0
        self._waiting: list[Request] = []
        self._active: list[Request] = []
        self._server: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def session(self, names: Names) -> LocalSession:
        """Open a session that draws every random number from `stream(*names, turn)`."""
        return LocalSession(self, names)

    async def load(self, weights: dict[str, torch.Tensor] | None, version: int) -> None:
        """Serve other weights; pass None if the model was changed in place.

        Raises RuntimeError if a session is open.
        """
        if self._open:
            raise RuntimeError(f"cannot load weights while {self._open} sessions are open; close them first")
        if weights is not None:
            self.model.load_state_dict(weights)
        self.version = version
        self.generation += 1
        self._cache = self._empty_cache()

    def _empty_cache(self) -> SlotCache:
        return SlotCache(self.max_length) if self.path.rows else PlainCache(self.model, self.path)

    def held(self, session: LocalSession) -> list[int]:
        """Return the cached token ids of a session."""
        return self._cache.held[session.slot][: session.length] if session.length else []

    def _join_loop(self) -> None:
        """Attach to the running event loop, since a sampler may outlive several loops."""
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop, self._changed, self._room = loop, asyncio.Event(), asyncio.Semaphore(len(self._free))
            self._waiting, self._active = [], []
            self._cache = self._empty_cache()  # results must not depend on earlier rollouts

    async def _enter(self, session: LocalSession) -> None:
        self._join_loop()
        await self._room.acquire()
        session.slot = heapq.heappop(self._free)
        session.opened_at = self.generation
        self._open += 1

    def _leave(self, session: LocalSession) -> None:
        self._forget(session)
        heapq.heappush(self._free, session.slot)
        session.slot = -1
        self._open -= 1
        self._room.release()
        self._changed.set()

    def _forget(self, session: LocalSession) -> None:
        self._waiting = [request for request in self._waiting if request.session is not session]
        self._active = [request for request in self._active if request.session is not session]

    async def _sample(self, session: LocalSession, ids: list[int], params: SamplingParams) -> Sampled:
        # Raise here, because inside the batch one caller's mistake would fail every request.
        if params.max_tokens < 1 or not (ids or session.pending):
            raise ValueError(
                f"max_tokens is {params.max_tokens}, with {len(ids)} new token ids; "
                "expected max_tokens of at least 1, and new ids in the first request"
            )
        room = self.max_length - session.length - len(session.pending) - len(ids)
        if room < 1:
            return Sampled([], [], StopReason.FULL, [])
        draws = stream(*session.names, session.turn).random(min(params.max_tokens, room)).tolist()
        session.turn += 1
        request = Request(session, [*session.pending, *ids], params, draws, asyncio.get_running_loop().create_future())
        self._queue(request)
        self._changed.set()
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve())
        try:
            return await request.done
        except asyncio.CancelledError:
            self._forget(session)
            session.opened_at = -1  # a partial answer cannot be continued
            raise

    def _queue(self, request: Request) -> None:
        self._waiting.append(request)

    async def _serve(self) -> None:
        """Prefill and decode until no request is left."""
        await asyncio.sleep(0)
        while self._waiting or self._active:
            while len(self._waiting) + len(self._active) < self._open:
                self._changed.clear()
                await self._changed.wait()
            batch = sorted(self._waiting + self._active, key=lambda request: request.session.slot)
            self._waiting, self._active = [], []
            try:
                self._choose(batch, self._forward(batch))
                self._active = [request for request in batch if not self._finish(request)]
            except Exception as error:
                self._cache = self._empty_cache()  # a failed pass may have written anything
                for request in batch:
                    request.session.opened_at = -1
                    if not request.done.done():
                        request.done.set_exception(error)
            await asyncio.sleep(0)

    @torch.inference_mode()
    def _forward(self, batch: list[Request]) -> torch.Tensor:
        """Run the model over all new ids of each row."""
        self._compact(batch)
        self._open_slots([request for request in batch if not request.session.length])
        return self._run(batch, [request.new or request.session.pending for request in batch])

    def _run(self, batch: list[Request], news: list[list[int]]) -> torch.Tensor:
        """Run the model over new ids of each row; return the logits after the last, (B, V)."""
        start = monotonic()
        logits_BV = self._read_rows(batch, news) if self.path.rows else self._read_alone(batch, news)
        self.longest_pass = max(self.longest_pass, monotonic() - start)
        for request, new in zip(batch, news, strict=True):
            session = request.session
            self._cache.held[session.slot][session.length :] = new
            session.length += len(new)
            session.pending, request.new = [], []
        return logits_BV

    def _read_alone(self, batch: list[Request], news: list[list[int]]) -> torch.Tensor:
        cache = cast(PlainCache, self._cache)
        sessions = [request.session for request in batch]
        return torch.stack([cache.read(s.slot, s.length, new) for s, new in zip(sessions, news, strict=True)])

    def _read_rows(self, batch: list[Request], news: list[list[int]]) -> torch.Tensor:
        """Run the model over new ids of each row in one pass."""
        counts_B = np.array([len(new) for new in news])
        starts_B, slots_B = np.array([(request.session.length, request.session.slot) for request in batch]).T
        slots_N, ends_B = np.repeat(slots_B, counts_B), np.cumsum(counts_B)
        positions_N = np.arange(ends_B[-1]) + np.repeat(starts_B - ends_B + counts_B, counts_B)
        ids, slots, positions, last = (
            torch.tensor(numbers, device=self.device)
            for numbers in ([id for new in news for id in new], slots_N, positions_N, ends_B - 1)
        )
        self._cache.aim(slots, positions, int(slots_B[-1]) + 1, int((starts_B + counts_B).max()))

        def places(b: np.ndarray, width: int) -> tuple[slice | torch.Tensor, np.ndarray]:
            slots_b, seats_b, queries = slots_B[b], slots_B[b] - slots_B[b[0]], counts_B[b].max()
            # A slice of the cache also covers unused slots, but needs no copy. Per row, a copy costs as much as 12
            # queries, and attending at all as much as 8.
            if (8 + queries) * seats_b[-1] < (20 + queries) * len(b):
                return slice(slots_b[0], slots_b[-1] + 1), seats_b
            return torch.from_numpy(slots_b).to(self.device), np.arange(len(b))

        rows = Rows.of(counts_B, starts_B, places, self._cache.hold, self.device)
        output = run(self.model, ids, positions, rows, logits_to_keep=last)
        logits: torch.Tensor = output.logits[0].float()
        return logits

    def _compact(self, batch: list[Request]) -> None:
        """Move the last sessions to free lower slots, since adjacent rows attend without a copy."""
        for request in reversed(batch):
            if not self._free or self._free[0] > (slot := request.session.slot):
                break
            request.session.slot = heapq.heapreplace(self._free, slot)
            if request.session.length:
                self._cache.move(slot, request.session.slot)
        batch.sort(key=lambda request: request.session.slot)

    def _open_slots(self, requests: list[Request]) -> None:
        known = self._cache.open([(request.session.slot, request.new) for request in requests])
        for request, length in zip(requests, known, strict=True):
            request.session.length, request.new = length, request.new[length:]

    def _choose(self, batch: list[Request], logits_BV: torch.Tensor) -> None:
        """Sample one id per row by inverting the cumulative distribution at the row's own draw."""
        temperatures = [request.params.temperature for request in batch]
        if any(temperature not in (0, 1) for temperature in temperatures):
            logits_BV = logits_BV / self._tensor([temperature or 1.0 for temperature in temperatures])[:, None]
        logprobs_BV = torch.log_softmax(logits_BV, dim=-1)
        ids = inverse_cdf(logprobs_BV.exp(), [request.draws[len(request.ids)] for request in batch])
        if 0 in temperatures:
            greedy = self._tensor([temperature == 0 for temperature in temperatures])
            ids = torch.where(greedy, logits_BV.argmax(-1), ids)
        chosen = logprobs_BV.gather(1, ids[:, None])[:, 0]
        if not bool(torch.isfinite(chosen).all()):
            raise FloatingPointError("the model returned probabilities that are not finite")
        for request, id, logprob in zip(batch, ids.tolist(), chosen.tolist(), strict=True):
            request.ids.append(id)
            request.logprobs.append(logprob)
            request.session.pending = [id]
        self.sampled_tokens += len(batch)

    def _tensor(self, values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, device=self.device)

    def _finish(self, request: Request) -> bool:
        """Return whether the last id of a request ends the answer, and if so resolve the request."""
        if request.ids[-1] in self.stop_ids:
            stop = StopReason.STOP
        elif len(request.ids) == request.params.max_tokens:
            stop = StopReason.LENGTH
        elif request.session.length + 1 == self.max_length:
            stop = StopReason.FULL
        else:
            return False
        if not request.done.done():
            versions = request.versions + [self.version] * (len(request.ids) - len(request.versions))
            request.done.set_result(Sampled(request.ids, request.logprobs, stop, versions))
        return True
