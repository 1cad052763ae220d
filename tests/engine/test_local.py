"""Several workers give the results of one, and the failure of one reaches the caller."""

from dataclasses import replace

import pytest
import torch

from codots.context.rewrite import Rewrite
from codots.domains.registry import make_pack, register
from codots.engine.local import LocalEngine
from codots.engine.worker import Plan
from codots.learner.batch import normalizer
from codots.learner.config import LearnerConfig
from codots.model import tiny
from codots.rollout.life import Job
from codots.rollout.profile import Profile
from codots.rollout.steps import Own

PROFILE = Profile("natural", solve_tokens=5, update_tokens=8)


@pytest.fixture(scope="module")
def plan(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("model")
    model = tiny.make_model(tokenizer, width=24, layers=2, heads=2, seed=0, length=2048)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    tiny.save(model, tokenizer, folder)
    return Plan(folder, PROFILE, LearnerConfig(warmup_steps=0, max_microbatch_tokens=2000))


@pytest.fixture(scope="module")
def pair(plan):
    engine = LocalEngine(plan, workers=2)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def registered_talk(registry):
    from tests.engine.registered import RegisteredTalk

    register(RegisteredTalk())


def jobs(lives=5, first=0):
    packs = [make_pack("registered-talk-v0", "few", "dev", first + i, 2) for i in range(lives)]
    return [Job(pack, Own(Rewrite()), PROFILE.episode_params(), ("test", first + i)) for i, pack in enumerate(packs)]


def batch_of(lives):
    """Return the episodes of lives as samples with arbitrary advantages."""
    transcripts = [episode.transcript for life in lives for episode in life.episodes]
    return [transcript.sample((-1.0) ** i * (1 + i % 3)) for i, transcript in enumerate(transcripts)]


def sampled_by(life):
    """Return the weight versions that sampled tokens of a life."""
    transcripts = [episode.transcript for episode in life.episodes]
    return {version for t in transcripts for version, sampled in zip(t.versions, t.mask, strict=True) if sampled}


def step_on(engine, batch):
    """Take one optimizer step on a batch and serve the weights, as training does."""
    metrics = engine.forward_backward(batch, normalizer(batch, engine.plan.learner), 60)
    metrics |= engine.optim_step(60)
    engine.sync(60)
    return metrics


def weights(engine):
    return torch.cat([parameter.detach().reshape(-1) for parameter in engine.first.learner.parameters]).clone()


def test_lives_are_in_the_order_of_their_jobs(pair):
    lives = pair.rollout(jobs(), 60)
    assert [life.names for life in lives] == [("test", i) for i in range(5)]
    assert [life.failure for life in lives] == [None] * 5
    assert all(len(life.episodes) == 3 for life in lives)


def test_two_workers_roll_out_the_lives_of_one(plan, pair):
    one, two = LocalEngine(plan).rollout(jobs(6), 60), pair.rollout(jobs(6), 60)
    same = 0
    for alone, shared in zip(one, two, strict=True):
        for episode, other in zip(alone.episodes, shared.episodes, strict=True):
            if episode.transcript.ids == other.transcript.ids:
                same += 1
                # These large weights amplify rounding: with plain transformers the difference is up to 3e-4, too.
                assert episode.transcript.logprobs == pytest.approx(other.transcript.logprobs, abs=1e-3)
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


def test_lives_end_all_along_if_the_sampler_cannot_serve_all_at_once(plan):
    """Otherwise every life waits for a place before each of its episodes, and all end last."""
    engine = LocalEngine(replace(plan, cache_bytes=1))
    ended, sampled = [], []
    engine.rollout(jobs(4), 60, lambda i, life: ended.append((i, engine.first.sampler.sampled_tokens)))
    assert engine.first.sampler.places == 1
    assert [i for i, _ in ended] == [0, 1, 2, 3]
    sampled = [count for _, count in ended]
    assert sampled[0] <= sampled[-1] / 2
    engine.close()


def test_two_workers_take_the_optimizer_step_of_one_and_serve_the_new_weights(plan, pair):
    one, lives = LocalEngine(plan), pair.rollout(jobs(), 60)
    before, version = weights(pair), pair.version
    one.first.learner.set_weights(before.clone())
    one.first.serve(version)
    alone, shared = step_on(one, batch_of(lives)), step_on(pair, batch_of(lives))
    assert shared == pytest.approx(alone, rel=1e-3, abs=1e-5)
    assert not torch.equal(weights(pair), before)
    assert (weights(pair) - weights(one)).norm() < 1e-2 * (weights(pair) - before).norm()
    assert pair.version == version + 1
    for life in pair.rollout(jobs(), 60):
        assert sampled_by(life) == {version + 1}
    batch = batch_of(pair.rollout(jobs(), 60))
    assert step_on(pair, batch)["train/logprob_gap_max"] < 1e-3


def test_a_failure_in_either_process_is_raised_and_leaves_the_engine_usable(pair):
    lives, before, version = pair.rollout(jobs(), 60), weights(pair), pair.version
    good = batch_of(lives)
    here, there = sorted(good, key=lambda sample: sample.ids)[:: len(good) - 1]
    bad_here = replace(here, advantages=[float("nan")] * len(here.ids))
    bad_there = replace(there, ids=[10**6] * len(there.ids))
    with pytest.raises(FloatingPointError, match="not finite; the weights are unchanged"):
        step_on(pair, [bad_here, there])
    bad_number_there = replace(there, advantages=[float("inf")] * len(there.ids))
    with pytest.raises(ArithmeticError, match=r"a worker process failed: FloatingPointError: .*the weights are"):
        step_on(pair, [here, bad_number_there])
    with pytest.raises(RuntimeError, match="a worker process failed: IndexError: index out of range") as error:
        step_on(pair, [here, bad_there])
    assert "\n" not in str(error.value)
    assert "Traceback" in error.value.__notes__[0]
    assert torch.equal(weights(pair), before)
    assert pair.version == version
    assert pair.rollout(jobs(), 60) == lives


def test_logprobs_are_in_the_order_of_the_samples(pair):
    batch = batch_of(pair.rollout(jobs(), 60))
    rows = pair.logprobs(batch, 60)
    for sample, row in zip(batch, rows, strict=True):
        assert row == pytest.approx(sample.logprobs, abs=1e-3)


def test_the_reference_model_stays_fixed_while_the_weights_change(plan):
    engine = LocalEngine(replace(plan, reference=plan.model, learner=LearnerConfig(warmup_steps=0, lr=1e-2)))
    batch = batch_of(engine.rollout(jobs(2), 60))
    before = engine.logprobs(batch, 60, reference=True)
    assert before == engine.logprobs(batch, 60)
    step_on(engine, batch)
    assert engine.logprobs(batch, 60, reference=True) == before
    assert engine.logprobs(batch, 60) != before
    engine.close()


def test_a_reference_with_another_vocabulary_is_rejected(plan, qwen):
    with pytest.raises(ValueError, match="has a different vocabulary than"):
        LocalEngine(replace(plan, reference=qwen))


def test_submitted_jobs_use_the_weights_at_submission_and_are_collected_in_order(pair):
    pair.submit(jobs(2), 60)
    pair.submit(jobs(2, first=7), 60)
    version = pair.version
    assert pair.pending == 2
    step_on(pair, batch_of(pair.rollout(jobs(2), 60)))
    for first in (0, 7):
        lives = pair.collect(60)
        assert [life.names for life in lives] == [("test", first + i) for i in range(2)]
        assert {v for e in lives[0].episodes for v in e.transcript.versions if v} <= {version}
    assert pair.pending == 0
    with pytest.raises(RuntimeError, match="call submit before collect"):
        pair.collect(60)


def test_pending_lives_are_saved_in_the_checkpoint_exactly(plan, pair, tmp_path):
    pair.submit(jobs(), 60)
    pair.save(tmp_path)
    other = LocalEngine(plan)
    other.load(tmp_path, pair.version)
    assert other.pending == 1
    assert other.collect(60) == pair.collect(60)
    other.init_from(tmp_path)
    assert other.pending == 0
    other.close()


def test_init_from_loads_weights_and_moments_at_step_0(plan, pair, tmp_path):
    step_on(pair, batch_of(pair.rollout(jobs(), 60)))
    pair.save(tmp_path)
    other = LocalEngine(plan)
    other.init_from(tmp_path)
    assert torch.equal(weights(other), weights(pair))
    assert (other.steps, other.version) == (0, 0)
    mine, theirs = (engine.first.learner.optimizer.state_dict()["state"] for engine in (other, pair))
    assert all(torch.equal(mine[i]["exp_avg"], theirs[i]["exp_avg"]) for i in theirs)


def test_a_checkpoint_restores_weights_optimizer_and_version(plan, pair, tmp_path):
    batch = batch_of(pair.rollout(jobs(), 60))
    step_on(pair, batch)
    pair.save(tmp_path)
    saved, version = weights(pair), pair.version
    other = LocalEngine(plan)
    other.load(tmp_path, version)
    assert torch.equal(weights(other), saved)
    assert other.version == version
    assert other.first.learner.steps == pair.first.learner.steps
    step_on(pair, batch)
    pair.load(tmp_path, version)
    assert torch.equal(weights(pair), saved)
    for life in pair.rollout(jobs(2), 60):
        assert sampled_by(life) == {version}


def test_a_dead_worker_raises_and_does_not_hang(plan):
    engine = LocalEngine(plan, workers=2)
    process, _ = engine._others[0]
    process.kill()
    process.join()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a worker process ended with exit code -9"):
            engine.rollout(jobs(2), 60)
    engine.close()


def test_close_stops_the_other_processes_and_may_be_repeated(pair):
    """Must be the last test of the file, since it closes the shared engine."""
    process, _ = pair._others[0]
    assert process.is_alive()
    pair.close()
    assert process.exitcode == 0
    pair.close()
