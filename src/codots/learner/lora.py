"""LoRA: train low-rank adapters of a model's layers and freeze its own weights (arXiv 2106.09685)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from codots.learner.config import ALL_LINEAR, LoraConfig

ADAPTER = "adapter.safetensors"
ROUTERS = {"gate", "router"}
"""Names of the layers that choose experts, whose outputs are not only added."""
MAMBAS, REFUSED = ("mamba", "mamba2", "falcon_mamba", "falcon_h1"), {"out_proj"}
"""Model types of which peft refuses these layers."""


def check_lora() -> None:
    """Raise ValueError if peft is missing."""
    if importlib.util.find_spec("peft") is None:
        raise ValueError("LoRA needs peft: pip install 'codots[lora]'")


def adapt(model: Any, lora: LoraConfig, seed: int = 0) -> Any:
    """Freeze a model, inject LoRA adapters, and return the model in eval mode.

    Untrained adapters do not change the output. Raises ValueError if peft is missing, a layer is unknown, or the model
    has no linear layer.
    """
    check_lora()
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    layers = target_layers(model, lora.targets)
    wanted = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(layers),
        lora_dropout=0.0,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
    )
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        torch.manual_seed(seed)
        inject_adapter_in_model(wanted, model)
    return model.eval()


def target_layers(model: Any, targets: Sequence[str]) -> dict[str, Any]:
    """Return the layers of a model that LoRA adapts, by name: nn.Linear, and Conv1D as in GPT-2.

    `targets` are last parts of names, or "all-linear", which leaves out the head, routers of experts, and layers that
    peft refuses.
    Raises ValueError if the model has no such layer.
    """
    head = model.get_output_embeddings()  # may be tied to the embedding, which must not change
    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head}
    linear = {name: layer for name, layer in linear.items() if layer.weight.requires_grad}  # not those for images
    if not linear:
        raise ValueError(f"{type(model).__name__} has no linear layer that LoRA could adapt")
    if ALL_LINEAR in targets:
        left_out = ROUTERS | (REFUSED if model.config.model_type in MAMBAS else set())
        return {name: layer for name, layer in linear.items() if name.rpartition(".")[2] not in left_out}
    names = {name.rpartition(".")[2] for name in linear}
    if unknown := sorted(set(targets) - names):
        raise ValueError(
            f"the model has no layer {unknown[0]!r} for LoRA; expected {ALL_LINEAR} or some of "
            f"{', '.join(sorted(names))}"
        )
    return {name: layer for name, layer in linear.items() if name.rpartition(".")[2] in targets}


def adapters(model: Any) -> dict[str, Tensor]:
    """Return the adapter weights by name."""
    return {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}


def merged(model: Any) -> dict[str, Tensor]:
    """Return the weights of the equivalent plain model, with the adapters merged into its layers."""
    from peft.tuners.lora import LoraLayer

    added = {
        f"{name}.base_layer.weight": module.get_delta_weight("default")
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    plain = {}
    for name, weight in model.state_dict(keep_vars=True).items():  # tied weights stay one object
        if ".lora_" not in name:
            total = weight if name not in added else (weight.float() + added[name].float()).to(weight.dtype)
            plain[name.replace(".base_layer.", ".")] = total
    return plain


def save_adapter(weights: dict[str, Tensor], folder: Path, base_identity: str = "") -> None:
    """Save adapter weights with the hash of the base model."""
    from safetensors.torch import save_file

    plain = {name: weight.cpu().contiguous() for name, weight in weights.items()}
    save_file(plain, folder / ADAPTER, {"beside": base_identity})


def read_adapter(model: Any, folder: Path, base_identity: str = "") -> dict[str, Tensor]:
    """Return the adapter weights in a folder for a model with adapters.

    Raises ValueError if the folder has no adapter, or if its adapter has other shapes or another base model.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    if not (folder / ADAPTER).is_file():
        raise ValueError(f"{folder} was not trained with LoRA; use model={folder} instead of --init-from")
    saved: dict[str, Tensor] = load_file(folder / ADAPTER)
    own = adapters(model)
    if {name: weight.shape for name, weight in saved.items()} != {name: weight.shape for name, weight in own.items()}:
        raise ValueError(f"{folder / ADAPTER} does not fit this LoRA: its layers or rank differ")
    with safe_open(folder / ADAPTER, "pt") as file:
        if ((file.metadata() or {}).get("beside") or base_identity) != base_identity:
            raise ValueError(f"{folder} was trained on another base model; expected the same, unchanged `model`")
    return saved
