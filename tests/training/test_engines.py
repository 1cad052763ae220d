"""The loop trains any engine, in both modes, and an asynchronous run on one machine is reproducible."""

import shutil
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from codots.config.load import load_recipe
from codots.config.schema import TrainConfig
from codots.core.renamed import SYNC_ENGINES
from codots.core.yaml_text import read_yaml, write_yaml
from codots.domains.registry import register
from codots.engine.local import LocalEngine
from codots.rollout.profile import Profile
from codots.rollout.records import load_rollouts
from codots.training.setup import engine_plan
from codots.training.train import train
from tests.engine.fake import FakeEngine
from tests.random_model import PROFILE, Flaky
from tests.toy import Guess
from tests.training.small import changed, recipe, same_run


class SameNumber(Guess):
    """Every world has the same hidden number."""

    id = "same-number-v0"

    def make_world(self, rng, dials):
        return 2


def ahead(steps, **more):
    """Return an engine section of mode async."""
    return {"mode": "async", "max_staleness": steps} | more


@pytest.mark.parametrize("stale", [0, 2])
def test_a_minimal_engine_is_trained_by_the_loop(config, registry, render, stale):
    register(SameNumber())
    config = changed(
        config, domain="same-number-v0", preset="few", packs_per_step=8, group_size=4, steps=20, eval_every=0
    )
    config = changed(config, profile={"style": "natural"}, engine=ahead(stale), credit={"preset": "leave-one-out"})
    engine = FakeEngine(render, ["0", "1", "2", "3"])
    reports = list(train(config, engine=engine))
    rewards = [np.mean([value for key, value in report.metrics.items() if "reward/" in key]) for report in reports]
    assert np.mean(rewards[:3]) < 0.55 < 0.9 < np.mean(rewards[-3:])
    assert (engine.version, engine.steps, engine.pending) == (20, 20, 0)
    ages = [report.metrics.get("rollout/staleness", 0.0) for report in reports]
    assert ages == [min(step, stale) for step in range(20)]


class Synchronous(LocalEngine):
    """Rolls out when lives are collected."""

    def __init__(self, *args):
        super().__init__(*args)
        self.jobs = deque()

    @property
    def pending(self):
        return len(self.jobs)

    def submit(self, jobs, timeout):
        self.jobs.append(jobs)

    def collect(self, timeout):
        return self.rollout(self.jobs.popleft(), timeout)


def test_an_engine_that_rolls_out_at_collect_gives_the_same_synchronous_run(whole, config, base):
    list(train(config, engine=Synchronous(engine_plan(config, base, PROFILE))))
    same_run(config.run, whole.run)


def test_no_staleness_is_exactly_the_synchronous_run(whole, config):
    list(train(changed(config, engine=ahead(0))))
    same_run(config.run, whole.run)


def test_a_synchronous_run_of_an_earlier_version_can_be_resumed(whole, config):
    shutil.copytree(whole.run, config.run)
    stored = Path(config.run, "config.yaml")
    stored.write_text(write_yaml(read_yaml(stored.read_text()) | {"engine": SYNC_ENGINES[0]}))
    assert list(train(config, resume=True)) == []
    assert load_recipe(TrainConfig, stored).engine == config.engine


def test_the_continuous_sampler_has_the_first_step_of_the_lockstep_sampler(whole, config):
    """The ids are equal up to rounding, which may change a draw and then the later steps."""
    first = next(train(changed(config, sampler="continuous")))
    same = 0
    for life, other in zip(first.lives, whole.reports[0].lives, strict=True):
        for one, two in zip(life.episodes, other.episodes, strict=True):
            same += one.transcript.ids == two.transcript.ids
    assert same >= 18  # of 20
    assert first.metrics["train/logprob_gap_max"] < 1e-4


@pytest.fixture(scope="module")
def stale(base, tmp_path_factory):
    config = recipe(base, tmp_path_factory.mktemp("stale") / "run", engine=ahead(2))
    return config, list(train(config))


def test_an_asynchronous_run_trains_on_lives_of_older_weights_within_the_bound(stale):
    _, reports = stale
    for report in reports:
        episodes = [episode for life in report.lives for episode in life.episodes]
        versions = {v for e in episodes for v, m in zip(e.transcript.versions, e.transcript.mask, strict=True) if m}
        assert versions == {max(0, report.step - 1 - 2)}
    for name in ("rollout/staleness", "rollout/staleness_max"):
        assert [report.metrics.get(name, 0) for report in reports] == [0, 1, 2, 2]
    assert [report.metrics.get("rollout/staleness/2") for report in reports] == [None, None, 1, 1]
    assert any(report.metrics["train/grad_norm"] > 0 for report in reports)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_asynchronous_run_equals_an_uninterrupted_one(stale, tmp_path, after):
    """The checkpoint keeps pending lives, whose weights no longer exist."""
    whole, _ = stale
    config = changed(whole, run=str(tmp_path / "run"))
    steps = train(config)
    for _ in range(after):
        next(steps)
    steps.close()
    assert [report.step for report in train(config, resume=True)] == list(range(after + 1, 5))
    same_run(config.run, whole.run)


