"""Estimate the memory and time of a recipe before it runs, and find changes that make it fit."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from codots.config.schema import TrainConfig
from codots.domains.registry import make_pack
from codots.learner.batch import MicroBatch
from codots.learner.config import LoraConfig
from codots.learner.score import PIECE
from codots.model.adapter import folders
from codots.model.device import Place, place
from codots.model.kind import read_config
from codots.model.load import load_render
from codots.model.renderer import Render
from codots.preflight.model_shape import Shape
from codots.rollout.fit import DryRun, dry_run, grouped
from codots.rollout.profile import Profile
from codots.runs.checkpoint import start_folder
from codots.sampler.base import SESSIONS
from codots.training.setup import check_prompts, entry_profile, profile_of

GIB = 2**30
OVERHEAD = 1.15
"""Factor that covers the memory overhead of allocators and libraries."""
CUDA_CONTEXT = 0.6 * GIB
"""Bytes of GPU memory that the driver and the libraries use."""
PACKS = 4
"""Mean number of packs in the dry run per entry of `worlds`."""
STATUS = Path("/proc/self/status")
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""File that contains the memory limit of a Linux container."""


@dataclass(frozen=True)
class Estimate:
    """Estimated memory and time of a run on its device."""

    place: Place
    parts: dict[str, float]
    """Bytes of memory, by use: of all processes or, on the GPUs of a Ray cluster, of the actor that needs the most."""
    there: float
    """Bytes of memory of the device."""
    changes: tuple[str, ...] = ()
    """Changes that make the run fit into memory. Empty if the run fits already, or if no known change is enough."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of one step, by use. Empty if the run does not fit, or if only its memory is estimated."""
    whole: float = 0.0
    """Seconds of the whole run, including its evaluations on `dev`. 0 if `seconds` is empty."""
    actors: dict[str, int] = field(default_factory=dict)
    """Number of actors of a run on Ray, by role. Each needs one CPU, or one GPU. Empty for a run on one machine."""
    overlap: bool = False
    """Whether the samplers work while the learner trains."""

    @property
    def needed(self) -> float:
        """Total bytes of memory that the run needs."""
        return sum(self.parts.values())

    @property
    def step(self) -> float:
        """Seconds of one step."""
        total, learning = sum(self.seconds.values()), self.seconds.get("learning", 0.0)
        return max(learning, total - learning) if self.overlap else total

    @property
    def fits(self) -> bool:
        """Whether the run fits into memory."""
        return self.needed <= self.there


