"""The KV cache of a sampler: one slot per session, with shared prefixes copied between slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from codots.model.attention import shared_prefix

BLOCK = 8
"""Block size, in ids, of the prefix search; a shorter common prefix is computed again."""


@dataclass(frozen=True)
class Reading:
    """A slot with ids left to compute, in one pass or several."""

    slot: int
    length: int
    """Number of ids in the slot."""
    new: list[int]
    """Ids to compute next."""
    opening: bool
    """Whether keys and values may be copied from and to slots with a common prefix."""


class SlotCache:
    """Keys and values of all sessions, one row of the store each, written at any position.

    The contents of a slot stay until they are overwritten. A new session copies a common prefix from another slot
    instead of computing it.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.held: dict[int, list[int]] = {}
        """The ids whose keys and values are in each slot."""
        self._latest: dict[int, int] = {}
        """The latest slot that began with these blocks, by their hash."""

    def open(self, openings: Sequence[tuple[int, list[int]]]) -> list[int]:
        """Assign slots to new ids; return how many of each are cached already, some of them copied in the next pass."""
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
        """Choose the ids of the next pass: at most `budget`, shared evenly, but at least one for each row.

        Returns for each row the length it starts from, copied ids included, and how many ids it computes.
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
        """Clear these slots with zeros, because a number that is not finite spreads even where it is masked."""
        for slot in slots:
            self.held.pop(slot, None)
            for store in (store for layer in self.layers for store in layer if slot < store.shape[0]):
                store[slot] = 0

    def _longest(self, ids: list[int]) -> tuple[int, int]:
        """Return the slot with the longest common prefix, and the length of the prefix."""
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
        """Set where the next pass writes, and the slots and width that it needs."""
        self.slots_N, self.positions_N, self.slots, self.width = slots_N, positions_N, slots, width
        self._lines: dict[tuple[int, ...], torch.Tensor] = {}

    def hold(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values, (N, heads, dim); return the whole stores, (slots, heads, width, dim)."""
        while layer >= len(self.layers):
            self.layers.append((keys.new_zeros(0, 0, 0, 0), values.new_zeros(0, 0, 0, 0)))
        held, new = self.layers[layer], (keys, values)
        self.layers[layer] = (self._written(held[0], new[0]), self._written(held[1], new[1]))
        return self.layers[layer]

    def _written(self, store: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        if self.width > store.shape[2] or self.slots > store.shape[0]:
            store = self._grown(store, new)
        store.flatten(0, 2).index_copy_(0, self._lines_of(store), new.flatten(0, 1))
        for slot, source, length in self.copies:  # in order: a source may itself have just been copied to
            store[slot, :, :length] = store[source, :, :length]
        return store

    def _lines_of(self, store: torch.Tensor) -> torch.Tensor:
        """Return where the pass writes in a store viewed as lines of (dim,): one line for each id and head."""
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
    """Split a budget evenly: each gets at least 1 and no more than wanted."""
    given, left = [0] * len(wanted), budget
    for done, i in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        given[i] = max(1, min(wanted[i], left // (len(wanted) - done)))
        left = max(0, left - given[i])
    return given


def bytes_per_id(model: Any) -> int:
    """Return the bytes of the keys and values of one id."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


def block_hashes(ids: list[int]) -> Iterator[int]:
    """Hash the first block of these ids, the first two, and so on."""
    hashed = 0
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        hashed = hash((hashed, *ids[end - BLOCK : end]))
        yield hashed
