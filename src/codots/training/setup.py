"""A recipe turned into parts, once: the engine, the entries of its worlds, its numbers and its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from codots.algorithm.credit import Advantages
from codots.config.schema import TrainConfig, WorldConfig, fingerprint
from codots.core.files import write_atomically
from codots.core.suggest import nearest
from codots.engine.base import Engine
from codots.engine.local import LocalEngine
from codots.engine.worker import SAMPLERS, Plan
from codots.model.device import place
from codots.model.load import model_folder
from codots.rollout.profile import Profile, load_profile
from codots.runs.checkpoint import best_checkpoint, find_checkpoint, last_checkpoint, save_checkpoint, score_of
from codots.runs.folder import MUTABLE_KEYS, open_run
from codots.runs.loggers import Metrics, check_loggers
from codots.training.batch import Block, Entry, credit_of
from codots.training.dev import Dev


@dataclass
class Run:
    """A run with all its parts."""

    config: TrainConfig
    folder: Path
    engine: Engine
    entries: tuple[Entry, ...]
    credit: Callable[[Sequence[Block]], list[Advantages]]
    dev: Dev
    metrics: Metrics
    done: int
    """Steps behind it."""
    tokens: int
    """Sampled ids behind it."""

    @property
    def lives_of_a_step(self) -> int:
        """Lives that are rolled out for each step."""
        return self.config.packs_per_step * self.config.group_size

    def save(self, step: int, dev: float | None = None) -> None:
        """Write a checkpoint."""
        recipe = fingerprint(self.config.to_dict(), without=MUTABLE_KEYS)
        state = {"tokens": self.tokens, "dev": dev}
        save_checkpoint(self.folder, step, recipe, state, self.engine.save, self.config.keep_checkpoints)

    def is_best(self, dev: float | None) -> bool:
        """Tell whether this dev figure is better than that of every checkpoint."""
        return dev is not None and dev > score_of(best_checkpoint(self.folder))


def begin(config: TrainConfig, stack: ExitStack, *, resume: bool = False, engine: Engine | None = None) -> Run:
    """Open a run: anew, where it stopped, or from another run's checkpoint; with the recipe's engine, or this one."""
    if engine is not None:
        stack.enter_context(closing(engine))
    check_loggers(config.loggers)
    run, saved, recipe = Path(config.run), None, config.to_dict()
    if resume:
        stack.enter_context(open_run(run, recipe, resume=True))
        saved = last_checkpoint(run, fingerprint(recipe, without=MUTABLE_KEYS))
    origin = find_checkpoint(config.init_from) if config.init_from and not saved else None
    source = (saved or origin) if config.init_from else None
    folder = model_folder(source[0] if source else config.model)
    if config.learner.lora and source:  # its checkpoints hold what was added to the model, which is read anew
        folder = model_folder(config.model)
    profile = profile_of(config, folder)
    entries = entries_of(config, profile)
    if engine is None:
        engine = stack.enter_context(closing(LocalEngine(engine_plan(config, folder, profile), config.workers)))
    if origin:
        engine.init_from(origin[0])
    if not resume:  # only now: a model that does not fit is refused before anything is written
        stack.enter_context(open_run(run, recipe, resume=False))
    done, tokens = (saved[1]["step"], saved[1]["tokens"]) if saved else (0, 0)
    if saved:
        engine.load(saved[0], done)
    dev = Dev(entries, config.eval_packs, config.seed)
    metrics = stack.enter_context(closing(Metrics(run, done, config.loggers, recipe)))
    parts = Run(config, run, engine, entries, lambda blocks: credit_of(config, blocks), dev, metrics, done, tokens)
    if origin:
        keep_origin(parts, *origin)
    return parts


def profile_of(config: TrainConfig, folder: Path) -> Profile:
    """How the model is spoken to: as its folder says, and the recipe; ValueError if some domain has no such style."""
    said = load_profile(folder)
    known = [field.name for field in fields(Profile)]
    if unknown := [key for key in config.profile if key not in known]:
        raise ValueError(nearest(unknown[0], known, "key of profile"))
    profile = replace(said, **config.profile)  # type: ignore[arg-type]
    for world in config.worlds:
        entry_profile(profile, world)
    return profile


def entry_profile(profile: Profile, world: WorldConfig) -> Profile:
    """How the model is spoken to in the worlds of one entry; ValueError if the domain has no such style."""
    return replace(profile, **world.profile).fits(world.domain)


def entries_of(config: TrainConfig, profile: Profile) -> tuple[Entry, ...]:
    """Make the entries of a run's worlds."""
    entries = []
    for i, world in enumerate(config.worlds):
        mine = entry_profile(profile, world)
        alike = [
            (k, w.packs_per_step)
            for k, w in enumerate(config.worlds)
            if (w.domain, w.preset) == (world.domain, world.preset)
        ]
        entries.append(
            Entry(
                label=label(world, config.worlds),
                world=world,
                params=mine.episode_params(),
                strategy=mine.strategy(config.on_parse_failure),
                group_size=config.group_size,
                own=config.contexts == "own",
                first=sum(packs for k, packs in alike if k < i),
                stride=sum(packs for _, packs in alike),
            )
        )
    return tuple(entries)


def label(world: WorldConfig, worlds: Sequence[WorldConfig]) -> str:
    """Name an entry by its domain and, as far as others share them, its preset, pack size and place in the list."""
    parts = [(w.domain, w.preset, str(w.pack_size), str(i)) for i, w in enumerate(worlds)]
    mine = parts[worlds.index(world)]
    shared = max((_common_prefix(mine, other) for other in parts if other != mine), default=0)
    return ":".join(mine[: shared + 1])


def _common_prefix(one: Sequence[str], other: Sequence[str]) -> int:
    """Count the parts with which both begin."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def engine_plan(config: TrainConfig, folder: Path, profile: Profile) -> Plan:
    """What the local engine needs of a recipe."""
    reference = (config.learner.reference or config.model) if config.learner.kl_coef else None
    return Plan(
        folder,
        profile,
        config.learner,
        reference=model_folder(reference) if reference else None,
        total_steps=config.steps * config.minibatches,
        make_sampler=SAMPLERS[config.sampler],
        place=place(folder, config.device, config.dtype),
        cache_bytes=int(config.kv_cache_gib * 2**30),
    )


def keep_origin(run: Run, origin: Path, state: dict[str, Any]) -> None:
    """Keep another run's checkpoint as step 0, where the engine has started from it: the other run may drop it."""
    said = {"checkpoint": str(origin.resolve()), "step": state["step"], "recipe": state["recipe"]}
    write_atomically(run.folder / "origin.json", json.dumps(said | {"files": state["files"]}, indent=2) + "\n")
    run.save(0)
