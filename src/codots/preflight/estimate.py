"""What a recipe takes, before it runs: memory, time, and what to change where it cannot fit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from codots.config.schema import TrainConfig
from codots.domains.registry import make_pack
from codots.learner.batch import MicroBatch, micro_batches
from codots.learner.config import LoraConfig
from codots.learner.score import PIECE
from codots.model.device import Place, place
from codots.model.load import load_render
from codots.model.renderer import Render
from codots.preflight.model_shape import Shape
from codots.rollout.fit import Rehearsed, grouped, rehearse
from codots.rollout.profile import Profile
from codots.runs.checkpoint import start_folder
from codots.sampler.base import SESSIONS
from codots.training.setup import entry_profile, profile_of

GIB = 2**30
ROOM = 1.15
"""What allocators and libraries take besides, as a factor."""
CONTEXT = 0.6 * GIB
"""What a GPU's driver and libraries take of it."""
PACKS = 4
"""Packs that are rehearsed."""
STATUS = Path("/proc/self/status")
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how much memory a container may use."""


@dataclass(frozen=True)
class Forecast:
    """What a run takes of the device it computes on."""

    place: Place
    parts: dict[str, float]
    """Bytes by what they are for."""
    there: float
    """Bytes that there are."""
    changes: tuple[str, ...] = ()
    """What would make it fit, nothing where it does or nothing would."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of one step by what they are for; nothing where it cannot be tried."""
    whole: float = 0.0
    """Seconds of the run, its looks included."""

    @property
    def needed(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether it can run."""
        return self.needed <= self.there


def forecast(config: TrainConfig, gib: float | None = None) -> Forecast:
    """Forecast a run on this machine, or its memory alone on a device that has so many GiB.

    Raises ValueError for a recipe that cannot be run. Memory is that of replies as long as they may be, time that of
    replies half as long.
    """
    from transformers import AutoConfig

    folder = start_folder(config.model, config.init_from)
    profile = profile_of(config, folder)
    render = load_render(folder, profile.thinking)
    at = elsewhere(config) if gib else place(folder, config.device, config.dtype)
    shape = Shape(AutoConfig.from_pretrained(folder, local_files_only=True), at)
    profile = replace(profile, max_model_len=min(profile.max_model_len, shape.config.max_position_embeddings))
    lives = rehearsed(config, profile, render, 1.0)
    there = gib * GIB if gib else memory_of(at)
    parts = memory(config, profile, shape, lives)
    if sum(parts.values()) > there:
        return Forecast(at, parts, there, fitting(config, profile, shape, lives, there))
    if gib:
        return Forecast(at, parts, there)
    seconds = step_seconds(config, shape, rehearsed(config, profile, render, 0.5))
    looked = 2 * config.eval_packs * len(config.worlds)
    look = looked / (config.packs_per_step * config.group_size) * (sum(seconds.values()) - seconds["learning"])
    looks = -(-config.steps // config.eval_every) if config.eval_every else 0
    return Forecast(at, parts, there, (), seconds, config.steps * sum(seconds.values()) + looks * look)


def rehearsed(config: TrainConfig, profile: Profile, render: Render, share: float) -> list[Rehearsed]:
    """Rehearse a few packs, of each entry of the worlds as many as its share of a step asks for."""
    lives = []
    for world in config.worlds:
        count = max(2, round(PACKS * len(config.worlds) * world.packs_per_step / config.packs_per_step))
        packs = [make_pack(world.domain, world.preset, "train", i, world.pack_size) for i in range(count)]
        mine = entry_profile(profile, world)
        lives += rehearse(packs, mine, render, share, rewrites=config.contexts == "own")
    return lives


def elsewhere(config: TrainConfig) -> Place:
    """Where a recipe would compute on a machine that has a GPU."""
    return Place("cuda" if config.device == "auto" else config.device, _half(config.dtype))


def _half(dtype: str) -> str:
    return "bfloat16" if dtype == "auto" else dtype


def memory_of(at: Place) -> float:
    """Bytes that a device has."""
    if at.device.startswith("cuda"):
        import torch

        return float(torch.cuda.get_device_properties(at.device).total_memory)
    there = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = LIMIT.read_text().strip() if LIMIT.is_file() else "max"
    return there if limit == "max" else min(there, float(limit))


@cache
def programs(at: Place) -> float:
    """Bytes that a worker takes before it has a model."""
    if at.device.startswith("cuda"):
        return CONTEXT
    if STATUS.is_file():
        return float(re.search(r"VmRSS:\s*(\d+)", STATUS.read_text())[1]) * 1024  # type: ignore[index]
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # of macOS, in bytes


def memory(config: TrainConfig, profile: Profile, shape: Shape, lives: list[Rehearsed]) -> dict[str, float]:
    """Bytes by what they are for, of all workers; replies of the lives take all they may."""
    workers = config.workers if shape.place.device == "cpu" else 1
    lora = config.learner.lora
    new = shape.adapters(lora.rank, lora.targets) if lora else 0
    learned, half = new or shape.weights, shape.itemsize < 4
    rows = -(-config.packs_per_step * config.group_size // workers)
    slots = min(rows, SESSIONS, max(1, int(config.kv_cache_gib * GIB) // (profile.max_model_len * shape.bytes_per_id)))
    width = min(profile.max_model_len, 1 << (max(life.longest for life in lives) - 1).bit_length())
    each = {
        "weights": (shape.weights + new) * shape.itemsize,
        # two moments and the gradient; of half precision the weights in full besides, and what a pass leaves
        "optimiser": learned * (12 + half * (4 + shape.itemsize)),
        "keys and values": slots * width * shape.bytes_per_id * (1 + 1 / shape.layers),  # a layer grows at a time
        "passes": max(learning(config, shape, lives), slots * shape.vocabulary * (24 + shape.itemsize)),
    }
    if config.learner.kl_coef:
        each["reference"] = shape.weights * shape.itemsize
    saved = {"weights being saved": float(shape.weights * shape.itemsize)}
    taken = {what: ROOM * workers * bytes_ for what, bytes_ in each.items()}
    return {"programs": workers * programs(shape.place)} | taken | saved


def learning(config: TrainConfig, shape: Shape, lives: list[Rehearsed]) -> float:
    """Bytes that the dearest pass there and back takes at its height."""
    most = sorted(lives, key=lambda life: life.passes, reverse=True)[: config.packs_per_step]  # a step may have fewer
    parts = micro_batches(grouped(most, config.group_size), config.learner.max_microbatch_tokens)
    part = max(parts, key=lambda part: scored(part) * shape.vocabulary + len(part.ids) * shape.width * shape.layers)
    sampled, layer = scored(part), shape.kept(part)
    if config.learner.gradient_checkpointing:
        kept, sampled = shape.layers * len(part.ids) * shape.width * shape.itemsize + layer, min(sampled, PIECE)
    else:
        kept = shape.layers * layer
    # logits as they come, in full, their logprobs, probabilities and gradient; now and then a copy is gone late
    return float(kept + layer + sampled * shape.vocabulary * (20 + shape.itemsize))


def scored(part: MicroBatch) -> int:
    """How many ids a pass has logits of."""
    return sum(sum(sample.mask) for sample in part.samples)


def fitting(
    config: TrainConfig, profile: Profile, shape: Shape, lives: list[Rehearsed], there: float
) -> tuple[str, ...]:
    """The first changes, one on top of the other, with which it fits; nothing if none do."""
    said: dict[str, str] = {}
    for key, value, changed in less(config):
        said[key] = f"{key}={value}"
        if sum(memory(changed, profile, shape, lives).values()) <= there:
            return tuple(said.values())
    return ()


def less(config: TrainConfig) -> Iterator[tuple[str, Any, TrainConfig]]:
    """Changes that take less memory, those first that cost least."""

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


def step_seconds(config: TrainConfig, shape: Shape, lives: list[Rehearsed]) -> dict[str, float]:
    """Seconds of one step by what they are for."""
    from codots.preflight.timing import try_passes

    workers = config.workers if shape.place.device == "cpu" else 1
    rows = -(-config.packs_per_step * config.group_size // workers)
    pace = try_passes(shape, lives, min(rows, 64), config.learner.gradient_checkpointing)
    samples = [sample for life in lives for sample in life.samples]
    run = sum(len(part.ids) for part in micro_batches(samples, config.learner.max_microbatch_tokens)) / len(lives)
    read = sum(len(sample.ids) - sum(sample.mask) for sample in samples) / len(lives)
    worlds = sum(life.seconds for life in lives) / len(lives)
    return {
        "sampling": max(life.passes for life in lives) * pace.sampled,
        "reading": rows * read * pace.read,
        "worlds and words": rows * worlds,
        "learning": rows * run * pace.learned,
    }
