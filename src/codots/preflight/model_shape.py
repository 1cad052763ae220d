"""Sizes of a model, computed on the meta device so that its weights take no memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from codots.core.transcript import Sample
from codots.learner.batch import MicroBatch, micro_batches
from codots.learner.lora import target_layers
from codots.model.attention import plain_attention, plain_fits, run
from codots.model.device import Place
from codots.model.kind import auto_class, max_positions, train_text_only
from codots.model.path import rows_fit_shape
from codots.sampler.cache import bytes_per_id


class Shape:
    """Sizes of a model, computed from its `transformers` config.

    The sizes are extrapolated from models with one and two layers, because all layers have the same size.
    """

    def __init__(self, config: Any, place: Place) -> None:
        self.config, self.place = config, place
        text = config.get_text_config()
        self.layers, self.vocabulary = int(text.num_hidden_layers), int(text.vocab_size)
        self.width, self.positions = int(text.hidden_size), max_positions(text)
        self.itemsize = int(place.torch_dtype.itemsize)

    def with_layers(self, count: int, device: str) -> Any:
        """Return a model with random weights and `count` layers."""
        config = deepcopy(self.config)
        text = config.get_text_config()
        text.num_hidden_layers = count
        if text.to_dict().get("layer_types"):  # some configs derive it from other keys
            text.layer_types = text.layer_types[:count]
        with torch.device(device):
            return train_text_only(auto_class(config).from_config(config, dtype=self.place.torch_dtype))

    @cached_property
    def _one_and_two(self) -> tuple[Any, Any]:
        return self.with_layers(1, "meta"), self.with_layers(2, "meta")

    @cached_property
    def rows(self) -> bool:
        """Whether the model reads packed rows; otherwise it reads each sequence alone."""
        fit = [rows_fit_shape(model) for model in self._one_and_two]  # installs the row attention in both
        return all(fit)

    @cached_property
    def weights(self) -> int:
        """Number of weights of the model."""
        return self._extrapolated(lambda weight: True)

    @cached_property
    def trained(self) -> int:
        """Number of weights that are trained without LoRA: all, or those that read text."""
        return self._extrapolated(lambda weight: bool(weight.requires_grad))

    def _extrapolated(self, counts: Callable[[Any], bool]) -> int:
        one, two = (sum(int(p.numel()) for p in m.parameters() if counts(p)) for m in self._one_and_two)
        return one + (two - one) * (self.layers - 1)

    def micro_batches(self, samples: Sequence[Sample], tokens: int) -> list[MicroBatch]:
        """Return the micro-batches of the learner, which have one sample each if the model reads each alone."""
        return list(micro_batches(samples, tokens if self.rows else 0))

    @property
    def bytes_per_id(self) -> int:
        """Bytes of KV cache per token, over all layers."""
        return bytes_per_id(self._one_and_two[0]) * self.layers

    def adapters(self, rank: int, targets: Sequence[str]) -> int:
        """Return the number of weights that LoRA adapters of this rank add to the layers of `targets`."""
        layers = target_layers(self._one_and_two[0], targets)
        return sum(sum(layer.weight.shape) for layer in layers.values()) * rank * self.layers

    def saved_bytes(self, part: MicroBatch) -> int:
        """Return the bytes that one layer saves for the backward pass of a micro-batch.

        Raises ValueError if the model cannot run without weights.
        """
        try:
            one, two = (_saved_bytes(model, part, self.rows, self.place.device) for model in self._one_and_two)
        except Exception as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"cannot count the memory of {type(self._one_and_two[0]).__name__}: {line}") from error
        return int(two - one)


def _saved_bytes(model: Any, part: MicroBatch, rows: bool, device: str) -> int:
    sizes = {parameter.untyped_storage()._cdata: 0 for parameter in model.parameters()}
    tensors = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes.setdefault(storage._cdata, storage.nbytes())
        tensors.append(tensor)  # keeps the storage alive, so that its id is not reused
        return tensor

    ids = torch.tensor(part.ids, device="meta")
    starts = zip(part.shared, part.nodes, strict=True)
    positions = torch.cat([torch.arange(s, len(nodes)) for s, nodes in starts]).to("meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if rows:
            with _CpuAttention() if device == "cpu" else nullcontext():
                run(model.base_model, ids, positions, part.rows("meta"))
        else:
            _read_alone(model.base_model, ids[None])
    return sum(sizes.values())


class _CpuAttention(TorchFunctionMode):
    """Attention on the meta device that saves what it saves on CPUs."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of PyTorch, with another one in place of attention."""
        if function is torch.nn.functional.scaled_dot_product_attention:
            query, key, value = args
            if plain_fits(query, key):
                return plain_attention(query, key, value, kwargs["attn_mask"], kwargs["scale"])
            return _SavedByAttention.apply(*(tensor.float() for tensor in args))  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


class _SavedByAttention(torch.autograd.Function):
    """PyTorch's attention, which saves its arguments and output, but no scores."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output)
        return output


def _read_alone(model: Any, ids_1L: torch.Tensor) -> None:
    # Most models read the values of other masks, which the meta device does not have. Some take only others.
    unmasked = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids_1L.device)
    try:
        model(input_ids=ids_1L, attention_mask=unmasked, use_cache=False)
    except (ValueError, IndexError):
        model(input_ids=ids_1L, use_cache=False)
