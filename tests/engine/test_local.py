"""Workers share the work out and change nothing about it, and a failure in one is heard."""

from dataclasses import replace

import pytest
import torch

from codots.context.rewrite import Rewrite
from codots.domains.registry import make_pack, register
from codots.engine.local import LocalEngine, Plan
from codots.learner.config import LearnerConfig
from codots.model import tiny
from codots.rollout.life import Job, Own
from codots.rollout.profile import Profile


@pytest.fixture(scope="module")
def plan(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("model")
    model = tiny.make_model(tokenizer, width=24, layers=2, heads=2, seed=0, length=2048)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    tiny.save(model, tokenizer, folder)
    return Plan(folder, Profile("natural", solve_tokens=5, update_tokens=8), LearnerConfig(warmup=0, micro_tokens=2000))


@pytest.fixture(scope="module")
def pair(plan):
    engine = LocalEngine(plan, workers=2)
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def babble(registry):
    from tests.engine.babble import Babble

    register(Babble())


def jobs(lives=5, first=0):
    packs = [make_pack("babble-v0", "few", "dev", first + i, 2) for i in range(lives)]
    return [Job(pack, Own(Rewrite()), ("test", first + i)) for i, pack in enumerate(packs)]


def batch_of(lives):
    """Credit the episodes of some lives, whatever they did."""
    transcripts = [episode.transcript for life in lives for episode in life.episodes]
    return [transcript.sample((-1.0) ** i * (1 + i % 3)) for i, transcript in enumerate(transcripts)]


def weights(engine):
    return torch.cat([parameter.detach().reshape(-1) for parameter in engine.first.learner.parameters]).clone()


def test_lives_come_back_in_the_order_of_their_jobs(pair):
    lives = pair.live(jobs())
    assert [life.names for life in lives] == [("test", i) for i in range(5)]
    assert [life.failure for life in lives] == [None] * 5
    assert all(len(life.episodes) == 3 for life in lives)


def test_two_workers_live_the_lives_of_one(plan, pair):
    one, two = LocalEngine(plan).live(jobs(6)), pair.live(jobs(6))
    same = 0
    for alone, shared in zip(one, two, strict=True):
        for episode, other in zip(alone.episodes, shared.episodes, strict=True):
            if episode.transcript.ids == other.transcript.ids:
                same += 1
                # Weights this large make much of rounding: of plain transformers, too, it is up to 3e-4 here.
                assert episode.transcript.logprobs == pytest.approx(other.transcript.logprobs, abs=1e-3)
    assert same >= 17  # of 18; a draw may fall between two ids that the batches round differently


def test_the_same_jobs_give_the_same_lives_bit_for_bit(pair):
    first = pair.live(jobs())
    pair.live(jobs(3, first=50))
    assert pair.live(jobs()) == first


@pytest.mark.parametrize("lives", [0, 1, 2])
def test_fewer_jobs_than_workers_are_no_trouble(pair, lives):
    assert len(pair.live(jobs(lives))) == lives


def test_the_first_process_tells_of_its_lives_as_they_end(pair):
    told = []
    pair.live(jobs(), told.append)
    assert sorted(life.names for life in told) == [("test", 0), ("test", 1)]


def test_two_workers_take_the_step_of_one_and_serve_the_new_weights(plan, pair):
    one, lives = LocalEngine(plan), pair.live(jobs())
    before, version = weights(pair), pair.version
    one.first.learner.take(before.clone())
    one.first.serve(version)
    alone, shared = one.step(batch_of(lives)), pair.step(batch_of(lives))
    assert shared == pytest.approx(alone, rel=1e-3, abs=1e-5)
    assert not torch.equal(weights(pair), before)
    assert (weights(pair) - weights(one)).norm() < 1e-2 * (weights(pair) - before).norm()
    assert pair.version == version + 1
    for life in pair.live(jobs()):
        assert {episode.transcript.version for episode in life.episodes} == {version + 1}
    batch = batch_of(pair.live(jobs()))
    assert pair.step(batch)["learner/logprob_gap_max"] < 1e-3


def test_a_failure_in_either_process_is_heard_and_leaves_the_engine_usable(pair):
    lives, before, version = pair.live(jobs()), weights(pair), pair.version
    good = batch_of(lives)
    here, there = sorted(good, key=lambda sample: sample.ids)[:: len(good) - 1]
    bad_here = replace(here, advantages=[float("nan")] * len(here.ids))
    bad_there = replace(there, ids=[10**6] * len(there.ids))
    with pytest.raises(FloatingPointError, match="not finite; the weights are untouched"):
        pair.step([bad_here, there])
    bad_number_there = replace(there, advantages=[float("inf")] * len(there.ids))
    with pytest.raises(ArithmeticError, match=r"a worker process failed: FloatingPointError: .*the weights are"):
        pair.step([here, bad_number_there])
    with pytest.raises(RuntimeError, match="a worker process failed: IndexError: index out of range") as error:
        pair.step([here, bad_there])
    assert "\n" not in str(error.value)
    assert "Traceback" in error.value.__notes__[0]
    assert torch.equal(weights(pair), before)
    assert pair.version == version
    assert pair.live(jobs()) == lives


def test_a_sampler_that_disagrees_stops_the_step_before_the_weights(pair, monkeypatch):
    lives, before, version = pair.live(jobs()), weights(pair), pair.version
    drifted = [replace(sample, logprobs=[p - 0.25 for p in sample.logprobs]) for sample in batch_of(lives)]
    monkeypatch.setattr(pair, "plan", replace(pair.plan, gap_limit=0.2))
    with pytest.raises(
        ArithmeticError, match=r"logprobs of the same ids are 0\.25 apart on average, and gap_limit is 0\.2"
    ):
        pair.step(drifted)
    assert torch.equal(weights(pair), before)
    assert (pair.version, pair.live(jobs())) == (version, lives)
    late = [replace(sample, version=version - 1) for sample in drifted]
    assert pair.step(late)["learner/logprob_gap"] == pytest.approx(0.25, abs=1e-2)


def test_a_fork_takes_weights_and_moments_and_no_steps(plan, pair, tmp_path):
    pair.step(batch_of(pair.live(jobs())))
    pair.save(tmp_path)
    other = LocalEngine(plan)
    other.fork(tmp_path)
    assert torch.equal(weights(other), weights(pair))
    assert (other.steps, other.version) == (0, 0)
    mine, theirs = (engine.first.learner.optimiser.state_dict()["state"] for engine in (other, pair))
    assert all(torch.equal(mine[i]["exp_avg"], theirs[i]["exp_avg"]) for i in theirs)


def test_a_checkpoint_brings_back_weights_optimiser_and_version(plan, pair, tmp_path):
    batch = batch_of(pair.live(jobs()))
    pair.step(batch)
    pair.save(tmp_path)
    saved, version = weights(pair), pair.version
    other = LocalEngine(plan)
    other.load(tmp_path, version)
    assert torch.equal(weights(other), saved)
    assert other.version == version
    assert other.first.learner.steps == pair.first.learner.steps
    pair.step(batch)
    pair.load(tmp_path, version)
    assert torch.equal(weights(pair), saved)
    for life in pair.live(jobs(2)):
        assert {episode.transcript.version for episode in life.episodes} == {version}


def test_a_worker_that_died_is_an_error_and_not_a_hang(plan):
    engine = LocalEngine(plan, workers=2)
    process, _ = engine._others[0]
    process.kill()
    process.join()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a worker process ended with exit code -9"):
            engine.live(jobs(2))
    engine.close()


def test_closing_ends_the_other_processes_and_may_be_repeated(pair):
    """The last test of the file, for it closes the engine that the others share."""
    process, _ = pair._others[0]
    assert process.is_alive()
    pair.close()
    assert process.exitcode == 0
    pair.close()
