"""Whether this machine is fit for a recipe, and what to change if it is not."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from codots.config.schema import TrainConfig
from codots.model.device import LARGE, Place, count_weights, place
from codots.model.load import identity
from codots.runs.checkpoint import start_folder
from codots.runs.loggers import check_loggers

GIB = 2**30
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much of its cores a container may use."""
MOMENTS = 8
"""Bytes that a checkpoint holds of each trained weight besides the weight."""


@dataclass(frozen=True)
class Finding:
    """What was found of one thing."""

    what: str
    found: str
    change: str = ""
    """What to do about it, nothing if it is well."""
    must: bool = False
    """Whether nothing works until it is changed."""


def examine(config: TrainConfig) -> list[Finding]:
    """Look at everything that a recipe needs of a machine; a look that fails is a finding."""
    return [found for name, look in LOOKS.items() for found in _sure(name, look, config)]


def _sure(name: str, look: Callable[[TrainConfig], Iterator[Finding]], config: TrainConfig) -> list[Finding]:
    try:
        return list(look(config))
    except Exception as error:
        return [Finding(name, "not fit", " ".join(str(error).split()) or type(error).__name__, must=True)]


def find_python(config: TrainConfig) -> Iterator[Finding]:
    """The interpreter."""
    old = sys.version_info < (3, 11)
    yield Finding("python", platform.python_version(), "install Python 3.11 or later" if old else "", must=old)


def find_torch(config: TrainConfig) -> Iterator[Finding]:
    """The build of torch, and whether it can compute."""
    from importlib.metadata import version

    import torch

    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    works = bool(torch.isfinite(torch.randn(8, 8) @ torch.randn(8, 8)).all())
    broken = "" if works else "a product of two matrices is not finite: install torch again"
    yield Finding("torch", f"{version('torch')}, built for {kind}", broken, must=not works)


def find_device(config: TrainConfig) -> Iterator[Finding]:
    """What could compute."""
    import torch

    there = ["CPU"]
    if torch.cuda.is_available():
        there += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        there.append("Apple GPU")
    folder = None
    with suppress(ValueError):  # a model that is not there is a finding of its own
        folder = start_folder(config.model, config.init_from)
    if folder is None:
        yield Finding("device", ", ".join(there))
        return
    chosen = place(folder, config.device, config.dtype)
    slow = chosen.device == "cpu" and count_weights(folder) >= LARGE
    change = "a model of this size wants a GPU" if slow else ""
    yield Finding("device", f"{', '.join(there)}; the run takes {chosen.device} in {chosen.dtype}", change)


def cores() -> int:
    """Cores that this process may use: those it is bound to, or fewer where a container has a quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share, _, period = QUOTA.read_text().partition(" ") if QUOTA.is_file() else ("max", "", "")
    return bound if share == "max" else max(1, min(bound, int(share) // int(period)))


def find_threads(config: TrainConfig) -> Iterator[Finding]:
    """Cores against processes and their threads."""
    n, said = cores(), os.environ.get("OMP_NUM_THREADS")
    crowded = config.workers > n
    yield Finding("cores", f"{n}, for {config.workers} workers", f"set workers={n}: more only wait" if crowded else "")
    wrong = said is not None and not (said.isdigit() and 1 <= int(said) <= n)
    change = "export OMP_NUM_THREADS=1: other threads take the cores from the workers" if said != "1" else ""
    yield Finding("threads", f"OMP_NUM_THREADS is {said or 'not set'}", change, must=wrong)


def find_disk(config: TrainConfig) -> Iterator[Finding]:
    """Room for the run, and leave to write there."""
    room = Path(config.run).resolve()
    while not room.exists():
        room = room.parent
    if not os.access(room, os.W_OK):
        yield Finding("disk", f"{room} cannot be written to", "give run=ANOTHER", must=True)
        return
    free = shutil.disk_usage(room).free
    weights = 0
    with suppress(ValueError):
        folder = start_folder(config.model, config.init_from)
        half = place(folder, config.device, config.dtype).dtype != "float32"
        full = MOMENTS + 4 * half if not config.learner.lora else 0
        weights = count_weights(folder) * ((2 if half else 4) + full)
    needed = (config.keep_checkpoints + 2) * weights + GIB // 10  # the best and the one being written besides
    short = free < needed
    change = f"free {(needed - free) / GIB:.1f} GiB, or set keep lower" if short else ""
    found = f"{free / GIB:.1f} GiB free at {room}, the run may need {needed / GIB:.1f}"
    yield Finding("disk", found, change, must=short)


def find_model(config: TrainConfig) -> Iterator[Finding]:
    """The model: whether it loads, and how it is spoken to."""
    from codots.learner.lora import check_lora
    from codots.model.load import load_model, model_folder
    from codots.training.setup import profile_of

    folder = start_folder(config.model, config.init_from)
    profile = profile_of(config, folder)
    loaded, _ = load_model(folder, Place(dtype="auto"), profile.thinking)
    size = sum(parameter.numel() for parameter in loaded.parameters())
    if config.learner.lora:
        check_lora()
    if config.learner.kl_coef:
        model_folder(config.learner.reference or config.model)
    yield Finding(
        "model", f"{config.init_from or config.model}: {size:,} parameters, {identity(folder)}, {profile.style}"
    )


def find_loggers(config: TrainConfig) -> Iterator[Finding]:
    """The loggers of the recipe."""
    check_loggers(config.loggers)
    yield Finding("loggers", ", ".join(["metrics.jsonl", *config.loggers]))


LOOKS = {
    "python": find_python,
    "torch": find_torch,
    "device": find_device,
    "threads": find_threads,
    "disk": find_disk,
    "model": find_model,
    "loggers": find_loggers,
}


def as_json(findings: list[Finding]) -> str:
    """Findings for a program."""
    fit = not any(found.must for found in findings)
    return json.dumps({"fit": fit, "findings": [vars(found) for found in findings]}, indent=2)
