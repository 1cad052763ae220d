"""A sampler in this process: one batch over growing sessions, each with its own cache."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch

from codots.pack import Names, stream
from codots.sampler.base import Params
from codots.transcript import Sampled, StopReason

SHORT = 16
"""Ids that a move's answer rarely passes; longer prompts are read apart."""


class SlotCache:
    """Keys and values of all sessions, a row each, written at any position.

    It stands in for a transformers `Cache`: `update` stores what a forward pass computed and gives back all that
    the pass may look at. Rows are ragged; the attention mask of the pass keeps each within its own length.
    """

    def __init__(self) -> None:
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def aim(self, rows: torch.Tensor | slice, positions_BT: torch.Tensor, width: int, slots: int) -> None:
        """Say where the next pass writes and how far it may look."""
        self.rows, self.positions_BT, self.width, self.slots = rows, positions_BT, width, slots

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any) -> Any:
        """Store (B, heads, T, dim) and return (B, heads, width, dim)."""
        while layer >= len(self.layers):
            self.layers.append((keys.new_zeros(0), values.new_zeros(0)))
        self.layers[layer] = (self._write(self.layers[layer][0], keys), self._write(self.layers[layer][1], values))
        return tuple(store[self.rows, :, : self.width] for store in self.layers[layer])

    def _write(self, store: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        if store.ndim == 1 or self.width > store.shape[2] or self.slots > store.shape[0]:
            store = self._grown(store, new)
        row_of = torch.arange(store.shape[0])[self.rows][:, None]
        store[row_of, :, self.positions_BT] = new.transpose(1, 2)
        return store

    def _grown(self, store: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        rows, width = self.slots, max(64, 2 ** (self.width - 1).bit_length())
        if store.ndim > 1:
            rows, width = max(rows, store.shape[0]), max(width, store.shape[2])
        grown = new.new_zeros(rows, new.shape[1], width, new.shape[3])
        if store.ndim > 1:
            grown[: store.shape[0], :, : store.shape[2]] = store
        return grown

    def get_seq_length(self, layer: int = 0) -> int:
        """Positions are given to the model explicitly; there is no common length."""
        return 0


@dataclass
class Request:
    """One answer under way."""

    session: LocalSession
    new: list[int]
    params: Params
    draws: np.ndarray
    """One uniform number for each id that may be sampled."""
    done: asyncio.Future[Sampled]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def alike(batch: list[Request]) -> list[list[Request]]:
    """Part requests by how many ids they read, so that a move is not padded to a whole prompt."""
    short = [request for request in batch if len(request.new) <= SHORT]
    long = [request for request in batch if len(request.new) > SHORT]
    return [part for part in (short, long) if part]


class LocalSession:
    """One row of the cache."""

    def __init__(self, sampler: LocalSampler, names: Names) -> None:
        self.sampler = sampler
        self.names = names
        self.length = 0
        """Ids in the cache."""
        self.pending: list[int] = []
        """The last sampled id, which the cache does not hold yet."""
        self.turn = 0
        self.slot = -1
        self.opened_at = 0

    async def __aenter__(self) -> Self:
        await self.sampler._enter(self)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.sampler._leave(self)

    async def sample(self, ids: list[int], params: Params) -> Sampled:
        """Read new ids and sample an answer; logprobs are those of the distribution sampled from."""
        if self.slot < 0 or self.opened_at != self.sampler.generation:
            raise RuntimeError("this session is closed, was cancelled, or lost its cache when other weights came")
        return await self.sampler._sample(self, ids, params)


class LocalSampler:
    """Sample from a causal LM held in this process.

    The batch decodes whenever every open session waits for it, rows in the order they were opened, so that equal
    seeds give equal numbers. Sessions past `max_sessions` queue.
    """

    def __init__(self, model: Any, stop_ids: frozenset[int], *, max_sessions: int = 256) -> None:
        self.model = model
        self.stop_ids = stop_ids
        self.max_length = int(model.config.max_position_embeddings)
        self.version = 0
        self.generation = 0
        """Counts the times that the cache was dropped."""
        self.sampled_tokens = 0
        self._cache = SlotCache()
        self._free = list(range(max_sessions))
        self._open = 0
        self._waiting: list[Request] = []
        self._active: list[Request] = []
        self._server: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def session(self, names: Names) -> LocalSession:
        """Open a session whose every draw comes from `stream(*names, turn)`."""
        return LocalSession(self, names)

    async def load(self, weights: dict[str, torch.Tensor] | None, version: int) -> None:
        """Serve other weights, or None for the same model changed in place; no session may be open."""
        if self._open:
            raise RuntimeError(f"{self._open} sessions are open; an episode never spans two versions of the weights")
        if weights is not None:
            self.model.load_state_dict(weights)
        self.version = version
        self.generation += 1
        self._cache = SlotCache()

    def _join_loop(self) -> None:
        """Belong to the running event loop; one sampler may outlive many."""
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop, self._moved, self._room = loop, asyncio.Event(), asyncio.Semaphore(len(self._free))
            self._waiting, self._active = [], []

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
        self._moved.set()

    def _forget(self, session: LocalSession) -> None:
        self._waiting = [request for request in self._waiting if request.session is not session]
        self._active = [request for request in self._active if request.session is not session]

    async def _sample(self, session: LocalSession, ids: list[int], params: Params) -> Sampled:
        # Refused here: inside the batch, one caller's mistake would be everybody's failure.
        if params.max_tokens < 1 or not (ids or session.pending):
            raise ValueError(f"{params.max_tokens} ids wanted after {len(ids)} new ones; expected at least 1 of each")
        room = self.max_length - session.length - len(session.pending) - len(ids)
        if room < 1:
            return Sampled([], [], StopReason.FULL, self.version)
        draws = stream(*session.names, session.turn).random(params.max_tokens)
        session.turn += 1
        request = Request(session, [*session.pending, *ids], params, draws, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._moved.set()
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve())
        try:
            return await request.done
        except asyncio.CancelledError:
            self._forget(session)
            session.opened_at = -1  # half an answer is nothing to go on from
            raise

    async def _serve(self) -> None:
        """Prefill and decode until nobody waits."""
        await asyncio.sleep(0)
        while self._waiting or self._active:
            while len(self._waiting) + len(self._active) < self._open:
                self._moved.clear()
                await self._moved.wait()
            batch = sorted(self._waiting + self._active, key=lambda request: request.session.slot)
            self._waiting, self._active = [], []
            try:
                self._advance(batch)
                self._active = [request for request in batch if not self._finish(request)]
            except Exception as error:
                for request in batch:
                    if not request.done.done():
                        request.done.set_exception(error)
            await asyncio.sleep(0)

    def _advance(self, batch: list[Request]) -> None:
        """Run one pass over all who wait: new requests read their prompt, the others their last id."""
        for part in alike(batch):
            self._choose(part, self._forward(part))

    @torch.inference_mode()
    def _forward(self, batch: list[Request]) -> torch.Tensor:
        """Run the model over the new ids of each row; gives the logits after the last, (B, vocabulary)."""
        news = [request.new or request.session.pending for request in batch]
        lengths = torch.tensor([request.session.length for request in batch])
        slots = torch.tensor([request.session.slot for request in batch])
        most = max(map(len, news))
        ids_BT = torch.tensor([new + [0] * (most - len(new)) for new in news])
        positions_BT = lengths[:, None] + torch.arange(most)
        width = int(positions_BT.max()) + 1
        # Where the rows are the first of the cache, a slice spares a copy of it.
        rows = slice(0, len(batch)) if int(slots[-1]) == len(batch) - 1 else slots
        self._cache.aim(rows, positions_BT, width, max(int(slots[-1]) + 1, len(batch)))
        visible = torch.arange(width) <= positions_BT[:, :, None]
        last = torch.tensor([len(new) - 1 for new in news])
        kept, where = torch.unique(last, return_inverse=True)
        output = self.model(
            input_ids=ids_BT,
            position_ids=positions_BT,
            attention_mask=visible[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=kept,
        )
        for request, new in zip(batch, news, strict=True):
            request.session.length += len(new)
            request.session.pending = []
            request.new = []
        logits: torch.Tensor = output.logits[torch.arange(len(batch)), where].float()
        return logits

    def _choose(self, batch: list[Request], logits_BV: torch.Tensor) -> None:
        """Sample one id a row by inverting the cumulative distribution at the row's own draw."""
        temperatures = torch.tensor([request.params.temperature for request in batch])
        greedy = temperatures == 0
        logprobs_BV = torch.log_softmax(logits_BV / torch.where(greedy, 1.0, temperatures)[:, None], dim=-1)
        draws = torch.tensor([request.draws[len(request.ids)] for request in batch], dtype=torch.float64)
        cumulative = logprobs_BV.double().exp().cumsum(-1)
        ids = torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True)[:, 0]
        ids = torch.where(greedy, logits_BV.argmax(-1), ids.clamp(max=logits_BV.shape[-1] - 1))
        chosen = logprobs_BV.gather(1, ids[:, None])[:, 0]
        if not bool(torch.isfinite(chosen).all()):
            raise FloatingPointError("the model gave probabilities that are not finite")
        for request, id, logprob in zip(batch, ids.tolist(), chosen.tolist(), strict=True):
            request.ids.append(id)
            request.logprobs.append(logprob)
            request.session.pending = [id]
        self.sampled_tokens += len(batch)

    def _finish(self, request: Request) -> bool:
        """Answer a request whose last id ended it."""
        if request.ids[-1] in self.stop_ids:
            stop = StopReason.STOP
        elif len(request.ids) == request.params.max_tokens:
            stop = StopReason.LENGTH
        elif request.session.length + 1 == self.max_length:
            stop = StopReason.FULL
        else:
            return False
        if not request.done.done():
            request.done.set_result(Sampled(request.ids, request.logprobs, stop, self.version))
        return True
