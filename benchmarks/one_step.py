"""The parts of one training step, for benchmarks that time them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from codots.algorithm.credit import Advantages
from codots.config.load import load_recipe
from codots.config.schema import TrainConfig
from codots.core.deadline import STAGE_TIMEOUT
from codots.core.transcript import Sample
from codots.engine.local import LocalEngine
from codots.learner.batch import normalizer
from codots.model.load import model_folder
from codots.training.batch import Block, blocks_of, credit_of, minibatches, step_jobs
from codots.training.setup import engine_plan, entries_of, profile_of

DEMO = Path(__file__).parents[1] / "recipes" / "demo.yaml"


def demo(*changes: str, recipe: Path = DEMO) -> TrainConfig:
    """Load the recipe of the demo, or another, with changes."""
    return load_recipe(TrainConfig, recipe, list(changes))


def engine_of(config: TrainConfig) -> LocalEngine:
    """Return the engine that training with this recipe would use."""
    folder = model_folder(config.model)
    return LocalEngine(engine_plan(config, folder, profile_of(config, folder)), config.workers)


def rolled_out(engine: LocalEngine, config: TrainConfig) -> list[Block]:
    """Roll out the lives of the first step; raise `RuntimeError` if any failed."""
    entries = entries_of(config, engine.plan.profile)
    blocks = blocks_of(entries, 1, engine.rollout(step_jobs(entries, config.seed, 1), STAGE_TIMEOUT))
    if failures := [life.failure for block in blocks for life in block.lives if life.failure]:
        raise RuntimeError(f"{len(failures)} lives failed, expected none: {failures[0]}")
    return blocks


def credited(config: TrainConfig, blocks: Sequence[Block]) -> list[Advantages]:
    """Return the credit of the rolled out lives."""
    return credit_of(config, blocks)


def learn(engine: LocalEngine, config: TrainConfig, blocks: Sequence[Block], credit: Sequence[Advantages]) -> None:
    """Take the optimizer steps of a training step and pass the new weights to the sampler."""
    for batch in minibatches(blocks, credit, config.minibatches):
        engine.forward_backward(batch, normalizer(batch, config.learner), STAGE_TIMEOUT)
        engine.optim_step(STAGE_TIMEOUT)
    engine.sync(STAGE_TIMEOUT)


def step_samples(config: TrainConfig) -> list[Sample]:
    """Return the samples that the learner receives in the first step."""
    engine = engine_of(config)
    blocks = rolled_out(engine, config)
    engine.close()
    return [sample for batch in minibatches(blocks, credited(config, blocks), 1) for sample in batch]
