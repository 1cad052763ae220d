"""Setup of a run from its recipe: engine, entries, metrics and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from codots.algorithm.credit import Advantages
from codots.config.schema import RunKeys, TrainConfig, WorldConfig, fingerprint
from codots.core.files import check_readable, write_atomically
from codots.core.suggest import check_known, nearest
from codots.domains.registry import make_pack
from codots.engine.base import Engine
from codots.engine.local import LocalEngine
from codots.engine.plan import SAMPLERS, Plan
from codots.engine.ray import RayEngine
from codots.learner.config import LearnerConfig
from codots.model.adapter import Model, folders, holder
from codots.model.device import DTYPES, place
from codots.model.load import model_folder
from codots.rollout.fit import check_fits
from codots.rollout.profile import PROFILE, Profile, load_profile
from codots.runs.checkpoint import best_checkpoint, find_checkpoint, last_checkpoint, save_checkpoint, score_of
from codots.runs.folder import MUTABLE_KEYS, open_run, saved_recipe
from codots.runs.loggers import Metrics, check_loggers
from codots.training.batch import Block, Entry, credit_of
from codots.training.dev import DevEvaluation

AnyRun = TypeVar("AnyRun", bound=RunKeys)


@dataclass
class OpenRun:
    """An open run of any kind, and its parts."""

    config: RunKeys
    ends: tuple[int, ...]
    """Last step of each stage. These steps are always saved."""
    folder: Path
    engine: Engine
    dev: DevEvaluation
    metrics: Metrics
    steps_done: int
    """Number of completed steps when the run was opened."""
    tokens: int
    """Number of tokens sampled so far."""

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return self.ends[-1]

    def save(self, step: int, dev: float | None = None) -> None:
        """Save a checkpoint of this step, with the step's dev score if there is one."""
        state = {"tokens": self.tokens, "dev": dev}
        recipe, keep = run_fingerprint(self.config.to_dict()), self.config.keep_checkpoints
        save_checkpoint(self.folder, step, recipe, state, self.engine.save, keep)

    def is_best(self, dev: float | None) -> bool:
        """Return whether there is a dev score and it is better than the score of every checkpoint."""
        return dev is not None and dev > score_of(best_checkpoint(self.folder))


@dataclass
class Run(OpenRun):
    """An open run of RL."""

    config: TrainConfig
    entries: tuple[Entry, ...]
    credit: Callable[[Sequence[Block]], list[Advantages]]

    @property
    def lives_per_step(self) -> int:
        """Number of lives rolled out per step."""
        return self.config.packs_per_step * self.config.group_size


def run_fingerprint(recipe: dict[str, Any]) -> str:
    """Return the hash of a recipe that must not change on resume."""
    return fingerprint(recipe, without=MUTABLE_KEYS)


def open_training(config: TrainConfig, stack: ExitStack, *, resume: bool = False, engine: Engine | None = None) -> Run:
    """Open a run: new, resumed, or initialized from another run's checkpoint.

    `engine` replaces the engine of the recipe. `stack` closes `engine` and everything that is opened here.
    """
    if engine is not None:
        stack.enter_context(closing(engine))
    check_loggers(config.loggers)
    run, saved = Path(config.run), None
    if resume:
        config = with_saved_dtype(config)
        recipe = config.to_dict()
        stack.enter_context(open_run(run, recipe, resume=True))
        saved = last_checkpoint(run, run_fingerprint(recipe))
    origin = find_checkpoint(config.init_from) if config.init_from and not saved else None
    source = (saved or origin) if config.init_from else None
    # With LoRA, the adapter of a checkpoint needs the base model; the model of the checkpoint is merged.
    whole = source if not config.learner.lora else None
    folder = model_folder(whole[0]) if whole else model_folder(config.model, config.base)
    check_readable(*folders(folder))
    if not resume:
        config = with_chosen_dtype(config, folder)
        recipe = config.to_dict()
    profile = profile_of(config, folder)
    entries = entries_of(config, profile)
    if engine is None:
        engine = stack.enter_context(closing(make_engine(config, engine_plan(config, folder, profile))))
        check_prompts(config.worlds, folder, profile)
    if origin:
        engine.init_from(origin[0])
    if not resume:  # last, so that an invalid model raises before anything is written
        stack.enter_context(open_run(run, recipe, resume=False))
    steps_done, tokens = (saved[1]["step"], saved[1]["tokens"]) if saved else (0, 0)
    if saved:
        engine.load(saved[0], steps_done)
    dev = DevEvaluation(entries, config.eval_packs, config.seed)
    metrics = stack.enter_context(closing(Metrics(run, steps_done, config.loggers, recipe)))
    opened = Run(
        config=config,
        ends=(config.steps,),
        folder=run,
        engine=engine,
        dev=dev,
        metrics=metrics,
        steps_done=steps_done,
        tokens=tokens,
        entries=entries,
        credit=lambda blocks: credit_of(config, blocks),
    )
    if origin:
        save_origin(opened, *origin)
    return opened


def with_chosen_dtype(config: AnyRun, model: Model | None) -> AnyRun:
    """Return the recipe with the dtype that this machine uses in place of `auto`. It is float32 without a model.

    The run stores it, so that another machine resumes the run in the same precision.
    """
    if config.dtype != "auto":
        return config
    return config.model_copy(update={"dtype": place(model, config.device).dtype if model else "float32"})


