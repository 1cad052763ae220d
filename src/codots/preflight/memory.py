"""Count the memory of a run, part by part."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from codots.config.schema import TrainConfig
from codots.learner.batch import MicroBatch
from codots.learner.score import PIECE
from codots.model.device import Place
from codots.preflight.model_shape import Shape
from codots.rollout.fit import DryRun, grouped
from codots.rollout.profile import Profile
from codots.sampler.base import SESSIONS

GIB = 2**30
OVERHEAD = 1.15
"""Factor that covers the memory overhead of allocators and libraries."""
CUDA_CONTEXT = 0.6 * GIB
"""Bytes of GPU memory that the driver and the libraries use."""
STATUS = Path("/proc/self/status")


@cache
def process_bytes(at: Place) -> float:
    """Return the bytes of memory of a worker process before it loads a model."""
    if at.device.startswith("cuda"):
        return CUDA_CONTEXT
    if STATUS.is_file():
        return float(re.search(r"VmRSS:\s*(\d+)", STATUS.read_text())[1]) * 1024  # type: ignore[index]
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # in bytes on macOS


@dataclass(frozen=True)
class Role:
    """What some processes of a run do."""

    count: int
    samples: bool = True
    learns: bool = True


def roles(config: TrainConfig, at: Place) -> list[Role]:
    """Return the processes that hold the model: the samplers first, which may also be the learners."""
    if config.engine.kind == "ray":
        return [Role(config.engine.samplers, learns=False), Role(config.engine.learners, samples=False)]
    return [Role(config.workers if at.device == "cpu" and config.sampler != "vllm" else 1)]


def memory(config: TrainConfig, profile: Profile, shape: Shape, lives: list[DryRun]) -> dict[str, float]:
    """Return the bytes of memory by use: of all processes or, on the GPUs of a Ray cluster, of the costliest actor."""
    every = [(role, process_memory(role, config, profile, shape, lives)) for role in roles(config, shape.place)]
    saved = {"weights being saved": float(shape.weights * shape.itemsize)}
    if config.engine.kind == "ray" and shape.place.device.startswith("cuda"):
        alone = [parts | (saved if role.learns else {}) for role, parts in every]
        return max(alone, key=lambda parts: sum(parts.values()))
    total = dict.fromkeys(dict.fromkeys(use for _, parts in every for use in parts), 0.0)
    for role, parts in every:
        for use, bytes_ in parts.items():
            total[use] += role.count * bytes_
    total["programs"] += process_bytes(shape.place) if config.engine.kind == "ray" else 0.0  # of the driver
    return total | saved


def process_memory(
    role: Role, config: TrainConfig, profile: Profile, shape: Shape, lives: list[DryRun]
) -> dict[str, float]:
    """Return the bytes of memory of one process, by use."""
    lora = config.learner.lora
    new = shape.adapters(lora.rank, lora.targets) if lora else 0
    learned, half = new or shape.trained, shape.itemsize < 4
    batches = 1 + config.engine.ahead * config.keeps_lives
    rows = batches * -(-config.packs_per_step * config.group_size // role.count)
    slots = min(rows, SESSIONS, max(1, int(config.kv_cache_gib * GIB) // (profile.max_model_len * shape.bytes_per_id)))
    width = min(profile.max_model_len, 1 << (max(life.longest for life in lives) - 1).bit_length())
    parts: dict[str, float] = {"weights": (shape.weights + new) * shape.itemsize}
    outside, on_cpu = role.samples and config.sampler == "vllm", shape.place.device == "cpu"
    devices = config.engine.tensor_parallel
    if outside:  # the weights that are sent to vLLM are on a GPU only if the same process learns there
        parts["weights"] *= (role.learns or on_cpu) + (1 if on_cpu else 1 / devices)
    if role.learns and config.engine.learners > 1:
        parts = sharded_bytes(shape, new, learned, config.engine.learners)
    elif role.learns:
        # two moments and the gradient; in half precision also float32 weights and the gradient of one pass
        parts["optimiser"] = learned * (12 + half * (4 + shape.itemsize))
    if role.samples:
        parts["keys and values"] = slots * width * shape.bytes_per_id * (1 + 1 / shape.layers)  # one grows
    if outside:
        parts["keys and values"] = config.kv_cache_gib * GIB / OVERHEAD  # of that size from the start
        parts["keys and values"] *= devices if on_cpu else 1
    parts["passes"] = max(
        backward_bytes(config, shape, lives) if role.learns else 0.0,
        slots * shape.vocabulary * (24 + shape.itemsize) if role.samples else 0.0,
    )
    if config.learner.kl_coef and role.learns:
        parts["reference"] = shape.weights * shape.itemsize / config.engine.learners
    programs = process_bytes(shape.place) * (2 + devices if outside and on_cpu else 1)
    return {"programs": programs} | {use: OVERHEAD * bytes_ for use, bytes_ in parts.items()}


def sharded_bytes(shape: Shape, new: int, learned: int, learners: int) -> dict[str, float]:
    """Return the bytes of weights and optimizer of one of several learners, of which a pass needs two layers whole."""
    outside = shape.vocabulary * shape.width
    whole = outside + 2 * (shape.weights - outside) / shape.layers
    frozen = shape.weights - learned if new == 0 else shape.weights
    part = (frozen * shape.itemsize + 4 * learned) / learners
    return {"weights": part + 2 * whole * shape.itemsize, "optimiser": learned * 12 / learners}


def backward_bytes(config: TrainConfig, shape: Shape, lives: list[DryRun]) -> float:
    """Return the peak bytes of memory of the costliest forward and backward pass."""
    # the longest lives, at most one per pack of a step
    longest = sorted(lives, key=lambda life: life.passes, reverse=True)[: config.packs_per_step]
    parts = shape.micro_batches(grouped(longest, config.group_size), config.learner.max_microbatch_tokens)
    part = max(
        parts, key=lambda part: scored_tokens(part) * shape.vocabulary + len(part.ids) * shape.width * shape.layers
    )
    sampled, layer = scored_tokens(part), shape.saved_bytes(part)
    if config.learner.gradient_checkpointing:
        stored, sampled = shape.layers * len(part.ids) * shape.width * shape.itemsize + layer, min(sampled, PIECE)
    else:
        stored = shape.layers * layer
    # logits in model dtype and float32, logprobs, probabilities, their gradient, and a copy that may be freed late
    return float(stored + layer + sampled * shape.vocabulary * (20 + shape.itemsize))


def scored_tokens(part: MicroBatch) -> int:
    """Return the number of sampled tokens in a micro-batch. A pass computes logits for these tokens only."""
    return sum(sum(sample.mask) for sample in part.samples)
