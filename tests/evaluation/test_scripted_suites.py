"""Scripted players, through every shipped suite and every arm, earn what is known of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codots.config.suite import load_suite
from codots.context.rewrite import CLOSE, OPEN
from codots.domains.base import Task
from codots.domains.registry import make_pack
from codots.domains.teacher import ScriptedPlayer, make_teacher
from codots.engine.open import OpenModel
from codots.evaluation.curves import scripted_rewards
from codots.evaluation.evaluate import ARMS, evaluate
from codots.evaluation.stats import mean_ci
from codots.model import tiny
from codots.rollout.profile import Profile

pytestmark = pytest.mark.slow
SUITES = sorted([*Path("recipes/eval").glob("*.yaml"), Path("recipes/qwen3-8b/eval.yaml")])
PACKS = {"quick": 30, "ralph": 20, "long": 4}
"""Packs of each evaluation of a suite, 12 for the others."""
ROUNDING = 1e-3


@dataclass(frozen=True)
class Alone:
    """Player of a policy that reads no context and writes none; every task has a new policy."""

    policy: str

    def player(self, task, context, style, names):
        world = replace(task.world, names=(*names, "solve")) if self.policy == "random" else task.world
        return Forgetful(task.domain.policy(self.policy, world.at(task.position)))


@dataclass
class Forgetful:
    policy: Any

    def act(self, view):
        return self.policy.act(view)

    def end(self, step):
        self.policy.end(step)

    def rewrite(self):
        return f"{OPEN} {CLOSE}"


@dataclass(frozen=True)
class Bayes:
    """Player of `bayes` with what its context says; it writes what it knows."""

    def player(self, task, context, style, names):
        return make_teacher("skilled", task.domain).player(task, context, style, names)


@dataclass(frozen=True)
class Copier(Bayes):
    """Player that reads and acts like `Bayes`, and writes the truth about another world."""

    def player(self, task, context, style, names):
        return Copying(super().player(task, context, style, names), task, style)


@dataclass
class Copying:
    reader: ScriptedPlayer
    task: Task
    style: str

    def act(self, view):
        return self.reader.act(view)

    def end(self, step):
        self.reader.end(step)

    def rewrite(self):
        (domain, preset, split, index, *_), position = self.task.names, self.task.position
        hidden = self.task.world.hidden
        others = (make_pack(domain, preset, split, k, 1).world for k in range(index + 1, index + 100))
        other = next(world for world in others if world.hidden != hidden)
        return f"{OPEN}\n{self.task.domain.oracle_context(other.at(position), self.style)}\n{CLOSE}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A model folder whose tokenizer reads any text. Its weights are never used."""
    folder, tokenizer = tmp_path_factory.mktemp("reader"), tiny.make_tokenizer()
    tiny.save(tiny.make_model(tokenizer, width=8, layers=1, heads=1, seed=0, length=1 << 16), tokenizer, folder)
    Profile(style="natural", solve_tokens=4096, update_tokens=8192, max_model_len=1 << 16).save(folder)
    return folder


@pytest.fixture
def played(reader, monkeypatch):
    """A function that evaluates a player, which replies instead of the model, on a suite with every arm."""
    rollout = OpenModel.rollout

    def played(path, player):
        def scripted(self, jobs, *rest):
            return rollout(self, [replace(job, teacher=player) for job in jobs], *rest)

        monkeypatch.setattr(OpenModel, "rollout", scripted)
        suite = load_suite(path, str(reader), [f"packs={PACKS.get(path.stem, 12)}", "workers=1"])
        for name, config in suite.evaluations.items():
            yield name, evaluate(config.model_copy(update={"arms": list(ARMS)}))

    return played


def is_near(arm, policy, report):
    """Return whether an arm earns what a scripted policy does on these packs: each mean within both 95% intervals."""
    packs = [make_pack(report.domain, report.preset, report.split, i, report.size) for i in range(report.n_packs)]
    known = [mean_ci(rewards, *packs[0].domain.bounds) for rewards in scripted_rewards(policy, packs).T]
    widths = np.diff(arm.ci95).ravel() + np.diff([estimate.interval for estimate in known]).ravel()
    return bool((np.abs(np.array(arm.reward) - [estimate.mean for estimate in known]) <= widths + ROUNDING).all())


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
@pytest.mark.parametrize("policy", ["random", "informed"])
def test_a_policy_without_contexts_earns_its_reference_in_every_arm(path, policy, played):
    for name, report in played(path, Alone(policy)):
        for arm, found in report.arms.items():
            assert found.missing == 0
            assert is_near(found, policy, report), (name, arm, found.reward)
        assert not np.any(report.lift)
        assert not np.any(report.shuffled_lift)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_writer_of_what_it_knows_plays_as_bayes_and_with_the_truth_at_the_ceiling(path, played):
    for name, report in played(path, Bayes()):
        own, null, oracle = (report.arms[arm] for arm in ("own", "null", "oracle"))
        assert is_near(own, "bayes", report), (name, own.reward, report.bayes)
        assert is_near(oracle, "informed", report), (name, oracle.reward, report.ceiling)
        assert null.reward[0] == own.reward[0]
        assert np.mean(report.lift[1:]) > 0.1, (name, report.lift)
        assert np.mean(report.shuffled_lift[1:]) < np.mean(report.lift[1:]) / 2, (name, report.shuffled_lift)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_writer_that_copies_the_truth_of_another_world_shows_no_lift(path, played):
    mean = []
    for name, report in played(path, Copier()):
        lift, low = np.array(report.lift)[1:], np.array(report.lift_ci95)[1:, 0]
        assert (lift <= 2 * (lift - low)).all(), (name, report.lift_ci95)  # 4 standard errors, for many positions
        mean.append(lift.mean())
    assert np.mean(mean) < 0.05, mean
