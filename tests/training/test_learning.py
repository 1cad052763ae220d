"""A few steps of RL on lives raise the reward of the last task."""

from __future__ import annotations

from pathlib import Path

from codots.config.schema import TrainConfig
from codots.evaluation.evaluate import Report
from codots.training.train import train
from tests.evaluating import measured

GAIN = 0.15
"""Minimum gain of own reward at the last position, on 100 `dev` packs."""


def measure(model: str | Path) -> Report:
    return measured(model, domain="frozen-lake-v1", preset="easy", split="dev", packs=100, pack_size=4, workers=1)


def test_twenty_steps_from_the_shipped_base_raise_the_last_reward(tmp_path: Path) -> None:
    run = tmp_path / "run"
    learner = {"lr": 5e-4}
    config = TrainConfig.model_validate(
        {"run": str(run), "steps": 20, "packs_per_step": 8, "workers": 2, "eval_every": 0, "learner": learner}
    )
    assert len(list(train(config))) == 20
    before, after = measure("base"), measure(run)
    assert after.arms["own"].reward[3] > before.arms["own"].reward[3] + GAIN
    assert after.lift is not None
    assert after.lift[3] > 0.05
