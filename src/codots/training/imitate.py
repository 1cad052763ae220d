"""Imitation: train a model, new or existing, on the lives of teachers or on recorded lives, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from codots.config.imitate import ImitateConfig
from codots.config.schema import WorldConfig
from codots.core.deadline import within
from codots.core.files import check_readable, write_atomically, write_folder
from codots.core.processes import check_main_guard
from codots.engine.local import LocalEngine
from codots.learner.batch import normalizer
from codots.model.adapter import Model, folders, holder
from codots.model.load import model_folder
from codots.rollout.fit import window
from codots.rollout.life import Job, Life
from codots.rollout.profile import PROFILE, Profile, load_profile
from codots.rollout.records import dump, life_rows
from codots.runs.checkpoint import last_checkpoint
from codots.runs.folder import open_run
from codots.runs.loggers import Metrics, check_loggers
from codots.training.dev import DevEvaluation
from codots.training.lessons import Lessons, samples_of
from codots.training.new_model import open_new_model
from codots.training.setup import (
    OpenRun,
    changed_profile,
    check_prompts,
    learner_plan,
    make_entry,
    run_fingerprint,
    with_chosen_dtype,
    with_saved_dtype,
)
from codots.training.train import StepReport, report_and_save

RECORDED = 4
"""Number of lives of a step that are recorded."""


@dataclass
class Imitation(OpenRun):
    """An open run of imitation. Its engine is that of the current stage."""

    config: ImitateConfig
    profile: Profile
    lessons: list[Lessons]
    """The lessons of each stage."""
    longest: int
    """Maximum length of a lesson, in tokens."""
    start: Model
    """The model of the first stage."""
    stack: ExitStack
    """Closes the engines."""

    def stage_at(self, step: int) -> int:
        """Return the index of the stage that a step belongs to."""
        return next(i for i, end in enumerate(self.ends) if step <= end)


def imitate(
    config: ImitateConfig,
    *,
    resume: bool = False,
    on_progress: Callable[[str], None] = lambda stage: None,
) -> Generator[StepReport, None, None]:
    """Train a model on lessons by a recipe and yield one report per step.

    The run folder is that of `train`, and its steps count over all stages. Closing the iterator saves a checkpoint;
    `resume` continues from the last one, bit for bit. `on_progress` is called with the name of each part of a step when
    it starts.

    Raises ValueError for an invalid recipe, RuntimeError if a teacher fails, and TimeoutError for a part that takes
    longer than `stage_timeout`.
    """
    check_main_guard()
    timeout = config.stage_timeout
    with ExitStack() as stack:
        on_progress("starting")
        run = within(timeout, "starting", lambda: open_imitation(config, stack, resume=resume))
        for step in range(run.steps_done + 1, run.steps + 1):
            start, number = time.perf_counter(), run.stage_at(step)
            if run.steps_done < step - 1 and step - 1 in run.ends:
                on_progress(f"starting stage {number + 1} of {len(run.ends)}")
                within(timeout, "starting a stage", partial(next_stage, run, number))
            jobs = run.lessons[number].jobs(step)
            on_progress(f"rolling out {len(jobs)} lessons")
            lives = run.engine.rollout(jobs, timeout)
            rollout_seconds = time.perf_counter() - start
            on_progress("updating the weights")
            values = update(run, number, lives)
            if step == 1 or step % config.rollout_log_every == 0:
                record(run.folder / "rollouts", step, jobs, lives)
            values |= {"time/rollout": rollout_seconds, "time/step": time.perf_counter() - start}
            if config.eval_every and (step % config.eval_every == 0 or step in run.ends):
                on_progress(f"evaluating {config.eval_packs} dev packs")
                run.engine.sync(timeout)
                values |= run.dev.evaluate(run.engine, timeout)
                values.pop("eval/score", None)  # the rewards of a model that imitates do not say which one is best
            if step in run.ends[:-1]:
                on_progress("saving the model of the stage")
                folder = run.folder / f"stage-{number + 1}"
                within(timeout, "saving a model", partial(write_folder, folder, run.engine.save_model))
            report = StepReport(step, run.steps, values, lives, [job.pack for job in jobs])
            yield from report_and_save(run, report, on_progress)
        on_progress("saving the model")
        within(timeout, "saving the model", partial(write_folder, run.folder / "model", run.engine.save_model))


def update(run: Imitation, number: int, lives: Sequence[Life]) -> dict[str, float]:
    """Take one optimizer step on the lessons of a step and return its metrics."""
    timeout, learner = run.config.stage_timeout, run.config.learner_of(run.config.stages[number])
    samples = samples_of(lives, run.longest)
    values = run.engine.forward_backward(samples, normalizer(samples, learner), timeout)
    values |= run.engine.optim_step(timeout)
    tokens = sum(sum(sample.mask) for sample in samples)
    run.tokens += tokens
    kept = {name: value for name, value in values.items() if not name.startswith("train/logprob_gap")}
    return kept | {"tokens/sampled": tokens, "tokens/total": run.tokens}


def record(folder: Path, step: int, jobs: Sequence[Job], lives: Sequence[Life]) -> None:
    """Write the first lives of a step to `step-NNNNNN.jsonl`."""
    folder.mkdir(exist_ok=True)
    lived = list(zip(jobs, lives, strict=True))[:RECORDED]
    rows = [row for job, life in lived for row in life_rows(job.pack, life, arm="teacher", step=step)]
    write_atomically(folder / f"step-{step:06d}.jsonl", dump(rows))


@dataclass(frozen=True)
class Prepared:
    """A validated recipe, and what is known before anything is written."""

    given: Model | None
    """The model that the recipe names, or None for a new model."""
    profile: Profile
    lessons: list[Lessons]
    worlds: list[WorldConfig]
    """The different worlds of all stages."""


def prepare(config: ImitateConfig) -> Prepared:
    """Validate a recipe. Raises ValueError for a model that cannot be read, and for lessons that cannot be had."""
    check_loggers(config.loggers)
    given = None if config.model is None else model_folder(config.model, config.base)
    default = Profile() if given is None else load_profile(holder(given, PROFILE))
    profile = changed_profile(config, config.entries(), default)
    lessons = [Lessons(config, stage, profile) for stage in config.stages]
    worlds = list({str(world): world for part in lessons for world in part.worlds}.values())
    if given is not None:
        check_readable(*folders(given))
        check_prompts(worlds, given, profile)
    return Prepared(given, profile, lessons, worlds)


def open_imitation(config: ImitateConfig, stack: ExitStack, *, resume: bool = False) -> Imitation:
    """Open a run: a new one, or resumed from its last checkpoint. `stack` closes everything that is opened here."""
    run, saved = Path(config.run), None
    if resume:
        config = with_saved_dtype(config)
        stack.enter_context(open_run(run, config.to_dict(), resume=True))
        saved = last_checkpoint(run, run_fingerprint(config.to_dict()))
    prepared = prepare(config)
    if not resume:
        config = with_chosen_dtype(config, prepared.given)
    recipe = config.to_dict()
    profile, worlds = prepared.profile, prepared.worlds
    given = prepared.given or open_new_model(config, prepared.lessons[0], worlds, profile, stack, resume=resume)
    ends, done = tuple(accumulate(stage.steps for stage in config.stages)), saved[1]["step"] if saved else 0
    number = next(i for i, end in enumerate(ends) if done < end or end == ends[-1])
    engine = open_engine(config, number, given, profile, stack)
    if not resume and prepared.given is not None:  # last, so that an invalid model raises before anything is written
        stack.enter_context(open_run(run, recipe, resume=False))
    if saved and done > (0, *ends)[number]:
        engine.load(saved[0], done)
    entries = [make_entry(worlds, i, profile) for i in range(len(worlds))]
    return Imitation(
        config=config,
        ends=ends,
        folder=run,
        engine=engine,
        dev=DevEvaluation(entries, config.eval_packs, config.seed, oracle=True),
        metrics=stack.enter_context(closing(Metrics(run, done, config.loggers, recipe))),
        steps_done=done,
        tokens=saved[1]["tokens"] if saved else 0,
        start=given,
        profile=profile,
        lessons=prepared.lessons,
        longest=min(profile.max_model_len, window(given)),
        stack=stack,
    )


def open_engine(config: ImitateConfig, number: int, start: Model, profile: Profile, stack: ExitStack) -> LocalEngine:
    """Open the engine of a stage. Later stages start from the model of the stage before."""
    stage = config.stages[number]
    folder = start if number == 0 else Path(config.run) / f"stage-{number}"
    plan = learner_plan(config, folder, profile, config.learner_of(stage), stage.steps)
    return stack.enter_context(closing(LocalEngine(plan, config.workers)))


def next_stage(run: Imitation, number: int) -> None:
    """Replace the engine by that of a stage, which has a new optimizer."""
    run.engine.close()
    run.engine = open_engine(run.config, number, run.start, run.profile, run.stack)
