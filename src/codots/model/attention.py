"""Attention over rows of different lengths without padding, for any Hugging Face causal LM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from codots.model.fast_layers import use_fast_layers

NAME = "codots"
"""Name of this attention in the registry of transformers."""
UNSUPPORTED = ("softcap", "s_aux", "position_bias")
"""Attention options of some models that this attention does not support."""
SHORT = 8
"""Rows with two to this many new ids share a part. Longer rows are grouped by length, rounded up to a power of two."""
SCORES = 2**24
"""Largest number of scores of a part that attends by plain products, in half precision on a CPU."""
Store = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
Places = Callable[[np.ndarray, int], tuple[slice | Tensor, np.ndarray]]


@dataclass(frozen=True)
class Part:
    """Some rows of a pass, padded to the longest row for the attention only.

    Row b has up to T queries and attends to its first W keys; the key at index j has position j.
    """

    queries_BT: Tensor
    """Indices of the queries among the ids of the pass; padding repeats an index."""
    positions_BT: Tensor
    rows: slice | Tensor
    """Rows of a key store of (rows, heads, width, dim), or (B, W) indices into a key store of (ids, heads, dim)."""
    width: int
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, like: Tensor) -> Tensor:
        """Return the additive mask, (B, 1, T, W).

        It is minus infinity where a query may not attend to a key, and 0 otherwise.
        """
        if window not in self._masks:
            ahead = torch.arange(1 - self.width, self.width, device=like.device)
            hidden = ahead > 0 if window is None else (ahead > 0) | (ahead <= -window)
            line = torch.zeros_like(ahead, dtype=like.dtype).masked_fill_(hidden, -torch.inf)
            # All queries have the same mask line, shifted by their position.
            self._masks[window] = line.unfold(0, self.width, 1)[self.width - 1 - self.positions_BT][:, None]
        return self._masks[window]

    def of(self, store: Tensor) -> Tensor:
        """Return the keys or values of these rows, (B, heads, W, dim)."""
        if isinstance(self.rows, slice):
            return store[self.rows, :, : self.width]
        if self.rows.ndim == 1:
            return store[:, :, : self.width].index_select(0, self.rows)
        taken = store.index_select(0, self.rows.flatten()).view(*self.rows.shape, *store.shape[1:])
        return taken.transpose(1, 2)


@dataclass(frozen=True)
class Rows:
    """The attention layout of one pass.

    `hold` receives the index of a layer and its new keys and values, (N, heads, dim). It returns the two stores that
    the parts index.
    """

    parts: Sequence[Part]
    order_N: Tensor
    """Index of each id of the pass among the concatenated queries of all parts."""
    hold: Store
    shared: dict[str, Any] = field(default_factory=dict)
    """Values that one layer computes for the next ones."""

    @classmethod
    def of(cls, counts_B: np.ndarray, starts_B: np.ndarray, places: Places, hold: Store, device: Any = "cpu") -> Rows:
        """Lay out a pass in which row b computes `counts_B[b]` ids from position `starts_B[b]` on.

        The ids of the pass are ordered by row. Rows of similar length share a part. Rows of one id have their own part,
        because they are frequent and cheap. `places` receives the row numbers of a part and the largest number of keys.
        It returns `Part.rows` and the index of each row in `Part.rows`. These indices ascend, and the last one is the
        last index of `Part.rows`.
        """
        firsts_B, order_N, parts, total = np.cumsum(counts_B) - counts_B, np.empty(counts_B.sum(), np.int64), [], 0
        sizes_B = np.where(counts_B > 1, np.ceil(np.log2(np.maximum(counts_B, SHORT))), 0)
        for size in np.unique(sizes_B[counts_B > 0]):
            b = np.flatnonzero((sizes_B == size) & (counts_B > 0))
            most, width = counts_B[b].max(), int((starts_B + counts_B)[b].max())
            rows, seats_b = places(b, width)
            steps_bT = np.minimum(np.arange(most), counts_B[b, None] - 1)
            # An unused index between two rows queries with the first id of the pass, and its output is dropped.
            queries_BT, positions_BT = np.zeros((2, seats_b[-1] + 1, most), np.int64)
            queries_BT[seats_b], positions_BT[seats_b] = firsts_B[b, None] + steps_bT, starts_B[b, None] + steps_bT
            outputs_bT = total + seats_b[:, None] * most + np.arange(most)
            order_N[queries_BT[seats_b, ::-1]] = outputs_bT[:, ::-1]
            total += queries_BT.size
            queries, positions = (torch.from_numpy(array).to(device) for array in (queries_BT, positions_BT))
            parts.append(Part(queries, positions, rows, width))
        return cls(parts, torch.from_numpy(order_N).to(device), hold)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, **how: Any) -> Tensor:
        """Return the attention output of each id, (N, heads, dim)."""
        keys, values = self.hold(layer, key, value)
        window, scale = how.get("sliding_window"), how.get("scaling")
        outputs = []
        for part in self.parts:
            queries = query.index_select(0, part.queries_BT.flatten()).view(*part.queries_BT.shape, *query.shape[1:])
            kept = part.of(keys), part.of(values)
            output = _attention(queries.transpose(1, 2), *kept, part.mask(window, query), scale)
            outputs.append(output.transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, self.order_N)


def plain_fits(query: Tensor, key: Tensor) -> bool:
    """Return whether plain products are the better attention on a CPU.

    PyTorch's attention in half precision is up to five times slower there. But plain products hold all scores at once,
    and keep them for the backward pass.
    """
    return query.dtype != torch.float32 and query.shape[:-1].numel() * key.shape[2] <= SCORES


def plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """Attend by plain products; arguments as in `_attention`."""
    (batch, heads, length, dim), (_, shared, width, _) = query.shape, key.shape
    query = (query * (dim**-0.5 if scale is None else scale)).reshape(batch * shared, -1, dim)
    # Copied whole, since the product would copy transposed keys one number at a time.
    key, value = (tensor.reshape(batch * shared, width, -1).contiguous() for tensor in (key, value))
    scores = torch.bmm(query, key.transpose(1, 2)).view(batch, heads, length, width)
    with torch.no_grad():  # the mask is a constant, and autograd would copy the gradient of a view that is changed
        scores.add_(mask)
    probabilities = scores.softmax(-1).view(batch * shared, -1, width)
    return torch.bmm(probabilities, value).view(batch, heads, length, -1)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None) -> Tensor:
    """Attend; all tensors are (B, heads, length, dim), with fewer heads for keys and values if they are grouped."""
    dtype, on_cpu, grouped = query.dtype, query.device.type == "cpu", key.shape[1] != query.shape[1]
    if on_cpu and plain_fits(query, key):
        return plain_attention(query, key, value, mask, scale)
    if on_cpu and dtype != torch.float32 and query.requires_grad:
        # The backward pass of PyTorch's attention in half precision is up to eight times slower.
        query, key, value, mask = query.float(), key.float(), value.float(), mask.float()
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped).to(dtype)


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **how: Any) -> tuple[Tensor, None]:
    """Attend by the rows of the pass; fall back to SDPA when `rows` is absent."""
    rows: Rows | None = how.pop("rows", None)
    if rows is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **how)
        return output
    if used := [name for name in UNSUPPORTED if how.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} uses {used[0]}, which this attention does not support")
    flat = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return rows.attend(module.layer_idx, *flat, **how)[None], None


def use_row_attention(model: Any) -> Any:
    """Install this attention and the fast layers in a model and return it. Calls without `rows` behave as before."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return use_fast_layers(model)


def run(model: Any, ids_N: Tensor, positions_N: Tensor, rows: Rows, **more: Any) -> Any:
    """Run a model, or the part of it below the LM head, over the ids of one pass."""
    unmasked = ids_N.new_ones(1, 1, 1, 1)  # keeps transformers from building a mask; each part has its own
    return model(
        input_ids=ids_N[None],
        position_ids=positions_N[None],
        attention_mask=unmasked,
        use_cache=False,
        rows=rows,
        **more,
    )


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))