def estimate(config: TrainConfig, gib: float | None = None) -> Estimate:
    """Estimate the memory and time of a run on this machine, or only the memory on another device with `gib` GiB.

    Actors on Ray count as if they all ran on this machine, or each on a GPU like the one here. The memory is that of
    replies of maximum length. The time is that of replies of half the maximum length; it is not estimated if the run
    does not fit into memory. Raises ValueError for a recipe that cannot run.
    """
    folder = start_folder(config.model, config.init_from, config.base)
    profile = profile_of(config, folder)
    check_prompts(config.worlds, folder, profile)
    render = load_render(folder, profile.thinking)
    at = remote_place(config) if gib else place(folder, config.device, config.dtype)
    shape = Shape(read_config(folders(folder)[-1]), at)
    profile = replace(profile, max_model_len=min(profile.max_model_len, shape.positions))
    lives = scripted_lives(config, profile, render, 1.0)
    there = gib * GIB if gib else device_memory(at)
    found = Estimate(at, memory(config, profile, shape, lives), there)
    if config.engine.kind == "ray":
        actors = {"sampler": config.engine.samplers, "learner": config.engine.learners}
        found = replace(found, actors=actors, overlap=config.engine.ahead > 0)
    if not found.fits:
        return replace(found, changes=changes_that_fit(config, profile, shape, lives, there))
    if gib:
        return found
    seconds = step_seconds(config, shape, scripted_lives(config, profile, render, 0.5, copies=2))
    eval_lives = 2 * config.eval_packs * len(config.worlds)
    eval_seconds = (
        eval_lives / (config.packs_per_step * config.group_size) * (sum(seconds.values()) - seconds["learning"])
    )
    evals = -(-config.steps // config.eval_every) if config.eval_every else 0
    found = replace(found, seconds=seconds)
    return replace(found, whole=config.steps * found.step + evals * eval_seconds)


def scripted_lives(
    config: TrainConfig, profile: Profile, render: Render, share: float, copies: int = 1
) -> list[DryRun]:
    """Roll out a few packs of each entry of `worlds` with scripted policies.

    The number of packs of an entry is proportional to its `packs_per_step`, and at least two. Every pack has `copies`
    lives, one after another. `share` is the length of the replies as a fraction of the maximum length.
    """
    lives = []
    for world in config.worlds:
        count = max(2, round(PACKS * len(config.worlds) * world.packs_per_step / config.packs_per_step))
        packs = [
            make_pack(world.domain, world.preset, "train", i // copies, world.pack_size) for i in range(count * copies)
        ]
        mine = entry_profile(profile, world)
        lives += dry_run(packs, mine, render, share, rewrites=config.contexts == "own")
    return lives


def remote_place(config: TrainConfig) -> Place:
    """Return the device and dtype that a recipe would use on another machine, which is assumed to have a GPU."""
    return Place("cuda" if config.device == "auto" else config.device, _half(config.dtype))


def _half(dtype: str) -> str:
    return "bfloat16" if dtype == "auto" else dtype


def device_memory(at: Place) -> float:
    """Return the bytes of memory of a device. For a CPU, this is at most the memory limit of the container."""
    if at.device.startswith("cuda"):
        import torch

        return float(torch.cuda.get_device_properties(at.device).total_memory)
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = LIMIT.read_text().strip() if LIMIT.is_file() else "max"
    return total if limit == "max" else min(total, float(limit))


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
    return [Role(config.workers if at.device == "cpu" else 1)]


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
    if role.learns:
        # two moments and the gradient; in half precision also float32 weights and the gradient of one pass
        parts["optimiser"] = learned * (12 + half * (4 + shape.itemsize))
    if role.samples:
        parts["keys and values"] = slots * width * shape.bytes_per_id * (1 + 1 / shape.layers)  # one grows
    parts["passes"] = max(
        backward_bytes(config, shape, lives) if role.learns else 0.0,
        slots * shape.vocabulary * (24 + shape.itemsize) if role.samples else 0.0,
    )
    if config.learner.kl_coef and role.learns:
        parts["reference"] = shape.weights * shape.itemsize
    return {"programs": process_bytes(shape.place)} | {use: OVERHEAD * bytes_ for use, bytes_ in parts.items()}


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


def changes_that_fit(
    config: TrainConfig, profile: Profile, shape: Shape, lives: list[DryRun], there: float
) -> tuple[str, ...]:
    """Return the shortest series of changes from `smaller_recipes` with which the run fits into memory.

    Returns an empty tuple if all of them together are not enough.
    """
    changes: dict[str, str] = {}
    for key, value, changed in smaller_recipes(config):
        changes[key] = f"{key}={value}"
        if sum(memory(changed, profile, shape, lives).values()) <= there:
            return tuple(changes.values())
    return ()


def smaller_recipes(config: TrainConfig) -> Iterator[tuple[str, Any, TrainConfig]]:
    """Yield changes that reduce memory, cheapest first, as key, value and changed recipe.

    The changes are cumulative: each recipe also includes all earlier changes.
    """

    def learner(**values: Any) -> TrainConfig:
        return config.model_copy(update={"learner": config.learner.model_copy(update=values)})

    while config.kv_cache_gib > 1:
        config = config.model_copy(update={"kv_cache_gib": config.kv_cache_gib / 2})
        yield "kv_cache_gib", config.kv_cache_gib, config
    if not config.learner.gradient_checkpointing:
        config = learner(gradient_checkpointing=True)
        yield "learner.gradient_checkpointing", "true", config
    while config.learner.max_microbatch_tokens > 512:
        config = learner(max_microbatch_tokens=config.learner.max_microbatch_tokens // 2)
        yield "learner.max_microbatch_tokens", config.learner.max_microbatch_tokens, config
    if not config.learner.lora:
        config = learner(lora=LoraConfig())
        yield "learner.lora", "{}", config


def step_seconds(config: TrainConfig, shape: Shape, lives: list[DryRun]) -> dict[str, float]:
    """Return the seconds of one training step, by use. `lives` has two lives of each pack, one after another."""
    from codots.preflight.timing import time_passes

    samplers, learners = roles(config, shape.place)[0], roles(config, shape.place)[-1]
    lives_per_step = config.packs_per_step * config.group_size
    rows, learned_rows = -(-lives_per_step // samplers.count), -(-lives_per_step // learners.count)
    speed = time_passes(shape, lives, min(rows, 64), config.learner.gradient_checkpointing)
    learned = ids_of_lives(config, shape, lives)
    sampled = sum(life.passes for life in lives) / len(lives)
    worlds = sum(life.seconds for life in lives) / len(lives)
    return {
        "sampling": max(life.passes for life in lives) * speed.sampled,
        "reading": rows * (learned - sampled) * speed.read,
        "worlds and words": rows * worlds,
        "learning": learned_rows * learned * speed.learned,
    }


def ids_of_lives(config: TrainConfig, shape: Shape, lives: list[DryRun]) -> float:
    """Return how many ids are computed for a life, on average over its group, which shares prompts.

    `lives` has two lives of each pack, one after another. Every further life adds as many ids as the second one.
    """

    def ids(*group: DryRun) -> int:
        samples = [sample for life in group for sample in life.samples]
        return sum(len(part.ids) for part in shape.micro_batches(samples, sys.maxsize))

    groups = [(ids(one), ids(one, other)) for one, other in zip(lives[::2], lives[1::2], strict=True)]
    more = config.group_size - 1
    return sum(one + more * (two - one) for one, two in groups) / (len(groups) * config.group_size)
