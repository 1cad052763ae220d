"""One step of a recipe as a training takes it, for benchmarks that time its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codots.algorithm.credit import Advantages
from codots.config.load import load_recipe
from codots.config.schema import TrainConfig
from codots.core.transcript import Sample
from codots.engine.local import LocalEngine, Plan
from codots.model.load import model_folder
from codots.rollout.life import Life
from codots.rollout.profile import load_profile
from codots.training.train import collect, credit_of, samples, step_jobs, step_packs

DEMO = Path(__file__).parents[1] / "recipes" / "demo.yaml"


def demo(*changes: str) -> TrainConfig:
    """The recipe of the demo, with changes."""
    return load_recipe(TrainConfig, DEMO, list(changes))


def engine_of(config: TrainConfig) -> LocalEngine:
    """The engine that a training by this recipe would have."""
    folder = model_folder(config.model)
    steps = config.steps * config.minibatches
    plan = Plan(folder, load_profile(folder), config.learner, total_steps=steps, gap_limit=config.gap_limit)
    return LocalEngine(plan, config.workers)


def lived(engine: LocalEngine, config: TrainConfig) -> list[Life]:
    """Live the lives of the first step."""
    lives = engine.live(step_jobs(config, engine.plan.profile, step_packs(config, 1), 1))
    if failures := [life.failure for life in lives if life.failure]:
        raise RuntimeError(f"{len(failures)} lives are missing: {failures[0]}")
    return lives


def credited(config: TrainConfig, lives: Sequence[Life]) -> Advantages:
    """Credit them."""
    return credit_of(config, collect(lives, config.packs, config.group, config.size))


def step_samples(config: TrainConfig) -> list[Sample]:
    """What the learner gets in the first step."""
    engine = engine_of(config)
    lives = lived(engine, config)
    engine.close()
    credit = credited(config, lives)
    return [one for i, life in enumerate(lives) for one in samples(life, credit, *divmod(i, config.group))]
