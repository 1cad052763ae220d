"""Missing lives do not stop a run; non-finite numbers and timeouts do, with the reason."""

import asyncio
import json
import os
import pkgutil
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from codots.core.deadline import SideThread
from codots.domains.registry import register
from codots.engine.plan import SAMPLERS
from codots.rollout.life import Life, rollout
from codots.rollout.records import load_rollouts
from codots.runs.checkpoint import checkpoints
from codots.sampler.local import LocalSampler
from codots.training.train import train
from tests.random_model import Flaky
from tests.training.small import changed, equal, metrics, recipe, same_run, weights


def test_missing_lives_do_not_stop_a_step(config, registry):
    domain = register(Flaky())
    domain.down = (1, 2, 3)
    config = changed(config, domain="flaky-v0", preset="few", steps=1, packs_per_step=4)
    (report,) = train(config)
    assert report.metrics["rollout/failed"] == report.metrics["credit/missing_lives"] == 6
    assert report.metrics["credit/groups_used"] == 1
    assert [life.failure is None for life in report.lives] == [True] * 2 + [False] * 6
    assert {life.failure for life in report.lives[2:]} == {"ConnectionError: the environment is down"}
    assert len({row.pack[-1] for row in load_rollouts(config.run)}) == 1


def test_a_missing_life_enters_no_mean(config, monkeypatch):
    """The other lives of its group are compared with each other."""

    async def failing(job, *how):
        if job.names[-2:] == (0, 1):
            return Life(job.names, (), "gone")
        return await rollout(job, *how)

    config = changed(config, steps=1, group_size=3, rollout_log_every=1)
    monkeypatch.setattr("codots.rollout.life.rollout", failing)
    (report,) = train(config)
    lives = report.lives
    assert [life.failure for life in lives] == [None, "gone", None, None, None, None]
    rewards = [life.of("solve")[0].reward for life in lives if life.failure is None]
    assert report.metrics["reward/0"] == pytest.approx(np.mean(rewards))
    advantages = [row.advantage for row in load_rollouts(config.run) if row.pack[-1] == 0 and row.position == 0]
    assert len(advantages) == 4
    assert advantages[0] == pytest.approx(-advantages[2])
    assert report.metrics["credit/missing_lives"] == 1


def test_a_step_without_any_life_stops_the_run_with_the_reason(config, registry):
    domain = register(Flaky())
    config = changed(config, domain="flaky-v0", preset="few", eval_every=0)
    steps = train(config)
    next(steps)
    domain.down = range(100)
    with pytest.raises(
        RuntimeError, match="every life of step 2 failed; the first error: ConnectionError: the environment is down"
    ):
        next(steps)
    domain.down = ()
    assert [report.step for report in train(config, resume=True)] == [2, 3, 4]


def test_a_nan_gradient_stops_the_run_before_the_weights_change(whole, config, monkeypatch):
    original, learners = pkgutil.resolve_name("codots.learner.local:LocalLearner.take_gradient"), []

    def nan_gradient(self):
        gradient = original(self)
        learners.append(self)
        if self.steps == 2:
            gradient[7] = float("nan")
        return gradient

    monkeypatch.setattr("codots.learner.local.LocalLearner.take_gradient", nan_gradient)
    config = changed(config, save_every=4, eval_every=0)
    line = "the gradient of step 3 is not finite; the weights are unchanged"
    line += f"; its lives and samples are in {config.run}/stop"
    with pytest.raises(FloatingPointError, match=f"step 3 was stopped: {line}"):
        list(train(config))
    monkeypatch.undo()
    state = learners[0].model.state_dict()
    (last,) = checkpoints(Path(config.run))
    assert last.name == "step-000002"
    assert all(torch.equal(state[name], weight) for name, weight in weights(last).items())
    assert [line["step"] for line in metrics(config.run)] == [1, 2]
    assert_step_was_saved(config, whole, 3)
    list(train(config, resume=True))
    assert equal(weights(config.run), weights(whole.run))


def assert_step_was_saved(config, whole, step):
    """Assert that the lives and samples of the step were saved exactly."""
    stopped, report = Path(config.run) / "stopped", whole.reports[step - 1]
    assert load_rollouts(stopped / f"step-{step:06d}.jsonl") == load_rollouts(
        whole.run / "rollouts" / f"step-{step:06d}.jsonl"
    )
    kept = [json.loads(text) for text in (stopped / f"step-{step:06d}.samples").read_text().splitlines()]
    transcripts = [e.transcript for life in report.lives for e in life.episodes if e.transcript.tokens]
    assert [(one["ids"], one["mask"]) for one in kept] == [(t.ids, t.mask) for t in transcripts]
    assert [one["logprobs"] for one in kept] == [t.sample(1.0).logprobs for t in transcripts]


