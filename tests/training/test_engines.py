"""The loop trains any engine, with and without delay, and a delayed run is reproducible."""

from collections import deque

import numpy as np
import pytest

from codots.domains.registry import register
from codots.engine.local import LocalEngine
from codots.rollout.profile import Profile
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


@pytest.mark.parametrize("delay", [0, 2])
def test_a_minimal_engine_is_trained_by_the_loop(config, registry, render, delay):
    register(SameNumber())
    config = changed(
        config, domain="same-number-v0", preset="few", packs_per_step=8, group_size=4, steps=20, eval_every=0
    )
    config = changed(config, profile={"style": "natural"}, engine={"delay": delay}, credit={"preset": "leave-one-out"})
    engine = FakeEngine(render, ["0", "1", "2", "3"])
    reports = list(train(config, engine=engine))
    rewards = [np.mean([value for key, value in report.metrics.items() if "reward/" in key]) for report in reports]
    assert np.mean(rewards[:3]) < 0.55 < 0.9 < np.mean(rewards[-3:])
    assert (engine.version, engine.steps, engine.pending) == (20, 20, 0)
    ages = [report.metrics.get("rollout/staleness", 0.0) for report in reports]
    assert ages == [min(step, delay) for step in range(20)]


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


def test_a_run_without_delay_equals_a_synchronous_one_bit_for_bit(whole, config, base):
    list(train(config, engine=Synchronous(engine_plan(config, base, PROFILE))))
    same_run(config.run, whole.run)


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
def delayed(base, tmp_path_factory):
    config = recipe(base, tmp_path_factory.mktemp("delayed") / "run", engine={"delay": 2})
    return config, list(train(config))


def test_a_delayed_run_trains_on_lives_of_older_weights(delayed):
    _, reports = delayed
    for report in reports:
        episodes = [episode for life in report.lives for episode in life.episodes]
        versions = {v for e in episodes for v, m in zip(e.transcript.versions, e.transcript.mask, strict=True) if m}
        assert versions == {max(0, report.step - 1 - 2)}
    assert [report.metrics.get("rollout/staleness", 0) for report in reports] == [0, 1, 2, 2]
    assert any(report.metrics["train/grad_norm"] > 0 for report in reports)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_delayed_run_equals_an_uninterrupted_one(delayed, tmp_path, after):
    """The checkpoint keeps pending lives, whose weights no longer exist."""
    whole, _ = delayed
    config = changed(whole, run=str(tmp_path / "run"))
    steps = train(config)
    for _ in range(after):
        next(steps)
    steps.close()
    assert [report.step for report in train(config, resume=True)] == list(range(after + 1, 5))
    same_run(config.run, whole.run)


def test_a_failed_pending_batch_is_not_saved_in_checkpoints(config, registry):
    """A batch whose lives all failed is rolled out again after resuming."""
    domain = register(Flaky())
    config = changed(config, domain="flaky-v0", preset="few", eval_every=0, engine={"delay": 2}, save_every=1)
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


def test_a_run_cannot_be_resumed_with_another_delay(delayed, tmp_path):
    config, _ = delayed
    with pytest.raises(ValueError, match=r"is another run: there engine is \{'kind': 'local', 'delay': 2\}, here"):
        next(train(changed(config, engine={"delay": 1}), resume=True))


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
