"""The 95% intervals of a report cover the truth as often as they say, on simulated evaluations whose truth is known."""

import numpy as np
import pytest

from codots.domains.registry import make_pack
from codots.evaluation.curves import compare
from codots.rollout.records import Row

EVALUATIONS, PACKS = 200, 50
OWN, NULL = np.array([0.3, 0.75]), np.array([0.25, 0.25])
HARDNESS = 0.2
"""Both arms of a pack succeed this much more, or less, often than on average."""
GUESS = 0.25
"""What a player without a context earns on average: one of four options pays."""


def rows(pack, arm, rewards):
    """Return the rows of a life that earned these rewards."""
    names = list(pack.names)
    return [Row(names, arm, 0, j, "solve", float(r), "stop", "", None, [], "", 1) for j, r in enumerate(rewards)]


@pytest.fixture(scope="module")
def evaluations():
    """Reports of evaluations whose lives succeed with known probabilities, each on packs of its own."""
    rng, reports = np.random.default_rng(0), []
    for k in range(EVALUATIONS):
        packs = [make_pack("bandit-v1", "easy", f"simulated-{k}", i, 2) for i in range(PACKS)]
        shift = rng.uniform(-HARDNESS, HARDNESS, (PACKS, 1))
        rewards = {arm: rng.random((PACKS, 2)) < mean + shift for arm, mean in (("own", OWN), ("null", NULL))}
        reports.append(compare(packs, {arm: list(map(rows, packs, [arm] * PACKS, r)) for arm, r in rewards.items()}))
    return reports


FIGURES = {
    "reward": (lambda report: report["arms"]["own"].ci95 + report["arms"]["null"].ci95, [*OWN, *NULL]),
    "success": (lambda report: report["arms"]["own"].success_ci95 + report["arms"]["null"].success_ci95, [*OWN, *NULL]),
    "lift": (lambda report: report["lift_ci95"], OWN - NULL),
    "share": (lambda report: report["share_ci95"], (OWN - GUESS) / (1 - GUESS)),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_95_percent_intervals_cover_the_truth_in_92_to_98_percent_of_evaluations(evaluations, figure):
    intervals, truth = FIGURES[figure]
    low, high = np.moveaxis(np.array([intervals(report) for report in evaluations]), -1, 0)
    covered = (low <= truth) & (truth <= high)
    assert 0.92 <= covered.mean() <= 0.98, covered.mean(0)
