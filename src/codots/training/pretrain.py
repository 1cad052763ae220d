"""Pretraining of a tiny base model by imitation: first of a skilled policy, then of a noisy one."""

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
    """Result of one imitation step."""

    stage: int
    step: int
    """Number of the step in its stage, from 1."""
    steps: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class MakeTeacherSampler:
    """Factory of worker samplers that reply as the teacher does."""

    noise: Noise

    def __call__(self, worker: Worker) -> ScriptedSampler:
        return ScriptedSampler(worker.render, self._teacher)

    def _teacher(self, names: Names) -> Teacher:
        return Teacher(self.noise, names)


def pretrain(config: PretrainConfig) -> Iterator[PretrainReport]:
    """Train a new model stage by stage, yield a report of each step, and save the model in `run/model`."""
    recipe = config.model_dump(mode="json")
    with open_run(Path(config.run), recipe, resume=False, resumable=False) as run:
        yield from _run_stages(config, run)


def _run_stages(config: PretrainConfig, run: Path) -> Iterator[PretrainReport]:
    folder = run / "start"
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, width=config.width, layers=config.layers, heads=config.heads, seed=config.seed)
    write_folder(folder, lambda part: save(model, tokenizer, part))
    for number, stage in enumerate(config.stages):
        learner = imitation_config(stage)
        plan = Plan(folder, PROFILE, learner, total_steps=stage.steps, make_sampler=MakeTeacherSampler(stage.noise))
        engine = LocalEngine(plan, config.workers)
        try:
            for step in range(1, stage.steps + 1):
                batch = imitation_batch(engine, config, stage, number, step)
                metrics = engine.forward_backward(batch, normalizer(batch, learner), STAGE_TIMEOUT)
                metrics |= engine.optim_step(STAGE_TIMEOUT)
                engine.sync(STAGE_TIMEOUT)
                yield PretrainReport(number, step, stage.steps, metrics)
            last = number + 1 == len(config.stages)
            folder = run / ("model" if last else f"stage-{number}")
            write_folder(folder, engine.save_model)
        finally:
            engine.close()


def imitation_config(stage: Stage) -> LearnerConfig:
    """Return the config of maximum-likelihood training, which is REINFORCE with all advantages 1."""
    return LearnerConfig(
        lr=stage.lr, warmup_steps=50, min_lr_ratio=stage.min_lr_ratio, weight_decay=0.01, loss="reinforce"
    )


def imitation_batch(engine: LocalEngine, config: PretrainConfig, stage: Stage, number: int, step: int) -> list[Sample]:
    """Roll out the teacher's lives of one step and return their episodes as samples.

    Raises RuntimeError if a life failed.
    """
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
        raise RuntimeError(f"the scripted policy failed: {failure}")
    return [episode.transcript.sample(1.0) for life in lives for episode in life.episodes]


def contexts(pack: Pack, stage: Stage, i: int) -> Own | Given:
    """Return the context source of life i.

    A fraction `stage.given` of the lives gets the oracle context; the others write their own contexts.
    """
    strategy = PROFILE.strategy()
    if i % 4 < 4 * stage.given:
        truth = pack.domain.oracle_context(pack.world, PROFILE.style)
        return Given(strategy, (truth,) * len(pack.tasks))
    return Own(strategy)