def test_after_a_kill_every_pack_is_in_the_record_once(stale, tmp_path):
    """A kill after step 3 leaves the record of step 3, and a checkpoint of step 2 with lives of steps 3 and 4."""
    whole, _ = stale
    config = changed(whole, run=str(tmp_path / "run"), save_every=2)
    steps = train(config)
    next(steps), next(steps), next(steps)
    shutil.copytree(config.run, tmp_path / "killed")
    steps.close()
    config = changed(config, run=str(tmp_path / "killed"))
    assert [report.step for report in train(config, resume=True)] == [3, 4]
    same_run(config.run, whole.run)
    rows = [row for row in load_rollouts(config.run) if (row.kind, row.position) == ("solve", 0)]
    lives = [(2 * (step - 1) + pack, life) for step in range(1, 5) for pack in range(2) for life in range(2)]
    assert [(row.pack[-1], row.life) for row in rows] == lives


def test_a_failed_pending_batch_is_not_saved_in_checkpoints(config, registry):
    """A batch whose lives all failed is rolled out again after resuming."""
    domain = register(Flaky())
    config = changed(config, domain="flaky-v0", preset="few", eval_every=0, engine=ahead(2), save_every=1)
    steps = train(config)
    next(steps)
    domain.down = range(6, 8)  # the packs of step 4, which step 2 rolls out
    next(steps), next(steps)
    with pytest.raises(
        RuntimeError, match="every life of step 4 failed; the first error: ConnectionError: the environment is down"
    ):
        next(steps)
    domain.down = ()
    assert [report.step for report in train(config, resume=True)] == [4]


def test_a_given_engine_is_closed_even_if_the_run_cannot_start(config, render):
    class Closing(FakeEngine):
        closed = False

        def close(self):
            self.closed = True

    engine = Closing(render, ["0"])
    with pytest.raises(ValueError, match="unknown key of profile 'cup'"):
        next(train(changed(config, profile={"cup": 3}), engine=engine))
    assert engine.closed


def test_a_run_cannot_be_resumed_with_another_staleness(stale, tmp_path):
    config, _ = stale
    with pytest.raises(ValueError, match=r"is another run: there engine is \{.*'max_staleness': 2\}, here"):
        next(train(changed(config, engine=ahead(1)), resume=True))


@pytest.mark.parametrize(
    "learner",
    [
        {"kl_coef": 0.05, "entropy_coef": 0.01},
        {"loss": "gspo", "kl_coef": 0.05},
        {"loss": "gspo", "minibatches": 2},
    ],
    ids=["kl and entropy", "gspo and kl", "gspo in mini-batches"],
)
def test_ten_steps_with_kl_penalty_entropy_bonus_or_gspo(config, learner):
    minibatches = learner.pop("minibatches", 1)
    learner = {"lr": 3e-3, "warmup_steps": 0} | learner
    reports = list(train(changed(config, steps=10, learner=learner, minibatches=minibatches, eval_every=0)))
    assert all(np.isfinite(list(report.metrics.values())).all() for report in reports)
    if learner.get("kl_coef"):
        distances = [report.metrics["train/ref_kl"] for report in reports]
        assert distances[0] == pytest.approx(0, abs=1e-9)  # the policy is still the reference
        assert distances[-1] > 1e-6
    else:
        assert "train/ref_kl" not in reports[0].metrics


def test_a_strong_kl_penalty_keeps_the_policy_close_to_the_reference(config):
    ends = []
    for i, kl_coef in enumerate((1e-6, 30.0)):
        learner = {"lr": 3e-3, "warmup_steps": 0, "kl_coef": kl_coef}
        penalized = changed(config, run=f"{config.run}-{i}", steps=10, learner=learner, eval_every=0)
        ends.append([report.metrics["train/ref_kl"] for report in train(penalized)][-1])
    assert ends[1] < 0.5 * ends[0]


def test_the_reference_is_the_recipes_model_by_default(config, base, tmp_path):
    default = changed(config, learner={"kl_coef": 0.1})
    assert engine_plan(default, base, PROFILE).reference == base
    named = changed(config, learner={"kl_coef": 0.1, "reference": "base"})
    assert engine_plan(named, base, PROFILE).reference.name == "base"
    assert engine_plan(config, base, Profile()).reference is None
