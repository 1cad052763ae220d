"""A tiny base model from nothing: skill first, then noise on every single decision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codots.config.schema import PretrainConfig, Stage
from codots.core.deadline import STAGE_TIMEOUT
from codots.core.files import write_folder
from codots.core.rng import Names
from codots.core.transcript import Sample
from codots.domains.base import Pack
from codots.domains.frozen_lake.teacher import Noise, Teacher
from codots.domains.registry import make_pack
from codots.engine.local import LocalEngine
from codots.engine.worker import Plan, Worker
from codots.learner.batch import normalizer
from codots.learner.config import LearnerConfig
from codots.model.tiny import make_model, make_tokenizer, save
from codots.rollout.life import Job
from codots.rollout.profile import Profile
from codots.rollout.steps import Given, Own
from codots.runs.folder import open_run
from codots.sampler.scripted import ScriptedSampler

PROFILE = Profile(style="compact", solve_tokens=4, update_tokens=14, max_context_chars=200)


@dataclass(frozen=True)
class PretrainReport:
    """What one step of imitation did."""

    stage: int
    step: int
    """Of the stage."""
    steps: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Teaching:
    """Makes a worker's scripted sampler."""

    noise: Noise

    def __call__(self, worker: Worker) -> ScriptedSampler:
        return ScriptedSampler(worker.render, self._player)

    def _player(self, names: Names) -> Teacher:
        return Teacher(self.noise, names)


def pretrain(config: PretrainConfig) -> Iterator[PretrainReport]:
    """Make a model, teach it stage by stage, and leave it in `run/model`."""
    recipe = config.model_dump(mode="json")
    with open_run(Path(config.run), recipe, resume=False, resumable=False) as run:
        yield from taught(config, run)


def taught(config: PretrainConfig, run: Path) -> Iterator[PretrainReport]:
    """Go through the stages."""
    folder = run / "start"
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, width=config.width, layers=config.layers, heads=config.heads, seed=config.seed)
    save(model, tokenizer, folder)
    for number, stage in enumerate(config.stages):
        learner = imitation(stage)
        plan = Plan(folder, PROFILE, learner, total_steps=stage.steps, make_sampler=Teaching(stage.noise))
        engine = LocalEngine(plan, config.workers)
        try:
            for step in range(1, stage.steps + 1):
                batch = lesson(engine, config, stage, number, step)
                metrics = engine.forward_backward(batch, normalizer(batch, learner), STAGE_TIMEOUT)
                metrics |= engine.optim_step(STAGE_TIMEOUT)
                engine.sync(STAGE_TIMEOUT)
                yield PretrainReport(number, step, stage.steps, metrics)
            last = number + 1 == len(config.stages)
            folder = run / ("model" if last else f"stage-{number}")
            write_folder(folder, engine.save_model)
        finally:
            engine.close()


def imitation(stage: Stage) -> LearnerConfig:
    """Maximum likelihood is REINFORCE where every advantage is 1."""
    return LearnerConfig(
        lr=stage.lr, warmup_steps=50, min_lr_ratio=stage.min_lr_ratio, weight_decay=0.01, loss="reinforce"
    )


def lesson(engine: LocalEngine, config: PretrainConfig, stage: Stage, number: int, step: int) -> list[Sample]:
    """The scripted lives of one step, as samples."""
    jobs = []
    for i in range(stage.packs_per_step):
        index = (step - 1) * stage.packs_per_step + i
        preset = stage.presets[i % len(stage.presets)]
        pack = make_pack(config.domain, preset, "train", index, config.pack_size)
        jobs.append(
            Job(pack, contexts(pack, stage, i), PROFILE.episode_params(), ("pretrain", config.seed, number, step, i))
        )
    lives = engine.rollout(jobs, STAGE_TIMEOUT)
    failure = next((life.failure for life in lives if life.failure), None)
    if failure:
        raise RuntimeError(f"the scripted player failed: {failure}")
    return [episode.transcript.sample(1.0) for life in lives for episode in life.episodes]


def contexts(pack: Pack, stage: Stage, i: int) -> Own | Given:
    """Lives write their own contexts, but for those that are given the true one."""
    strategy = PROFILE.strategy()
    if i % 4 < 4 * stage.given:
        truth = pack.domain.oracle_context(pack.world, PROFILE.style)
        return Given(strategy, (truth,) * len(pack.tasks))
    return Own(strategy)
