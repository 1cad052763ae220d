"""A warning when rewards fall while replies become alike, and at no other time."""

import json
import logging

import numpy as np
import pytest

from codots.training.collapse import WINDOW, find_collapse
from codots.training.train import train, warn_of_collapse
from tests.training.small import recipe


def run_of(rewards, entropies, distinct=None):
    distinct = distinct or [0.8] * len(rewards)
    return [
        {"reward/0": r - 0.1, "reward/1": r + 0.1, "train/entropy": e, "rollout/distinct_replies": d}
        | {"credit/zero_signal_groups": 0.5}
        for r, e, d in zip(rewards, entropies, distinct, strict=True)
    ]


FALLING = [0.35] * 5 + [0.2, 0.1, 0.03, 0.03, 0.03, 0.03]
NARROWER = [0.20] * 5 + [0.15, 0.08, 0.065, 0.065, 0.065, 0.065]


def test_a_fall_of_rewards_with_alike_replies_is_a_collapse():
    found = find_collapse(run_of(FALLING, NARROWER))
    assert (found.best, found.reward) == pytest.approx((0.35, np.mean(FALLING[-5:])))
    assert str(found).startswith("training is collapsing: mean reward 0.044 (its best was 0.35), entropy 0.068 (it was")
    assert "50% of groups without a learning signal" in str(found)
    assert "learner.lr" in str(found)
    fewer = find_collapse(run_of(FALLING, [0.2] * 11, [0.8] * 5 + [0.1] * 6))
    assert fewer.signs == ("10% distinct replies in a group (80%)",)


@pytest.mark.parametrize(
    ("rewards", "entropies"),
    [
        (FALLING, [0.2] * 11),  # a hard stretch: replies stay varied
        (FALLING[::-1], NARROWER),  # learning: replies become alike because they are right
        ([0.35] * 10 + [0.0], [0.2] * 10 + [0.05]),  # one bad step
        (FALLING[: 2 * WINDOW - 1], NARROWER[: 2 * WINDOW - 1]),  # too early to tell
        ([np.nan] * 11, NARROWER),  # no life was rolled out
        ([0.0] * 11, NARROWER),  # nothing was ever learned
    ],
)
def test_anything_else_is_none(rewards, entropies):
    assert find_collapse(run_of(rewards, entropies)) is None


def test_a_missing_metric_is_no_sign():
    steps = [{key: value for key, value in step.items() if "reward" in key} for step in run_of(FALLING, NARROWER)]
    assert find_collapse(steps) is None


def test_the_warning_comes_once_for_each_collapse(caplog):
    steps = run_of(FALLING, NARROWER)
    with caplog.at_level(logging.WARNING):
        for step in range(1, len(steps) + 1):
            steps[step - 1]["train/collapse"] = float(warn_of_collapse(step, steps[:step]))
    assert [step["train/collapse"] for step in steps] == [0.0] * 9 + [1.0, 1.0]
    assert [record.getMessage()[:8] for record in caplog.records] == ["step 10:"]


def test_distinct_replies_are_counted_by_group(base, tmp_path):
    config = recipe(base, tmp_path / "run")
    (report, *_) = train(config)
    written = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    groups = [report.lives[i : i + config.group_size] for i in range(0, len(report.lives), config.group_size)]
    shares = []
    for group in groups:
        solves = [[e for e in life.episodes if e.kind == "solve"] for life in group]
        for position in range(len(solves[0])):
            scripts = [life[position].transcript for life in solves]
            replies = {tuple(np.array(script.ids)[script.mask]) for script in scripts}
            shares.append((len(replies) - 1) / (len(group) - 1))
    assert written["rollout/distinct_replies"] == report.metrics["rollout/distinct_replies"] == np.mean(shares)
    assert written["train/collapse"] == 0