def test_non_finite_numbers_in_any_worker_stop_the_run_with_one_line(base, tmp_path, monkeypatch):
    """The bad sample is in the share of the second worker."""
    original = pkgutil.resolve_name("codots.engine.local:LocalEngine.forward_backward")

    def infinite(self, batch, *more):
        last = max(range(len(batch)), key=lambda i: len(batch[i].ids) * any(batch[i].advantages))
        batch[last] = replace(batch[last], advantages=[float("inf")] * len(batch[last].ids))
        return original(self, [batch[last]] * 2, *more)

    monkeypatch.setattr("codots.engine.local.LocalEngine.forward_backward", infinite)
    with pytest.raises(ArithmeticError, match=r"step 1 was stopped: .*not finite; the weights") as error:
        list(train(recipe(base, tmp_path / "run", workers=2)))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


class HotSampler(LocalSampler):
    """A faulty sampler: it samples at another temperature than it is asked for."""

    def _choose(self, batch, logits_BV):
        super()._choose(batch, logits_BV / 1.5)


def test_a_logprob_gap_stops_the_run_before_the_weights_change(config, monkeypatch):
    monkeypatch.setitem(SAMPLERS, "lockstep", lambda worker: HotSampler(worker.model, worker.render.stop_ids))
    line = (
        r"step (\d) was stopped: sampler and learner disagree: .* are 0\.\d+ apart on average, and max_logprob_gap is"
    )
    with pytest.raises(ArithmeticError, match=line) as error:
        list(train(config))
    assert "\n" not in str(error.value)
    step = int(re.match(line, str(error.value))[1])
    assert load_rollouts(Path(config.run) / "stopped")
    assert [line["step"] for line in metrics(config.run)] == list(range(1, step))
    again = next(train(changed(config, max_logprob_gap=10), resume=True))
    assert again.step == step
    assert again.metrics["train/logprob_gap"] > 0.05


def test_the_logprob_gap_is_checked_only_in_the_first_mini_batch(config):
    """Later mini-batches differ because the weights have changed."""
    config = changed(
        config, steps=2, minibatches=2, learner={"lr": 0.05, "warmup_steps": 0}, max_logprob_gap=1e-4, eval_every=0
    )
    reports = list(train(config))
    assert max(report.metrics["train/logprob_gap"] for report in reports) > 1e-4


STAGES = {
    "starting": ("codots.training.setup.profile_of", 1, []),
    "rolling out 4 lives": ("codots.engine.worker:Worker.rollout", 4, [1, 2]),  # steps 1, 2, its evaluation, and step 3
    "forward and backward passes": ("codots.engine.worker:Worker.forward_backward", 3, [1, 2]),
    "the optimizer step": ("codots.learner.local:LocalLearner.optim_step", 3, [1, 2]),
    "serving version 3": ("codots.engine.worker:Worker.serve", 3, [1, 2]),
    "saving checkpoint 3": ("codots.engine.local:LocalEngine.save", 3, [1, 2, 3]),
}


@pytest.mark.parametrize(
    ("stage", "elsewhere"),
    [*((stage, False) for stage in STAGES), ("rolling out 4 lives", True), ("saving checkpoint 3", True)],
    ids=lambda part: {False: "main thread", True: "another thread"}.get(part, part),
)
def test_a_stage_timeout_stops_the_run_and_names_the_stage(whole, config, monkeypatch, stage, elsewhere):
    what, nth, steps = STAGES[stage]
    owner, _, name = what.rpartition(".")
    owner, calls = pkgutil.resolve_name(owner), []
    original = getattr(owner, name)

    def stuck(*args, **kwargs):
        calls.append(0)
        if len(calls) == nth:
            while True:  # in short waits, so that the thread can be stopped
                threading.Event().wait(0.05)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, stuck)
    call = SideThread.call
    short = lambda doing, seconds: 1 if doing == stage and len(calls) == nth - 1 else seconds  # noqa: E731
    limited = lambda self, seconds, doing, *more: call(self, short(doing, seconds), doing, *more)  # noqa: E731
    monkeypatch.setattr(SideThread, "call", limited)
    done, failed = [], []

    def run():
        try:
            done.extend(report.step for report in train(config))
        except TimeoutError as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    if elsewhere:
        thread.start()
        thread.join()
    else:
        run()
    assert (done, failed) == (steps, [f"gave up after 1 s of {stage}"])
    monkeypatch.undo()
    if steps:
        list(train(config, resume=True))
        same_run(config.run, whole.run)


def test_a_hanging_worker_ends_the_run_with_a_timeout(base, tmp_path, monkeypatch):
    steps = train(recipe(base, tmp_path / "run", workers=2, steps=2, eval_every=0))
    next(steps)
    process, _ = steps.gi_frame.f_locals["run"].engine._others[0]
    os.kill(process.pid, signal.SIGSTOP)
    call = SideThread.call
    monkeypatch.setattr(SideThread, "call", lambda self, seconds, *more: call(self, 2, *more))
    with pytest.raises(TimeoutError, match="gave up after 2 s of rolling out"):
        next(steps)
    assert not process.is_alive()


def test_a_run_works_inside_a_running_event_loop(whole, config):
    """As in a notebook."""

    async def cell():
        return [report.step for report in train(config)]

    assert asyncio.run(cell()) == [1, 2, 3, 4]
    same_run(config.run, whole.run)
