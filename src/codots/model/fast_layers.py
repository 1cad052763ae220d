"""A leaner way through layers of the Llama kind: the numbers of transformers, with half of its operations.

A small model, or a pass over few ids, spends most of its time between the matrix products: this is where it is saved.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm

KINDS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Layers of one build: norms without a mean, rotated heads, a gated MLP."""
AROUND = ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model")
"""What is around them, up to the output layer."""
SMALL = 2**20
"""Weights of a layer up to which those with one input are kept a second time, side by side, for one product."""


class Lean:
    """What the lean way needs of one layer, as it is built now."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.attention, self.mlp = attention, mlp
        self.before, self.between = layer.input_layernorm, layer.post_attention_layernorm
        self.norms = [attention.q_norm, attention.k_norm] if hasattr(attention, "q_norm") else []
        self.sides = [[attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]]
        self.heads = [attention.config.num_attention_heads, attention.config.num_key_value_heads]
        self.how = {
            "scaling": attention.scaling,
            "sliding_window": getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)),
        }
        self.joins = all(type(part) is torch.nn.Linear for side in self.sides for part in side)
        self.joins &= sum(part.weight.numel() for side in self.sides for part in side if self.joins) <= SMALL
        self.stamp: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, rows: Any, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
        """Run the ids of a pass, (N, hidden), through the layer."""
        if "angles" not in rows.shared:
            rows.shared["angles"] = _angles(*position_embeddings)
        joined = self.joins and not torch.is_grad_enabled()
        if joined:
            self._join()
        query, key, value = self._projected(_normed(x, self.before), rows.shared["angles"], joined)
        found = rows.attend(self.attention.layer_idx, query, key, value, **self.how)
        x = x + self.attention.o_proj(found.flatten(1))
        y = _normed(x, self.between)
        gate, up = linear(y, *self.joined[1]).chunk(2, -1) if joined else (part(y) for part in self.sides[1])
        return torch.add(x, self.mlp.down_proj(self.mlp.act_fn(gate) * up))

    def _projected(self, x: Tensor, angles: tuple[Tensor, Tensor], joined: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (N, heads, dim), rotated to where they stand."""
        shape, (n, k) = (len(x), -1, self.attention.head_dim), self.heads
        if joined:
            both, value = linear(x, *self.joined[0]).view(shape).tensor_split([n + k], 1)
            if self.norm is not None:
                both = _scaled(both, self.norm, self.norms[0].variance_epsilon)
            query, key = _rotated(both, *angles).tensor_split([n], 1)
            return query, key, value
        query, key, value = (part(x).view(shape) for part in self.sides[0])
        if self.norms:
            query, key = _normed(query, self.norms[0]), _normed(key, self.norms[1])
        return _rotated(query, *angles), _rotated(key, *angles), value

    def _join(self) -> None:
        """Put side by side the weights that have one input; anew when they have changed."""
        weights = [module.weight for module in (*self.norms, *self.sides[0], *self.sides[1])]
        stamp = [(weight.data_ptr(), weight._version) for weight in weights]
        if stamp != self.stamp:
            self.joined, self.stamp = [_side_by_side(side) for side in self.sides], stamp
            lines = [norm.weight.expand(n, -1) for norm, n in zip(self.norms, self.heads, strict=False)]
            self.norm = torch.cat(lines) if lines else None


class _Norm(torch.autograd.Function):
    """The root mean square norm with a way back of its own: what autograd would put together runs twice as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _scale(x, eps)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        unit = x * scale
        product = gradient * unit
        along = product @ (weight / len(weight))[:, None]
        of_x = (gradient * weight).addcmul_(unit, along, value=-1).mul_(scale)
        return of_x, product.flatten(0, -2).sum(0), None


def slim(model: Any) -> Any:
    """Let the layers that are known go the lean way, and what is around them."""
    for module in model.modules():
        kind: Any = type(module)
        way = _layer if kind.__name__ in KINDS else _around if kind.__name__ in AROUND else None
        if way and not hasattr(module, "lean"):
            module.__class__ = _lean(kind, way)
        if way:
            module.lean = Lean(module) if way is _layer else None
    return model


@cache
def _lean(kind: Any, way: Any) -> Any:
    """Make a kind of module that goes another way where rows are brought; a plain call gets what it got."""

    def forward(self: Any, *args: Any, **how: Any) -> Any:
        return kind.forward(self, *args, **how) if how.get("rows") is None else way(self, *args, **how)

    # A class and not the module's own attribute: transformers wraps the forward of a class for gradient checkpointing.
    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _layer(self: Any, hidden: Tensor, *, rows: Any, position_embeddings: tuple[Tensor, Tensor], **_: Any) -> Tensor:
    lean: Lean = self.lean
    return lean(hidden[0], rows, position_embeddings)[None]


def _around(self: Any, *, input_ids: Tensor, position_ids: Tensor, rows: Any, **_: Any) -> Any:
    """Run a pass from ids to the last hidden state, without what transformers looks up and checks at every call."""
    from transformers.modeling_outputs import BaseModelOutputWithPast

    hidden = self.embed_tokens(input_ids)
    angles = self.rotary_emb(hidden, position_ids)
    for layer in self.layers:
        hidden = layer(hidden, rows=rows, position_embeddings=angles)
    return BaseModelOutputWithPast(last_hidden_state=_normed(hidden, self.norm))


def _side_by_side(parts: Any) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of several linear layers as those of one."""
    biases = [part.bias for part in parts]
    return torch.cat([part.weight for part in parts]), None if biases[0] is None else torch.cat(biases)


def _normed(x: Tensor, norm: Any) -> Tensor:
    return _scaled(x, norm.weight, norm.variance_epsilon)


def _scaled(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide by the root of the mean square; on a CPU up to four times as fast as the library's own for short heads."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return rms_norm(x, x.shape[-1:], None, eps) * weight
    if torch.is_grad_enabled():
        scaled: Tensor = _Norm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
        return scaled
    return (x * _scale(x, eps)).mul_(weight)


def _scale(x: Tensor, eps: float) -> Tensor:
    return _mean(x * x).add_(eps).rsqrt_()


def _mean(x: Tensor) -> Tensor:
    """Mean over the last dimension, as a product: sums over few numbers are slow."""
    return x @ x.new_full((x.shape[-1], 1), 1 / x.shape[-1])


def _angles(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Lay out the angles of a pass, (1, N, dim) each, for `_rotated`."""
    less, more = sin[0].chunk(2, -1)
    return cos[0][:, None], torch.cat([-less, more], -1)[:, None]


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs half a head apart by the angles of their position."""
    return (heads * cos).addcmul_(heads.roll(heads.shape[-1] // 2, -1), sin)
