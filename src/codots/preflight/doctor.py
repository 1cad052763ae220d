"""Check whether this machine can run a recipe, and suggest what to change if it cannot."""

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
from codots.core.processes import cores
from codots.model.device import LARGE, Place, count_weights, place
from codots.model.load import identity
from codots.runs.checkpoint import start_folder
from codots.runs.loggers import check_loggers

GIB = 2**30
MOMENTS = 8
"""Bytes of optimizer state per trained weight in a checkpoint."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    what: str
    found: str
    change: str = ""
    """The change to make. Empty if nothing needs to change."""
    must: bool = False
    """Whether the recipe cannot run without the change."""


def examine(config: TrainConfig) -> list[Finding]:
    """Run every check and return the findings. An exception raised by a check is returned as a finding."""
    return [found for name, check in CHECKS.items() for found in _run_check(name, check, config)]


def _run_check(name: str, check: Callable[[TrainConfig], Iterator[Finding]], config: TrainConfig) -> list[Finding]:
    try:
        return list(check(config))
    except Exception as error:
        return [Finding(name, "check failed", " ".join(str(error).split()) or type(error).__name__, must=True)]


def check_python(config: TrainConfig) -> Iterator[Finding]:
    """Check the Python version."""
    old = sys.version_info < (3, 11)
    yield Finding("python", platform.python_version(), "install Python 3.11 or later" if old else "", must=old)


def check_torch(config: TrainConfig) -> Iterator[Finding]:
    """Report the build of torch, and check that a matrix product is finite."""
    from importlib.metadata import version

    import torch

    kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    works = bool(torch.isfinite(torch.randn(8, 8) @ torch.randn(8, 8)).all())
    change = "" if works else "a matrix product is not finite: reinstall torch"
    yield Finding("torch", f"{version('torch')}, built for {kind}", change, must=not works)


def check_device(config: TrainConfig) -> Iterator[Finding]:
    """Report the devices and the one that the run uses. Suggest a GPU if a large model would run on the CPU."""
    import torch

    devices = ["CPU"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU")
    folder = None
    with suppress(ValueError):  # check_model reports a missing model
        folder = start_folder(config.model, config.init_from, config.base)
    if folder is None:
        yield Finding("device", ", ".join(devices))
        return
    chosen = place(folder, config.device, config.dtype)
    slow = chosen.device == "cpu" and count_weights(folder) >= LARGE
    change = "use a GPU for a model of this size" if slow else ""
    yield Finding("device", f"{', '.join(devices)}; the run uses {chosen.device} in {chosen.dtype}", change)


def check_threads(config: TrainConfig) -> Iterator[Finding]:
    """Check the number of workers and the number of threads per process."""
    n, value = cores(), os.environ.get("OMP_NUM_THREADS")
    if config.engine.kind == "local":
        workers = config.workers if config.sampler != "vllm" else 1
        change = f"set workers={n}, the number of cores" if workers > n else ""
        yield Finding("cores", f"{n}, for {workers} workers", change)
    wrong = value is not None and not (value.isdigit() and 1 <= int(value) <= n)
    change = "export OMP_NUM_THREADS=1: more threads compete with the workers for cores" if value != "1" else ""
    yield Finding("threads", f"OMP_NUM_THREADS is {value or 'not set'}", change, must=wrong)


def check_cluster(config: TrainConfig) -> Iterator[Finding]:
    """Join or start the Ray cluster of the recipe, and check that it has room for the actors."""
    from codots.engine.cluster import ADDRESS, check_ray, check_room, connect, disconnect, size

    if config.engine.kind == "local":
        return
    check_ray()
    device = place(start_folder(config.model, config.init_from, config.base), config.device, config.dtype).device
    ours = connect()
    try:
        check_room(config.engine.samplers, config.engine.learners, device, config.engine.tensor_parallel)
        yield Finding("cluster", f"{os.environ.get(ADDRESS) or 'started here'}: {size()}")
    finally:
        if ours:
            disconnect()


def check_sampler(config: TrainConfig) -> Iterator[Finding]:
    """Check that vLLM is there in a tested version, if the recipe needs it."""
    from codots.sampler.vllm_engine import check_vllm

    if config.sampler == "vllm":
        yield Finding("vLLM", check_vllm())


def check_disk(config: TrainConfig) -> Iterator[Finding]:
    """Check the free disk space and the write permission of the run folder."""
    folder = Path(config.run).resolve()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        yield Finding("disk", f"{folder} cannot be written to", "give run=ANOTHER", must=True)
        return
    free = shutil.disk_usage(folder).free
    checkpoint_size = 0
    with suppress(ValueError):
        model = start_folder(config.model, config.init_from, config.base)
        half = place(model, config.device, config.dtype).dtype != "float32"
        optimizer_bytes = MOMENTS + 4 * half if not config.learner.lora else 0
        checkpoint_size = count_weights(model) * ((2 if half else 4) + optimizer_bytes)
    kept = config.steps // config.save_every + 1 if config.keep_checkpoints == "all" else config.keep_checkpoints
    needed = (kept + 2) * checkpoint_size + GIB // 10  # plus the best checkpoint and the one being written
    too_small = free < needed
    change = f"free {(needed - free) / GIB:.1f} GiB, or lower keep_checkpoints" if too_small else ""
    found = f"{free / GIB:.1f} GiB free at {folder}, the run may need {needed / GIB:.1f}"
    yield Finding("disk", found, change, must=too_small)


def check_model(config: TrainConfig) -> Iterator[Finding]:
    """Check that the model loads and has room for the prompts; report its style and how it reads several sequences."""
    from codots.learner.lora import check_lora
    from codots.model.load import load_model, model_folder
    from codots.model.path import path_of
    from codots.training.setup import check_prompts, profile_of

    folder = start_folder(config.model, config.init_from, config.base)
    profile = profile_of(config, folder)
    loaded, _ = load_model(folder, Place(dtype="auto"), profile.thinking)
    check_prompts(config.worlds, folder, profile)
    size = sum(parameter.numel() for parameter in loaded.parameters())
    if config.learner.lora:
        check_lora()
    if config.learner.kl_coef and config.learner.reference:
        model_folder(config.learner.reference)
    model = f"{config.init_from or config.model}: {size:,} parameters, {identity(folder)}, {profile.style}"
    yield Finding("model", f"{model}, {path_of(loaded)}")


def check_logging(config: TrainConfig) -> Iterator[Finding]:
    """Check that the loggers of the recipe are installed."""
    check_loggers(config.loggers)
    yield Finding("loggers", ", ".join(["metrics.jsonl", *config.loggers]))


CHECKS = {
    "python": check_python,
    "torch": check_torch,
    "device": check_device,
    "threads": check_threads,
    "cluster": check_cluster,
    "vLLM": check_sampler,
    "disk": check_disk,
    "model": check_model,
    "loggers": check_logging,
}


def as_json(findings: list[Finding]) -> str:
    """Return the findings as JSON, with `fit` true if none of the changes is required."""
    fit = not any(found.must for found in findings)
    return json.dumps({"fit": fit, "findings": [vars(found) for found in findings]}, indent=2)
