"""Choose the device and the precision of a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from codots.core.suggest import nearest
from codots.model.adapter import Model, folders, weight_files

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""Name of a precision in recipes and commands."""
DTYPES: tuple[str, ...] = get_args(Dtype)
LARGE = 50_000_000
"""Smallest number of weights at which a GPU is faster than a CPU core. For fewer, kernel launches dominate."""
LARGE_ON_CPU = 20_000_000
"""Smallest number of weights at which a CPU computes in bfloat16, if it has instructions for it."""
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
"""Instructions that multiply matrices in bfloat16 faster than in float32, as torch names them."""
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Place:
    """A device and a dtype, by their names in torch."""

    device: str = "cpu"
    dtype: str = "float32"

    @property
    def torch_dtype(self) -> Any:
        """The `torch.dtype`, or the string `auto` for the dtype of the stored weights."""
        import torch

        return getattr(torch, self.dtype, self.dtype)


def check_device(name: str) -> str:
    """Return the name of a device. Raises ValueError for an unknown name."""
    if name not in DEVICES and not re.fullmatch(r"cuda:\d+", name):
        raise ValueError(nearest(name, [*DEVICES, "cuda:0"], "device"))
    return name


def place(model: Model, device: str = "auto", dtype: str = "auto") -> Place:
    """Choose the device and dtype for a model.

    Device `auto` is a CUDA GPU for a model of 50 million weights or more, if there is one, and otherwise the CPU. An
    Apple GPU is used only if named. Dtype `auto` is bfloat16 on a CUDA GPU that supports it, and for a model of 20
    million weights or more on a CPU with instructions for it. Otherwise it is float32. Raises ValueError for a device
    that this machine does not have.
    """
    import torch

    if check_device(device) == "auto":
        device = "cuda" if torch.cuda.is_available() and count_weights(model) >= LARGE else "cpu"
    available = torch.backends.mps.is_available() if device == "mps" else torch.cuda.is_available()
    if device != "cpu" and not available:
        raise ValueError(
            f"device {device!r} is not available, or this build of torch does not support it; expected 'cpu'"
        )
    _, _, number = device.partition(":")
    if number and int(number) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not available; expected a number below {torch.cuda.device_count()}")
    if dtype == "auto":
        if device.startswith("cuda"):
            half = torch.cuda.is_bf16_supported()
        else:
            half = device == "cpu" and has_bfloat16() and count_weights(model) >= LARGE_ON_CPU
        dtype = "bfloat16" if half else "float32"
    return Place(device, dtype)


def has_bfloat16() -> bool:
    """Return whether this CPU has instructions for matrices in bfloat16, as far as torch can tell."""
    import torch

    flags: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # absent in older versions of torch
    return any(flags.get(name) for name in BFLOAT16_FLAGS)


def count_weights(model: Model) -> int:
    """Count the parameters in a model's weight files, without an adapter, and without reading the weights."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for file in weight_files(folders(model)[-1]):
        with safe_open(file, "pt") as weights:
            count += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count