def with_saved_dtype(config: AnyRun) -> AnyRun:
    """Return the recipe with the dtype that its run has stored, in place of `auto`.

    Raises ValueError if the run has stored none that is known.
    """
    if config.dtype != "auto":
        return config
    saved = saved_recipe(Path(config.run)).get("dtype", "auto")
    check_known(saved, DTYPES, f"dtype in {Path(config.run, 'config.yaml')}:")
    return config.model_copy(update={"dtype": saved})


def profile_of(config: TrainConfig, folder: Model) -> Profile:
    """Return the profile of the model's folder with the recipe's overrides.

    Raises ValueError for an unknown key, a prompt style that a domain of the recipe lacks, or temperature 0.
    """
    return changed_profile(config, config.worlds, load_profile(holder(folder, PROFILE)))


def changed_profile(config: RunKeys, worlds: Iterable[WorldConfig], default: Profile) -> Profile:
    """Return the default profile with the recipe's overrides. Raises ValueError as `profile_of` does."""
    known = [field.name for field in fields(Profile)]
    if unknown := [key for key in config.profile if key not in known]:
        raise ValueError(nearest(unknown[0], known, "key of profile"))
    profile = replace(default, **config.profile)  # type: ignore[arg-type]
    if profile.temperature == 0:  # equal lives have equal returns, and no advantage
        raise ValueError("profile.temperature is 0, which makes all lives of a group alike; expected more, such as 1")
    for world in worlds:
        entry_profile(profile, world)
    return profile


def entry_profile(profile: Profile, world: WorldConfig) -> Profile:
    """Return the profile for one entry. Raises ValueError if the domain lacks the prompt style."""
    return replace(profile, **world.profile).fits(world.domain)


def check_prompts(worlds: Sequence[WorldConfig], model: Model, profile: Profile) -> None:
    """Raise ValueError if the first prompt of an entry of `worlds` does not fit into the model."""
    packs = [make_pack(world.domain, world.preset, "train", 0, world.pack_size) for world in worlds]
    wanted = zip(packs, worlds, strict=True)
    check_fits(model, [(pack, entry_profile(profile, world)) for pack, world in wanted])


def entries_of(config: TrainConfig, profile: Profile) -> tuple[Entry, ...]:
    """Return the entries of a recipe's `worlds`."""
    rest = config.group_size, config.contexts == "own", config.on_parse_failure
    return tuple(make_entry(config.worlds, i, profile, *rest) for i in range(len(config.worlds)))


def make_entry(
    worlds: Sequence[WorldConfig],
    i: int,
    profile: Profile,
    group_size: int = 1,
    own: bool = True,
    on_parse_failure: str = "keep",
) -> Entry:
    """Return entry `i` of a list of worlds."""
    world = worlds[i]
    own_profile = entry_profile(profile, world)
    same_source = [
        (k, w.packs_per_step) for k, w in enumerate(worlds) if (w.domain, w.preset) == (world.domain, world.preset)
    ]
    return Entry(
        label=label(world, worlds),
        world=world,
        params=own_profile.episode_params(),
        strategy=own_profile.strategy(on_parse_failure),
        group_size=group_size,
        own=own,
        first=sum(packs for k, packs in same_source if k < i),
        stride=sum(packs for _, packs in same_source),
    )


def label(world: WorldConfig, worlds: Sequence[WorldConfig]) -> str:
    """Return the label of an entry.

    It is the domain, plus as many of preset, pack size and index as are needed to distinguish the entry from the other
    entries.
    """
    parts = [(w.domain, w.preset, str(w.pack_size), str(i)) for i, w in enumerate(worlds)]
    own = parts[worlds.index(world)]
    shared = max((_common_prefix(own, other) for other in parts if other != own), default=0)
    return ":".join(own[: shared + 1])


def _common_prefix(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the common prefix of two sequences of equal length."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def make_engine(config: TrainConfig, plan: Plan) -> Engine:
    """Start the engine of a recipe."""
    if config.engine.kind == "ray":
        of = config.engine
        return RayEngine(plan, of.samplers, of.learners, max_logprob_gap=config.max_logprob_gap)
    return LocalEngine(plan, config.workers)


def engine_plan(config: TrainConfig, folder: Model, profile: Profile) -> Plan:
    """Return the plan of the workers for a recipe."""
    reference = None
    if config.learner.kl_coef:
        other = config.learner.reference
        reference = model_folder(other) if other else model_folder(config.model, config.base)
    plan = learner_plan(config, folder, profile, config.learner, config.steps * config.minibatches)
    # The batches of a step, of those ahead and of an evaluation.
    in_flight = config.engine.ahead + 2 if config.keeps_lives else 0
    plan = replace(plan, make_sampler=SAMPLERS[config.sampler], tensor_parallel=config.engine.tensor_parallel)
    return replace(plan, reference=reference, in_flight=in_flight)


def learner_plan(config: RunKeys, folder: Model, profile: Profile, learner: LearnerConfig, steps: int) -> Plan:
    """Return the plan of the workers for a number of optimizer steps, without a reference model."""
    return Plan(
        folder,
        profile,
        learner,
        total_steps=steps,
        place=place(folder, config.device, config.dtype),
        cache_bytes=int(config.kv_cache_gib * 2**30),
    )


def save_origin(run: Run, origin: Path, state: dict[str, Any]) -> None:
    """Save the initial weights as checkpoint 0 of this run, because the run they came from may delete its own.

    Also write the origin of the weights to `origin.json`.
    """
    source = {"checkpoint": str(origin.resolve()), "step": state["step"], "recipe": state["recipe"]}
    write_atomically(run.folder / "origin.json", json.dumps(source | {"files": state["files"]}, indent=2) + "\n")
    run.save(0)
