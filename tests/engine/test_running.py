"""Lives in flight when new weights are served: each token keeps its version, and the logprob of that version."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from codots.domains.registry import register
from codots.engine.local import LocalEngine
from codots.engine.plan import continuous
from codots.engine.worker import Worker
from codots.learner.config import LearnerConfig
from codots.model.device import Place
from tests.engine.small import batch_of, jobs, make_plan, step_on
from tests.toy import Talk, TalkEnv


class Waiting(Talk):
    """Its steps wait at the second turn of the first task, in a thread, until the test lets them go."""

    id = "waiting-talk-v0"
    blocking = True

    def __init__(self, lives):
        self.there, self.go = threading.Barrier(lives + 1), threading.Event()

    def make_env(self, task, *, style="natural", memory=None, rng):
        return WaitingEnv(self, task.position)


class WaitingEnv(TalkEnv):
    def __init__(self, domain, position):
        super().__init__()
        self.domain, self.position = domain, position

    def step(self, text):
        if (self.position, self.view) == (0, 1):
            self.domain.there.wait(60)
            assert self.domain.go.wait(60)
        return super().step(text)


@pytest.fixture
def plan(tmp_path, tokenizer):
    return replace(make_plan(tmp_path, tokenizer), learner=LearnerConfig(warmup_steps=0, lr=3e-2))


def make_worker(plan):
    """Return a worker with lives in flight, whose environments stay in this process, to wait for the test."""
    worker = Worker(replace(plan, make_sampler=continuous, in_flight=2), learns=False)
    worker.processes = None
    return worker


def test_half_precision_ships_half_of_the_bytes_and_the_same_weights(plan, registry):
    register(Talk())
    plan = replace(plan, place=Place(dtype="bfloat16"), learner=LearnerConfig(warmup_steps=0, lr=1e-2))
    learner, sampler = Worker(plan), Worker(plan, learns=False)
    learner.forward_backward(batch_of(learner.rollout(jobs(domain="talk-v0"))), 1.0)
    learner.optim_step()
    sent = learner.flat_weights()
    assert (sent.dtype, sent.size) == (np.int16, learner.learner.size)
    sampler.receive(("result", sent), 1)
    for mine, theirs in zip(learner.model.parameters(), sampler.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_lives_run_on_under_new_weights_that_have_read_their_ids_again(plan, registry):
    domain = register(Waiting(3))
    register(Talk())
    old, new = LocalEngine(plan), LocalEngine(plan)
    step_on(new, batch_of(new.rollout(jobs(domain="talk-v0"), 60)))
    worker = make_worker(plan)
    lives = []
    rollout = threading.Thread(target=lambda: lives.extend(worker.rollout(jobs(3, domain="waiting-talk-v0"))))
    rollout.start()
    domain.there.wait(60)
    probe = worker.receive(("result", new.first.flat_weights()), 1)
    assert max(probe.versions) == 1
    assert worker.take_usage().busy > 0  # lives are in flight
    domain.go.set()
    rollout.join(60)
    assert [life.failure for life in lives] == [None] * 3
    batch = batch_of(lives)
    rows = old.logprobs(batch, 60), new.logprobs(batch, 60)
    mixed = [{v for v, sampled in zip(s.versions, s.mask, strict=True) if sampled} == {0, 1} for s in batch]
    assert sum(mixed) == 3  # the first solve of each life
    apart = []
    for sample, *both in zip(batch, *rows, strict=True):
        for at, version in enumerate(sample.versions):
            if sample.mask[at]:
                assert sample.logprobs[at] == pytest.approx(both[version][at], abs=2e-3)
                apart.append(abs(both[0][at] - both[1][at]))
    assert torch.tensor(apart).mean() > 0.1  # otherwise the versions could not be told apart
    worker._loop.close()
    old.close(), new.close()


def test_a_second_batch_runs_beside_a_first_one_that_waits(plan, registry):
    domain = register(Waiting(1))
    register(Talk())
    worker = make_worker(plan)
    first = threading.Thread(target=lambda: worker.rollout(jobs(1, domain="waiting-talk-v0")))
    first.start()
    domain.there.wait(60)
    assert [life.failure for life in worker.rollout(jobs(2, domain="talk-v0"))] == [None, None]
    domain.go.set()
    first.join(60)
    assert not first.is_alive()
    worker._loop.close()
