"""The shape of a model, without memory for its weights."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property
from typing import Any

import torch

from codots.learner.batch import MicroBatch
from codots.model.attention import run, use_row_attention
from codots.model.device import Place
from codots.sampler.cache import bytes_per_id


class Shape:
    """What can be said of a model by its `transformers` config: layers are alike, so that two tell of all."""

    def __init__(self, config: Any, place: Place) -> None:
        self.config, self.place = config, place
        self.layers, self.vocabulary = int(config.num_hidden_layers), int(config.vocab_size)
        self.width = int(config.hidden_size)
        self.itemsize = int(place.torch_dtype.itemsize)

    def with_layers(self, count: int, device: str) -> Any:
        """A model of random weights that has only so many layers."""
        from transformers import AutoModelForCausalLM

        short = deepcopy(self.config)
        short.num_hidden_layers = count
        if getattr(short, "layer_types", None):
            short.layer_types = short.layer_types[:count]
        with torch.device(device):
            return use_row_attention(AutoModelForCausalLM.from_config(short, dtype=self.place.torch_dtype))

    @cached_property
    def _one_and_two(self) -> tuple[Any, Any]:
        return self.with_layers(1, "meta"), self.with_layers(2, "meta")

    @cached_property
    def weights(self) -> int:
        """How many there are."""
        one, two = (sum(int(p.numel()) for p in model.parameters()) for model in self._one_and_two)
        return one + (two - one) * (self.layers - 1)

    @property
    def bytes_per_id(self) -> int:
        """Size of the keys and values of one id."""
        return bytes_per_id(self._one_and_two[0]) * self.layers

    def adapters(self, rank: int, targets: tuple[str, ...]) -> int:
        """How many weights LoRA would add."""
        named = self._one_and_two[0].named_modules()
        linear = [m for name, m in named if name.rpartition(".")[2] in targets and isinstance(m, torch.nn.Linear)]
        return int(sum(m.in_features + m.out_features for m in linear)) * rank * self.layers

    def kept(self, part: MicroBatch) -> int:
        """Bytes that one layer keeps of a pass for the way back."""
        one, two = (_kept(model, part) for model in self._one_and_two)
        return int(two - one)


def _kept(model: Any, part: MicroBatch) -> int:
    held = {parameter.untyped_storage()._cdata: 0 for parameter in model.parameters()}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held.setdefault(storage._cdata, storage.nbytes())
        alive.append(tensor)  # so that no other gets its number
        return tensor

    starts = zip(part.shared, part.nodes, strict=True)
    positions = torch.cat([torch.arange(s, len(nodes)) for s, nodes in starts]).to("meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(model.base_model, torch.tensor(part.ids, device="meta"), positions, part.rows("meta"))
    return sum(held.values())
