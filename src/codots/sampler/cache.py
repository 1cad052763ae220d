"""The KV cache of a sampler: one slot per session, with shared prefixes copied between slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from codots.model.attention import shared_prefix
from codots.model.kind import text_config

BLOCK = 8
"""Block size of the prefix search, in token ids. A common prefix shorter than one block is computed again."""


@dataclass(frozen=True)
class Reading:
    """A slot with token ids to compute, in one pass or several."""

    slot: int
    length: int
    """Number of token ids in the slot."""
    new: list[int]
    """Token ids to compute next."""
    opening: bool
    """Whether keys and values may be copied between this slot and slots with a common prefix."""


class SlotCache:
    """KV cache of all sessions: one row (slot) per session, writable at any position.

    The contents of a slot stay until they are overwritten. A new session copies a common prefix from another slot
    instead of computing it.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.held: dict[int, list[int]] = {}
        """Maps each slot to the token ids whose keys and values it holds."""
        self._latest: dict[int, int] = {}
        """Maps the hash of the first blocks to the latest slot that starts with them."""

    def open(self, openings: Sequence[tuple[int, list[int]]]) -> list[int]:
        """Start new sessions, given as (slot, ids), and return how many leading ids of each need not be computed.

        Some of these ids are in the slot already; the others are copied from another slot in the next pass.
        """
        for slot, ids in openings:  # the last session of a slot may have the same prefix
            self.held[slot] = ids[: shared_prefix(self.held.get(slot, []), ids[:-1])]
        known, self.copies = [], []
        for slot, ids in openings:
            source, length = self._longest(ids[:-1])
            if length > len(self.held[slot]):
                self.copies.append((slot, source, length))
            known.append(max(length, len(self.held[slot])))
            self.held[slot] = list(ids)
            self._latest |= dict.fromkeys(block_hashes(ids), slot)
        return known

    def plan(self, rows: Sequence[Reading], budget: int) -> list[tuple[int, int]]:
        """Choose the ids of the next pass: at most `budget` in total, shared evenly, but at least one for each row.

        Returns for each row the position of the first id to compute, after any copied ids, and the number of ids.
        """
        openings = {row.slot: [*self.held.get(row.slot, [])[: row.length], *row.new] for row in rows if row.opening}
        for row in rows:
            if row.opening and not row.length:  # as in `open`
                ids = openings[row.slot]
                self.held[row.slot] = ids[: shared_prefix(self.held.get(row.slot, []), ids[:-1])]
        found = {}
        for slot, ids in openings.items():  # as if all ids were computed in this pass
            (source, length), own = self._longest(ids[:-1]), len(self.held[slot])
            found[slot] = (source, length, own) if length > own else (slot, own, own)
            self.held[slot] = ids
            self._latest |= dict.fromkeys(block_hashes(ids), slot)
        starts = [found[row.slot][1] if row.opening else row.length for row in rows]
        counts = shares([row.length + len(row.new) - start for row, start in zip(rows, starts, strict=True)], budget)
        self.copies = []
        for i, row in enumerate(rows):
            if row.opening:
                source, length, own = found[row.slot]
                starts[i] = max(own, min(length, len(self.held[source])))  # the budget may have cut the source short
                if starts[i] > own:
                    self.copies.append((row.slot, source, starts[i]))
                self.held[row.slot] = openings[row.slot][: starts[i] + counts[i]]
        return list(zip(starts, counts, strict=True))

    @torch.inference_mode()
    def wipe(self, slots: Sequence[int]) -> None:
        """Fill these slots with zeros, because non-finite numbers spread even from masked positions."""
        for slot in slots:
            self.held.pop(slot, None)
            for store in (store for layer in self.layers for store in layer if slot < store.shape[0]):
                store[slot] = 0

    def _longest(self, ids: list[int]) -> tuple[int, int]:
        """Return the slot with the longest common prefix and the length of the prefix, or (-1, 0) if there is none."""
        source, length = -1, 0
        for end, hashed in enumerate(block_hashes(ids), 1):
            slot = self._latest.get(hashed, -1)
            start = length if slot == source else 0  # ids that were compared already
            if self.held.get(slot, [])[start : end * BLOCK] != ids[start : end * BLOCK]:
                break
            source, length = slot, end * BLOCK
        return source, shared_prefix(self.held[source], ids) if length else 0

    def move(self, source: int, target: int) -> None:
        """Move the contents of one slot to another."""
        self.held[target] = ids = self.held.pop(source)
        self._latest |= dict.fromkeys(block_hashes(ids), target)
        for store in (store for layer in self.layers for store in layer):
            store[target, :, : len(ids)] = store[source, :, : len(ids)]

    def aim(self, slots_N: torch.Tensor, positions_N: torch.Tensor, slots: int, width: int) -> None:
        """Set the slot and position of each id of the next pass, and the numbers of slots and positions to provide."""
        self.slots_N, self.positions_N, self.slots, self.width = slots_N, positions_N, slots, width
        self._lines: dict[tuple[int, ...], torch.Tensor] = {}

    def hold(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the keys and values of a pass, (N, heads, dim), and return the stores, (slots, heads, width, dim)."""
        while layer >= len(self.layers):
            self.layers.append((keys.new_zeros(0, 0, 0, 0), values.new_zeros(0, 0, 0, 0)))
        held, new = self.layers[layer], (keys, values)
        self.layers[layer] = (self._written(held[0], new[0]), self._written(held[1], new[1]))
        return self.layers[layer]

    def _written(self, store: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        if self.width > store.shape[2] or self.slots > store.shape[0]:
            store = self._grown(store, new)
        store.flatten(0, 2).index_copy_(0, self._lines_of(store), new.flatten(0, 1))
        for slot, source, length in self.copies:  # in order, since a source may be the target of an earlier copy
            store[slot, :, :length] = store[source, :, :length]
        return store

    def _lines_of(self, store: torch.Tensor) -> torch.Tensor:
        """Return the lines that the pass writes, one per id and head, in a store viewed as lines of shape (dim,)."""
        heads, width = store.shape[1:3]
        if (heads, width) not in self._lines:
            rows_NH = self.slots_N[:, None] * heads + torch.arange(heads, device=store.device)
            self._lines[heads, width] = (rows_NH * width + self.positions_N[:, None]).flatten()
        return self._lines[heads, width]

    def _grown(self, store: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        slots, _, width, _ = store.shape
        wider = min(max(64, 2 ** (self.width - 1).bit_length()), self.longest)
        grown = new.new_zeros(max(self.slots, slots), new.shape[1], max(wider, width), new.shape[2])
        if store.numel():
            grown[:slots, :, :width] = store
        return grown


def shares(wanted: Sequence[int], budget: int) -> list[int]:
    """Split a budget evenly into shares of at least 1 and at most the wanted number."""
    given, left = [0] * len(wanted), budget
    for done, i in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        given[i] = max(1, min(wanted[i], left // (len(wanted) - done)))
        left = max(0, left - given[i])
    return given


def bytes_per_id(model: Any) -> int:
    """Return the size of the keys and values of one token id, in bytes."""
    config = text_config(model)
    queries = getattr(config, "num_attention_heads", None) or 1  # a model without attention keeps a state instead
    heads = getattr(config, "num_key_value_heads", None) or queries
    width = getattr(config, "head_dim", None) or config.hidden_size // queries
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


def block_hashes(ids: list[int]) -> Iterator[int]:
    """Yield the hash of the first block of these ids, of the first two blocks, and so on."""
    hashed = 0
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        hashed = hash((hashed, *ids[end - BLOCK : end]))
        yield hashed
