"""Sizes of a model, computed on the meta device so that its weights take no memory."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import torch

from codots.learner.batch import MicroBatch
from codots.learner.lora import target_layers
from codots.model.attention import run, use_row_attention
from codots.model.device import Place
from codots.sampler.cache import bytes_per_id


class Shape:
    """Sizes of a model, computed from its `transformers` config.

    The sizes are extrapolated from models with one and two layers, because all layers have the same size.
    """

    def __init__(self, config: Any, place: Place) -> None:
        self.config, self.place = config, place
        self.layers, self.vocabulary = int(config.num_hidden_layers), int(config.vocab_size)
        self.width = int(config.hidden_size)
        self.itemsize = int(place.torch_dtype.itemsize)

    def with_layers(self, count: int, device: str) -> Any:
        """Return a model with random weights and `count` layers."""
        from transformers import AutoModelForCausalLM

        config = deepcopy(self.config)
        config.num_hidden_layers = count
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:count]
        with torch.device(device):
            return use_row_attention(AutoModelForCausalLM.from_config(config, dtype=self.place.torch_dtype))

    @cached_property
    def _one_and_two(self) -> tuple[Any, Any]:
        return self.with_layers(1, "meta"), self.with_layers(2, "meta")

    @cached_property
    def weights(self) -> int:
        """Number of weights of the model."""
        one, two = (sum(int(p.numel()) for p in model.parameters()) for model in self._one_and_two)
        return one + (two - one) * (self.layers - 1)

    @property
    def bytes_per_id(self) -> int:
        """Bytes of KV cache per token, over all layers."""
        return bytes_per_id(self._one_and_two[0]) * self.layers

    def adapters(self, rank: int, targets: Sequence[str]) -> int:
        """Return the number of weights that LoRA adapters of this rank add to the layers of `targets`."""
        layers = target_layers(self._one_and_two[0], targets)
        return sum(sum(layer.weight.shape) for layer in layers.values()) * rank * self.layers

    def saved_bytes(self, part: MicroBatch) -> int:
        """Return the bytes that one layer saves for the backward pass of a micro-batch."""
        one, two = (_saved_bytes(model, part) for model in self._one_and_two)
        return int(two - one)


def _saved_bytes(model: Any, part: MicroBatch) -> int:
    sizes = {parameter.untyped_storage()._cdata: 0 for parameter in model.parameters()}
    tensors = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes.setdefault(storage._cdata, storage.nbytes())
        tensors.append(tensor)  # keeps the storage alive, so that its id is not reused
        return tensor

    starts = zip(part.shared, part.nodes, strict=True)
    positions = torch.cat([torch.arange(s, len(nodes)) for s, nodes in starts]).to("meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run(model.base_model, torch.tensor(part.ids, device="meta"), positions, part.rows("meta"))
    return sum(sizes.values())
