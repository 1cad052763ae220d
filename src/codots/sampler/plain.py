"""The cache of a sampler for a model that reads each sequence alone: the model's own cache for every slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from codots.model.path import ForwardPath, last_only
from codots.sampler.cache import Reading, SlotCache


class PlainCache(SlotCache):
    """The ids of all sessions, and the model's own cache of those that decode.

    Layers with a state, such as linear attention, do not continue correctly with several ids in every version of
    transformers. So a session's ids are read again with each turn, in a fresh cache, and then decoded one by one.
    """

    def __init__(self, model: Any, path: ForwardPath) -> None:
        super().__init__(0)
        self.model, self.path = model, path
        self._last_only = last_only(model)
        self._own: dict[int, tuple[Any, int]] = {}
        """The model's cache of a slot, and the number of ids in it."""

    def open(self, openings: Sequence[tuple[int, list[int]]]) -> list[int]:
        """Assign slots to new ids; none are cached."""
        self.held |= {slot: [] for slot, _ in openings}
        return [0] * len(openings)

    def plan(self, rows: Sequence[Reading], budget: int) -> list[tuple[int, int]]:
        """Choose all ids for the next pass, since a prompt cannot be read in several."""
        for row in rows:
            self.held[row.slot] = self.held.get(row.slot, [])[: row.length]
        return [(row.length, len(row.new)) for row in rows]

    def wipe(self, slots: Sequence[int]) -> None:
        """Clear these slots."""
        for slot in slots:
            self.held.pop(slot, None)
            self._own.pop(slot, None)

    def move(self, source: int, target: int) -> None:
        """Move the contents of one slot to another."""
        self.held[target] = self.held.pop(source)
        self._own.pop(target, None)
        if source in self._own:
            self._own[target] = self._own.pop(source)

    def read(self, slot: int, length: int, new: list[int]) -> torch.Tensor:
        """Run the model over the new ids of a slot that holds `length` ids; return the logits after the last, (V,)."""
        own, held = self._own.pop(slot, (None, 0))
        total = length + len(new)
        switched = any(length <= switch < total for switch in self.path.switches)
        if own is None or held != length or len(new) > 1 or switched:
            own, new = None, [*self.held[slot][:length], *new]
        ids = torch.tensor([new], device=self.model.device)
        output = self.model(input_ids=ids, past_key_values=own, use_cache=self.path.cached, **self._last_only)
        if self.path.cached:
            self._own[slot] = (output.past_key_values, total)
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits
