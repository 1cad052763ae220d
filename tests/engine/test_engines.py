"""Every engine keeps the promises of the protocol: order, equal results, versions, checkpoints and errors."""

from dataclasses import replace

import pytest
import torch

from codots.domains.registry import register
from codots.engine.local import LocalEngine
from codots.learner.config import LearnerConfig
from tests.engine.small import batch_of, jobs, make_plan, moments, sampled_by, step_on, weights


@pytest.fixture(scope="module")
def plan(tmp_path_factory, tokenizer):
    return make_plan(tmp_path_factory.mktemp("model"), tokenizer)


@pytest.fixture(scope="module", params=["local", "ray"])
def start(request):
    """Start an engine: with this many workers, or with this many samplers on a Ray cluster."""
    if request.param == "local":
        return LocalEngine
    request.getfixturevalue("cluster")
    from codots.engine.ray import RayEngine

    return RayEngine


@pytest.fixture(scope="module")
def pair(start, plan):
    engine = start(plan, 2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def other(start, plan):
    """Another engine of one worker, whose state a test must set."""
    engine = start(plan, 1)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def registered_talk(registry):
    from tests.engine.registered import RegisteredTalk

    register(RegisteredTalk())


def test_lives_are_in_the_order_of_their_jobs(pair):
    lives = pair.rollout(jobs(), 60)
    assert [life.names for life in lives] == [("test", i) for i in range(5)]
    assert [life.failure for life in lives] == [None] * 5
    assert all(len(life.episodes) == 3 for life in lives)


def test_two_workers_roll_out_the_lives_of_one(pair, other, tmp_path):
    pair.save(tmp_path)
    other.load(tmp_path, pair.version)
    same = 0
    for alone, shared in zip(other.rollout(jobs(6), 60), pair.rollout(jobs(6), 60), strict=True):
        for episode, twin in zip(alone.episodes, shared.episodes, strict=True):
            if episode.transcript.ids == twin.transcript.ids:
                same += 1
                # These large weights amplify rounding: with plain transformers the difference is up to 3e-4, too.
                assert episode.transcript.logprobs == pytest.approx(twin.transcript.logprobs, abs=1e-3)
    assert same >= 17  # of 18; rounding may change a draw


def test_the_same_jobs_give_the_same_lives_bit_for_bit(pair):
    first = pair.rollout(jobs(), 60)
    pair.rollout(jobs(3, first=50), 60)
    assert pair.rollout(jobs(), 60) == first


@pytest.mark.parametrize("lives", [0, 1, 2])
def test_fewer_jobs_than_workers_are_rolled_out(pair, lives):
    assert len(pair.rollout(jobs(lives), 60)) == lives


def test_every_life_of_every_process_is_told_when_it_ends_and_equals_the_returned_one(pair):
    ended = {}
    lives = pair.rollout(jobs(), 60, ended.setdefault)
    assert [ended[i] for i in range(5)] == lives == pair.rollout(jobs(), 60)


def test_two_workers_take_the_optimizer_step_of_one_and_serve_the_new_weights(pair, other, tmp_path):
    lives, version, before = pair.rollout(jobs(), 60), pair.version, weights(pair, tmp_path / "before")
    pair.save(tmp_path / "saved")
    other.load(tmp_path / "saved", version)
    alone, shared = step_on(other, batch_of(lives)), step_on(pair, batch_of(lives))
    assert shared == pytest.approx(alone, rel=1e-3, abs=1e-5)
    after = weights(pair, tmp_path / "after")
    assert not torch.equal(after, before)
    assert (after - weights(other, tmp_path / "other")).norm() < 1e-2 * (after - before).norm()
    assert pair.version == version + 1
    for life in pair.rollout(jobs(), 60):
        assert sampled_by(life) == {version + 1}
    batch = batch_of(pair.rollout(jobs(), 60))
    assert step_on(pair, batch)["train/logprob_gap_max"] < 1e-3


def test_a_failure_in_any_process_is_raised_and_leaves_the_engine_usable(pair, tmp_path):
    lives, before, version = pair.rollout(jobs(), 60), weights(pair, tmp_path / "before"), pair.version
    good = batch_of(lives)
    here, there = sorted(good, key=lambda sample: sample.ids)[:: len(good) - 1]
    bad_here = replace(here, advantages=[float("nan")] * len(here.ids))
    bad_there = replace(there, ids=[10**6] * len(there.ids))
    with pytest.raises(ArithmeticError, match="not finite; the weights are unchanged"):
        step_on(pair, [bad_here, there])
    bad_number_there = replace(there, advantages=[float("inf")] * len(there.ids))
    with pytest.raises(ArithmeticError, match=r"failed: FloatingPointError: .*the weights are"):
        step_on(pair, [here, bad_number_there])
    with pytest.raises(RuntimeError, match="failed: IndexError: index out of range") as error:
        step_on(pair, [here, bad_there])
    assert "\n" not in str(error.value)
    assert "Traceback" in error.value.__notes__[0]
    assert torch.equal(weights(pair, tmp_path / "after"), before)
    assert pair.version == version
    assert pair.rollout(jobs(), 60) == lives


def test_logprobs_are_in_the_order_of_the_samples(pair):
    batch = batch_of(pair.rollout(jobs(), 60))
    rows = pair.logprobs(batch, 60)
    for sample, row in zip(batch, rows, strict=True):
        assert row == pytest.approx(sample.logprobs, abs=1e-3)


def test_the_reference_model_stays_fixed_while_the_weights_change(start, plan):
    engine = start(replace(plan, reference=plan.model, learner=LearnerConfig(warmup_steps=0, lr=1e-2)))
    batch = batch_of(engine.rollout(jobs(2), 60))
    before = engine.logprobs(batch, 60, reference=True)
    assert before == engine.logprobs(batch, 60)
    step_on(engine, batch)
    assert engine.logprobs(batch, 60, reference=True) == before
    assert engine.logprobs(batch, 60) != before
    engine.close()


def test_a_reference_with_another_vocabulary_is_rejected(start, plan, qwen):
    with pytest.raises(ValueError, match="has a different vocabulary than"):
        start(replace(plan, reference=qwen))


def test_submitted_jobs_use_the_weights_at_submission_and_are_collected_in_order(pair):
    pair.submit(jobs(2), 60)
    pair.submit(jobs(2, first=7), 60)
    version = pair.version
    assert pair.pending == 2
    step_on(pair, batch_of(pair.rollout(jobs(2), 60)))
    for first in (0, 7):
        lives = pair.collect(60)
        assert [life.names for life in lives] == [("test", first + i) for i in range(2)]
        assert sampled_by(lives[0]) == {version}
    assert pair.pending == 0
    with pytest.raises(RuntimeError, match="call submit before collect"):
        pair.collect(60)


def test_pending_lives_are_saved_in_the_checkpoint_exactly(pair, other, tmp_path):
    pair.submit(jobs(), 60)
    pair.save(tmp_path)
    other.load(tmp_path, pair.version)
    assert other.pending == 1
    assert other.collect(60) == pair.collect(60)
    other.init_from(tmp_path)
    assert other.pending == 0


def test_init_from_loads_weights_and_moments_at_step_0(pair, other, tmp_path):
    step_on(pair, batch_of(pair.rollout(jobs(), 60)))
    pair.save(tmp_path / "pair")
    other.init_from(tmp_path / "pair")
    assert (other.steps, other.version) == (0, 0)
    assert torch.equal(weights(other, tmp_path / "one"), weights(pair, tmp_path / "two"))
    other.save(tmp_path / "other")
    mine, theirs = moments(tmp_path / "other"), moments(tmp_path / "pair")
    assert all(torch.equal(a, b) for one, two in zip(mine, theirs, strict=True) for a, b in zip(one, two, strict=True))


def test_a_checkpoint_restores_weights_optimizer_and_version(pair, other, tmp_path):
    batch = batch_of(pair.rollout(jobs(), 60))
    step_on(pair, batch)
    pair.save(tmp_path)
    saved, version = weights(pair, tmp_path / "saved"), pair.version
    other.load(tmp_path, version)
    assert torch.equal(weights(other, tmp_path / "other"), saved)
    assert (other.version, other.steps) == (version, pair.steps)
    step_on(pair, batch)
    pair.load(tmp_path, version)
    assert torch.equal(weights(pair, tmp_path / "again"), saved)
    for life in pair.rollout(jobs(2), 60):
        assert sampled_by(life) == {version}


def test_a_call_after_a_timeout_is_refused_and_close_may_be_repeated(pair):
    """Must be the last test of the file, since it abandons a call of the shared engine."""
    with pytest.raises(TimeoutError, match=r"gave up after 1e-06 s of rolling out 5 lives"):
        pair.rollout(jobs(), 1e-6)
    with pytest.raises(RuntimeError, match="an earlier call was abandoned during rolling out 5 lives"):
        pair.rollout(jobs(), 60)
    pair.close()
    pair.close()
