"""Attention over rows of unlike length, for any Hugging Face causal LM: every id is run once, and none is padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from codots.model.fast_layers import slim

NAME = "codots"
"""Of this attention among those that transformers knows."""
UNHEARD = ("softcap", "s_aux", "position_bias")
"""What some models ask of their attention that this one does not do."""


SHORT = 8
"""Rows that run from two ids to this many attend together; longer ones with those of up to twice their length."""
Hold = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
Places = Callable[[np.ndarray, int], tuple[slice | Tensor, np.ndarray]]


@dataclass(frozen=True)
class Part:
    """Some rows of a pass, padded to the longest for the attention alone.

    Row b asks with up to T ids of the pass and may look at its first W keys; the key at place j is that of position j.
    """

    asks_BT: Tensor
    """Which ids of the pass ask; padding repeats any."""
    positions_BT: Tensor
    rows: slice | Tensor
    """Where keys lie: rows of a store of (rows, heads, width, dim), or (B, W) places of one of (places, heads, dim)."""
    width: int
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, like: Tensor) -> Tensor:
        """What is added for each id to each key, (B, 1, T, W): nothing, or minus infinity where it may not look."""
        if window not in self._masks:
            ahead = torch.arange(1 - self.width, self.width, device=like.device)
            hidden = ahead > 0 if window is None else (ahead > 0) | (ahead <= -window)
            line = torch.zeros_like(ahead, dtype=like.dtype).masked_fill_(hidden, -torch.inf)
            # What an id sees is the same line for all, moved by its position.
            self._masks[window] = line.unfold(0, self.width, 1)[self.width - 1 - self.positions_BT][:, None]
        return self._masks[window]

    def of(self, store: Tensor) -> Tensor:
        """Take the keys or values of these rows, (B, heads, W, dim)."""
        if isinstance(self.rows, slice):
            return store[self.rows, :, : self.width]
        if self.rows.ndim == 1:
            return store[:, :, : self.width].index_select(0, self.rows)
        taken = store.index_select(0, self.rows.flatten()).view(*self.rows.shape, *store.shape[1:])
        return taken.transpose(1, 2)


@dataclass(frozen=True)
class Rows:
    """How the ids of one pass attend.

    `hold` is given the layer and what the pass computed, keys and values of (N, heads, dim), and gives back the two
    stores in which the parts find theirs.
    """

    parts: Sequence[Part]
    order_N: Tensor
    """Where each id of the pass stands among what the parts ask, one part after the other."""
    hold: Hold
    shared: dict[str, Any] = field(default_factory=dict)
    """What one layer made that the next can use."""

    @classmethod
    def of(cls, counts_B: np.ndarray, starts_B: np.ndarray, places: Places, hold: Hold, device: Any = "cpu") -> Rows:
        """Lay out a pass: row b runs `counts_B[b]` ids from position `starts_B[b]` on, one row after the other.

        Rows of about the same length attend together, those of one id apart: they are the most, and ask the least.
        `places` says where the keys of such rows lie, given their numbers and how many keys the longest has, and which
        place of those is each row's, in order, the last of them the last row's.
        """
        firsts_B, order_N, parts, asked = np.cumsum(counts_B) - counts_B, np.empty(counts_B.sum(), np.int64), [], 0
        sizes_B = np.where(counts_B > 1, np.ceil(np.log2(np.maximum(counts_B, SHORT))), 0)
        for size in np.unique(sizes_B[counts_B > 0]):
            b = np.flatnonzero((sizes_B == size) & (counts_B > 0))
            most, width = counts_B[b].max(), int((starts_B + counts_B)[b].max())
            rows, seats_b = places(b, width)
            steps_bT = np.minimum(np.arange(most), counts_B[b, None] - 1)
            # A place between that is nobody's asks for the first id, and nobody hears the answer.
            asks_BT, positions_BT = np.zeros((2, seats_b[-1] + 1, most), np.int64)
            asks_BT[seats_b], positions_BT[seats_b] = firsts_B[b, None] + steps_bT, starts_B[b, None] + steps_bT
            answers_bT = asked + seats_b[:, None] * most + np.arange(most)
            order_N[asks_BT[seats_b, ::-1]] = answers_bT[:, ::-1]
            asked += asks_BT.size
            asks, positions = (torch.from_numpy(array).to(device) for array in (asks_BT, positions_BT))
            parts.append(Part(asks, positions, rows, width))
        return cls(parts, torch.from_numpy(order_N).to(device), hold)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, **how: Any) -> Tensor:
        """Give what each id found, (N, heads, dim)."""
        keys, values = self.hold(layer, key, value)
        window, scale = how.get("sliding_window"), how.get("scaling")
        found = []
        for part in self.parts:
            asks = query.index_select(0, part.asks_BT.flatten()).view(*part.asks_BT.shape, *query.shape[1:])
            held = part.of(keys)
            answer = scaled_dot_product_attention(
                asks.transpose(1, 2),
                held,
                part.of(values),
                attn_mask=part.mask(window, query),
                scale=scale,
                enable_gqa=held.shape[1] != query.shape[1],
            )
            found.append(answer.transpose(1, 2).flatten(0, 1))
        return torch.cat(found).index_select(0, self.order_N)


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **how: Any) -> tuple[Tensor, None]:
    """Attend by the rows of the pass; a plain call of the model, which has none, gets what it gets elsewhere."""
    rows: Rows | None = how.pop("rows", None)
    if rows is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **how)
        return plain
    if asked := [name for name in UNHEARD if how.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} asks for {asked[0]}, which this attention does not do")
    flat = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return rows.attend(module.layer_idx, *flat, **how)[None], None


def teach(model: Any) -> Any:
    """Give a model this attention; called plainly it does what it did."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return slim(model)


def run(model: Any, ids_N: Tensor, positions_N: Tensor, rows: Rows, **more: Any) -> Any:
    """Run a model, or the part of one below its head, over the ids of one pass."""
    unmasked = ids_N.new_ones(1, 1, 1, 1)  # what a row may look at is its own affair: no mask is to be made
    return model(
        input_ids=ids_N[None],
        position_ids=positions_N[None],
        attention_mask=unmasked,
        use_cache=False,
        rows=rows,
        **more,
    )


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the ids with which both begin."""
    differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))
