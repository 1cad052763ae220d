"""Estimate the memory and time of a recipe before it runs, and find changes that make it fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from codots.config.schema import TrainConfig
from codots.domains.registry import make_pack
from codots.learner.config import LoraConfig
from codots.model.adapter import folders
from codots.model.device import Place, place
from codots.model.kind import read_config
from codots.model.load import load_render
from codots.model.renderer import Render
from codots.preflight.gpus import Gpu, speed_on
from codots.preflight.memory import GIB, memory, roles
from codots.preflight.model_shape import Shape
from codots.rollout.fit import DryRun, dry_run
from codots.rollout.profile import Profile
from codots.runs.checkpoint import start_folder
from codots.training.setup import check_prompts, entry_profile, profile_of

PACKS = 4
"""Mean number of packs in the dry run per entry of `worlds`."""
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
    sampled: float = 0.0
    """Number of tokens that one step samples. 0 if `seconds` is empty."""
    actors: dict[str, int] = field(default_factory=dict)
    """Number of actors of a run on Ray, by role. Empty for a run on one machine."""
    devices: int = 1
    """Number of CPUs, or GPUs, that a sampler needs. A learner needs one."""
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


def estimate(config: TrainConfig, gib: float | None = None, gpu: Gpu | None = None) -> Estimate:
    """Estimate the memory and time of a run on this machine, or on a GPU, or only the memory on another device.

    The time on a `gpu` is arithmetic (`preflight.gpus`), that here is measured. A device of `gib` GiB has no time.
    Actors on Ray count as if they all ran on this machine, or each on a GPU of its own. The memory is that of
    replies of maximum length. The time is that of replies of half the maximum length; it is not estimated if the run
    does not fit into memory. Raises ValueError for a recipe that cannot run.
    """
    folder = start_folder(config.model, config.init_from, config.base)
    profile = profile_of(config, folder)
    check_prompts(config.worlds, folder, profile)
    render = load_render(folder, profile.thinking)
    gib = gpu.gib if gpu else gib
    at = remote_place(config) if gib else place(folder, config.device, config.dtype)
    shape = Shape(read_config(folders(folder)[-1]), at)
    profile = replace(profile, max_model_len=min(profile.max_model_len, shape.positions))
    lives = scripted_lives(config, profile, render, 1.0)
    there = gib * GIB if gib else device_memory(at)
    found = Estimate(at, memory(config, profile, shape, lives), there)
    if config.engine.kind == "ray":
        actors = {"sampler": config.engine.samplers, "learner": config.engine.learners}
        devices = config.engine.tensor_parallel
        found = replace(found, actors=actors, devices=devices, overlap=config.engine.ahead > 0)
    if not found.fits:
        return replace(found, changes=changes_that_fit(config, profile, shape, lives, there))
    if gib and not gpu:
        return found
    lives = scripted_lives(config, profile, render, 0.5, copies=2)
    seconds = step_seconds(config, shape, lives, gpu)
    eval_lives = 2 * config.eval_packs * len(config.worlds)
    eval_seconds = (
        eval_lives / (config.packs_per_step * config.group_size) * (sum(seconds.values()) - seconds["learning"])
    )
    evals = -(-config.steps // config.eval_every) if config.eval_every else 0
    sampled = config.packs_per_step * config.group_size * sum(life.passes for life in lives) / len(lives)
    found = replace(found, seconds=seconds, sampled=sampled)
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


def step_seconds(config: TrainConfig, shape: Shape, lives: list[DryRun], gpu: Gpu | None = None) -> dict[str, float]:
    """Return the seconds of one training step, by use. `lives` has two lives of each pack, one after another."""
    from codots.preflight.timing import time_passes

    samplers, learners = roles(config, shape.place)[0], roles(config, shape.place)[-1]
    lives_per_step = config.packs_per_step * config.group_size
    rows, learned_rows = -(-lives_per_step // samplers.count), -(-lives_per_step // learners.count)
    recompute = config.learner.gradient_checkpointing
    if gpu:
        speed = speed_on(gpu, shape, lives, rows, recompute, config.engine.tensor_parallel)
    else:
        speed = time_passes(shape, lives, min(rows, 64), recompute)
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
