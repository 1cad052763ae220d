"""The part of the vLLM sampler that runs in the processes of vLLM which hold the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import vllm.model_executor.layers.utils as layers
from safetensors import safe_open
from torch import Tensor

_dispatch = layers.dispatch_cpu_unquantized_gemm


def _keep_weight(layer: Any, remove_weight: bool) -> None:
    """Let a linear layer on a CPU multiply by its weight.

    vLLM packs a copy for oneDNN instead and empties the weight, and goes on with that copy when weights are reloaded.
    """
    if layer.weight.ndim == 2:
        layer.cpu_linear = torch.nn.functional.linear
    else:
        _dispatch(layer, remove_weight)


layers.dispatch_cpu_unquantized_gemm = _keep_weight  # before the model is made, since this module is imported first


class Reloading:
    """Methods that vLLM adds to its worker."""

    reload_weights: Any

    def load_folder(self, folder: str) -> None:
        """Reload the weights from the safetensors files in a folder, as they are in a checkpoint."""
        self.reload_weights(weights_iterator=_weights(Path(folder)))


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                yield name, file.get_tensor(name)
