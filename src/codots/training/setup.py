"""How a run begins: anew, where it stopped, or from another run's checkpoint."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from codots.config.schema import TrainConfig
from codots.core.files import write_atomically
from codots.core.suggest import nearest
from codots.engine.local import LocalEngine, Plan
from codots.model.device import place
from codots.model.load import model_folder
from codots.rollout.profile import Profile, load_profile
from codots.runs.checkpoint import fork_point, last_checkpoint, save_checkpoint
from codots.runs.folder import open_run
from codots.runs.loggers import check_loggers


def begin(config: TrainConfig, resume: bool, stack: ExitStack) -> tuple[Path, LocalEngine, Profile, int, int]:
    """Open the run and its engine; gives how many steps and sampled ids are behind it as well."""
    check_loggers(config.loggers)
    run, saved = Path(config.run), None
    if resume:
        stack.enter_context(open_run(run, config, resume=True))
        saved = last_checkpoint(run, config)
    origin = fork_point(config.fork) if config.fork and not saved else None
    source = (saved or origin) if config.fork else None
    folder = model_folder(source[0] if source else config.model)
    if config.learner.lora and source:  # its checkpoints hold what was added to the model, which is read anew
        folder = model_folder(config.model)
    profile = profile_of(config, folder)
    engine = stack.enter_context(closing(LocalEngine(engine_plan(config, folder, profile), config.workers)))
    if origin:
        engine.fork(origin[0])
    if not resume:  # only now: a model that does not fit is refused before anything is written
        stack.enter_context(open_run(run, config, resume=False))
    if saved:
        engine.load(saved[0], saved[1]["step"] * config.minibatches)
        return run, engine, profile, saved[1]["step"], saved[1]["tokens"]
    if origin:
        keep_origin(run, config, engine, *origin)
    return run, engine, profile, 0, 0


def profile_of(config: TrainConfig, folder: Path) -> Profile:
    """How the model is spoken to: as its folder says, and the recipe."""
    said = load_profile(folder)
    known = [field.name for field in fields(Profile)]
    if unknown := [key for key in config.profile if key not in known]:
        raise ValueError(nearest(unknown[0], known, "key of profile"))
    return replace(said, **config.profile).fits(config.domain)  # type: ignore[arg-type]


def engine_plan(config: TrainConfig, folder: Path, profile: Profile) -> Plan:
    """What the engine needs of a recipe."""
    return Plan(
        folder,
        profile,
        config.learner,
        total_steps=config.steps * config.minibatches,
        gap_limit=config.gap_limit,
        place=place(folder, config.device, config.dtype),
        cache_bytes=int(config.cache_gib * 2**30),
    )


def keep_origin(run: Path, config: TrainConfig, engine: LocalEngine, origin: Path, state: dict[str, Any]) -> None:
    """Keep another run's checkpoint as step 0, where the engine has started from it: the other run may drop it."""
    said = {"checkpoint": str(origin.resolve()), "step": state["step"], "recipe": state["recipe"]}
    write_atomically(run / "origin.json", json.dumps(said | {"files": state["files"]}, indent=2) + "\n")
    save_checkpoint(run, 0, config, {"tokens": 0, "dev": None}, engine.save, config.keep)
