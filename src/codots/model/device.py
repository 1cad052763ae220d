"""Where a model computes, and in which precision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codots.core.suggest import nearest

LARGE = 50_000_000
"""Weights from which a GPU is faster than a core: below, it waits for its next order."""
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Place:
    """A device and a precision, both by torch's names."""

    device: str = "cpu"
    dtype: str = "float32"

    @property
    def torch_dtype(self) -> Any:
        """The precision as torch has it; `auto` stays the word for that of the weights as they lie there."""
        import torch

        return getattr(torch, self.dtype, self.dtype)


def check_device(name: str) -> str:
    """Give back the name of a device; ValueError if none is called so."""
    if name not in DEVICES and not re.fullmatch(r"cuda:\d+", name):
        raise ValueError(nearest(name, [*DEVICES, "cuda:0"], "device"))
    return name


def place(folder: Path, device: str = "auto", dtype: str = "auto") -> Place:
    """Choose where a model computes.

    `auto` takes the GPU for a model of 50 million weights or more, and there bfloat16 if the GPU knows it; an Apple
    GPU is taken only by its name. Raises ValueError for a device that this machine does not have.
    """
    import torch

    if check_device(device) == "auto":
        device = "cuda" if torch.cuda.is_available() and count_weights(folder) >= LARGE else "cpu"
    there = torch.backends.mps.is_available() if device == "mps" else torch.cuda.is_available()
    if device != "cpu" and not there:
        raise ValueError(f"device {device!r} is not there, or this build of torch does not know it; expected 'cpu'")
    _, _, number = device.partition(":")
    if number and int(number) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not there; expected a number below {torch.cuda.device_count()}")
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
    return Place(device, dtype)


def count_weights(folder: Path) -> int:
    """Count the numbers in a folder's weights, which are not read."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            count += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count
