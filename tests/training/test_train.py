"""A run is a function of its recipe: stopped, killed or starved of lives, it ends where it would have ended."""

import errno
import json
import multiprocessing
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from codots.algorithm.credit import Advantages, advantages
from codots.config.schema import TrainConfig
from codots.context.rewrite import Rewrite
from codots.core.deadline import deadline
from codots.core.transcript import Transcript
from codots.domains.registry import make_pack, register
from codots.rollout.life import Episode, Given, Life, Own, rollout
from codots.rollout.profile import load_profile
from codots.rollout.records import load_rollouts
from codots.runs.checkpoint import best_checkpoint, checkpoints, last_checkpoint
from codots.runs.folder import open_run
from codots.training.train import collect, credit_of, learn, step_jobs, step_packs, summary, train
from tests.lively import PROFILE, Flaky, make_lively, some_lives
from tests.toy import Guess

SMALL = {
    "preset": "tiny",
    "size": 3,
    "steps": 4,
    "packs": 2,
    "group": 2,
    "workers": 1,
    "save_every": 1,
    "look_every": 2,
    "look_packs": 2,
    "record_every": 1,
    "learner": {"lr": 3e-3, "warmup": 0},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_lively(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, base):
    """A run that nothing happened to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    return SimpleNamespace(run=run, reports=list(train(recipe(base, run))))


@pytest.fixture
def config(base, tmp_path):
    return recipe(base, tmp_path / "run")


def recipe(base, run, **changes):
    return TrainConfig.model_validate(SMALL | {"model": str(base), "run": str(run)} | changes)


def changed(config, **changes):
    return TrainConfig.model_validate(config.model_dump() | changes)


def metrics(run, clock=False):
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if clock or not key.startswith("clock/")} for line in lines]


def weights(folder):
    return load_file(Path(folder) / "model" / "model.safetensors")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def optimiser(folder):
    state = torch.load(folder / "optimiser.pt", weights_only=True)["optimiser"]["state"]
    return {f"{i} {name}": value for i, of in state.items() for name, value in of.items()}


def same_run(run, other):
    """Metrics, rollouts, weights and the state of the optimiser are the same to the last bit."""
    run, other = Path(run), Path(other)
    assert metrics(run) == metrics(other)
    assert equal(weights(run), weights(other))
    ends = checkpoints(run)[-1], checkpoints(other)[-1]
    assert ends[0].name == ends[1].name
    assert equal(optimiser(ends[0]), optimiser(ends[1]))
    assert equal(weights(ends[0]), weights(ends[1]))
    rollouts = [{file.name: file.read_bytes() for file in (of / "rollouts").iterdir()} for of in (run, other)]
    assert rollouts[0] == rollouts[1]


def test_a_run_leaves_what_it_says(whole, base):
    assert sorted(os.listdir(whole.run)) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "model",
        "rollouts",
        "tensorboard",
    ]
    best = max((2, 4), key=lambda step: np.mean([metrics(whole.run)[step - 1][f"look/own_{j}"] for j in range(3)]))
    kept = sorted({best, 3, 4})
    assert [folder.name for folder in checkpoints(whole.run)] == [f"step-{step:06d}" for step in kept]
    assert best_checkpoint(whole.run).name == f"step-{best:06d}"
    assert equal(weights(whole.run), weights(checkpoints(whole.run)[-1]))
    assert load_profile(whole.run / "model") == PROFILE
    assert [line["step"] for line in metrics(whole.run)] == [1, 2, 3, 4]
    assert [(report.step, report.steps) for report in whole.reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [{"step": report.step} | report.metrics for report in whole.reports] == metrics(whole.run, clock=True)


def test_every_step_learns(whole):
    """Else the tests of equal weights would say nothing."""
    assert all(report.metrics["learner/grad_norm"] > 0 for report in whole.reports)
    assert any(report.metrics[f"reward/{j}"] > 0 for report in whole.reports for j in range(3))


def test_equal_recipes_give_equal_runs(whole, config):
    list(train(config))
    same_run(config.run, whole.run)


def test_another_seed_gives_another_run(whole, config):
    list(train(changed(config, seed=1)))
    assert not equal(weights(config.run), weights(whole.run))


def test_closing_the_iterator_saves_and_resume_goes_on(whole, config):
    config = changed(config, save_every=4)
    steps = train(config)
    next(steps), next(steps)
    assert checkpoints(Path(config.run)) == []
    steps.close()
    assert last_checkpoint(Path(config.run), config)[1]["step"] == 2
    assert [report.step for report in train(config, resume=True)] == [3, 4]
    same_run(config.run, whole.run)


def test_closing_before_the_first_step_leaves_nothing(config):
    train(config).close()
    assert not Path(config.run).exists()


def test_resuming_a_finished_run_changes_nothing(whole, config):
    shutil.copytree(whole.run, config.run)
    assert list(train(config, resume=True)) == []
    same_run(config.run, whole.run)


def test_a_resumed_run_counts_all_tokens(whole):
    lines = metrics(whole.run)
    assert lines[0]["tokens/total"] == lines[0]["tokens/sampled"] > 0
    for before, after in pairwise(lines):
        assert after["tokens/total"] == before["tokens/total"] + after["tokens/sampled"]


def die(config, what, nth):
    """Train, and be killed at the nth call of something."""
    owner, _, name = what.rpartition(".")
    owner, calls = pkgutil.resolve_name(owner), []
    right = getattr(owner, name)

    def deadly(*args, **kwargs):
        calls.append(0)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return right(*args, **kwargs)

    setattr(owner, name, deadly)
    list(train(config))


@pytest.fixture(scope="module")
def processes():
    """Fork children from a process that has imported everything and run nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["codots.training.train"]
        + [
            f"transformers.models.{name}"
            for name in ("qwen3.modeling_qwen3", "auto.modeling_auto", "auto.tokenization_auto")
        ]
    )
    return context


def killed(processes, *args):
    child = processes.Process(target=die, args=args)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


MOMENTS = [
    ("codots.runs.loggers:Metrics.__init__", 1, 1),
    ("codots.engine.local:LocalEngine.live", 1, 1),
    ("codots.engine.local:LocalEngine.live", 4, 3),
    ("codots.rollout.life.update", 22, 3),
    ("codots.learner.local:LocalLearner.apply", 2, 2),
    ("codots.engine.local:LocalEngine._publish", 2, 2),
    ("codots.training.train.record", 3, 3),
    ("codots.runs.loggers:Metrics.add", 3, 3),
    ("codots.runs.loggers:TensorBoard.add", 3, 3),
    ("codots.learner.local:LocalLearner.save", 3, 3),
    ("codots.runs.checkpoint.write_atomically", 2, 2),
    ("pathlib:Path.rename", 9, 3),
    ("codots.runs.checkpoint.checkpoints", 5, 3),
    ("codots.engine.local:LocalEngine.save_model", 5, 5),
]


@pytest.mark.parametrize(("what", "nth", "first"), MOMENTS, ids=lambda part: str(part).rpartition(".")[2])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(processes, whole, config, what, nth, first):
    """`first` is the first step that is done again."""
    killed(processes, config, what, nth)
    assert [report.step for report in train(config, resume=True)] == list(range(first, 5))
    same_run(config.run, whole.run)


def test_a_run_that_is_killed_again_and_again_gets_there(processes, whole, config):
    """By its parent, as soon as it has written another line; nobody knows where it is by then."""
    for step in (1, 2, 4):
        child = processes.Process(target=resumed, args=(config, step > 1))
        child.start()
        while child.is_alive() and written(config.run) < step:
            child.join(0.001)
        child.kill()
        child.join()
    list(train(config, resume=True))
    same_run(config.run, whole.run)


def resumed(config, resume):
    list(train(config, resume=resume))


def written(run):
    with suppress(OSError):
        return (Path(run) / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def test_two_workers_are_killed_and_go_on_as_if_they_had_not_been(processes, base, tmp_path):
    two = recipe(base, tmp_path / "two", workers=2, steps=2, look_every=0)
    other = changed(two, run=str(tmp_path / "other"))
    killed(processes, other, "codots.learner.local:LocalLearner.apply", 2)
    list(train(two))
    list(train(other, resume=True))
    same_run(two.run, other.run)


def test_a_look_changes_nothing(whole, config):
    list(train(changed(config, look_every=0)))
    assert equal(weights(config.run), weights(whole.run))
    assert not any(key.startswith("look/") for line in metrics(config.run) for key in line)


def test_a_look_gives_own_and_null_the_same_start(whole):
    looks = [line for line in metrics(whole.run) if "look/lift" in line]
    assert [line["step"] for line in looks] == [2, 4]
    for line in looks:
        assert line["look/own_0"] == line["look/null_0"]
        assert line["look/lift"] == line["look/own_2"] - line["look/null_2"]


class Shut(Flaky):
    """Down for whoever looks."""

    id = "shut-v0"

    def make_env(self, task, *, style="natural", memory=None, rng):
        if style == "compact" and task.names[2] == "dev":
            raise ConnectionError("the house is down")
        return super().make_env(task, style=style, memory=memory, rng=rng)


def test_a_look_that_meets_nobody_has_no_numbers(config, registry):
    register(Shut())
    (report,) = train(changed(config, domain="shut-v0", preset="few", steps=1, look_every=1))
    assert report.metrics["lives/missing"] == 0
    assert not any(key.startswith("look/") for key in report.metrics)


def test_no_pack_is_met_twice_and_none_is_held_out(config):
    packs = [pack for step in (1, 2, 3) for pack in step_packs(config, step)]
    assert len({pack.names for pack in packs}) == 6
    assert {pack.split for pack in packs} == {"train"}


def test_every_life_draws_under_its_own_name(config):
    jobs = [job for step in (1, 2) for job in step_jobs(config, PROFILE, step_packs(config, step), step)]
    assert len({job.names for job in jobs}) == len(jobs) == 8
    assert [job.pack.index for job in jobs] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(isinstance(job.contexts, Own) for job in jobs)


@pytest.mark.parametrize("given", [False, True])
def test_lives_are_laid_out_by_pack_life_and_position(given):
    P, G, S = 3, 2, 4
    lives = some_lives(P * G, S, missing=(1, 4), given=given)
    found = collect(lives, P, G, S)
    for p in range(P):
        for g in range(G):
            one = lives[p * G + g]
            for j in range(S):
                solves = [e for e in one.episodes if (e.kind, e.position) == ("solve", j)]
                np.testing.assert_equal(found.solve_PGS[p, g, j], solves[0].reward if solves else np.nan)
                np.testing.assert_equal(
                    found.solve_tokens_PGS[p, g, j], solves[0].transcript.tokens if solves else np.nan
                )
            for j in range(S - 1):
                updates = [e for e in one.episodes if (e.kind, e.position) == ("update", j)]
                nothing = np.nan if one.failure else 0.0
                np.testing.assert_equal(found.update_PGS[p, g, j], updates[0].reward if updates else nothing)
                np.testing.assert_equal(
                    found.update_tokens_PGS[p, g, j], updates[0].transcript.tokens if updates else nothing
                )


def test_a_pack_of_one_task_has_no_updates():
    found = collect(some_lives(4, 1), 2, 2, 1)
    assert found.solve_PGS.shape == (2, 2, 1)
    assert found.update_PGS.shape == (2, 2, 0)


def numbered(P, G, S):
    """Give every episode of a batch an advantage of its own."""
    p, g, j = np.ogrid[:P, :G, :S]
    return Advantages(1.0 + 100 * p + 10 * g + j, -(1.0 + 100 * p + 10 * g + j)[..., : S - 1], {})


def test_minibatches_are_cut_by_pack_and_every_episode_is_in_one(config):
    P, G, S = 4, 2, 3
    lives = some_lives(P * G, S, missing=(3,))
    lives[0].episodes[1].transcript.mask[:] = [False] * len(lives[0].episodes[1].transcript.mask)
    batches = []
    engine = SimpleNamespace(step=lambda batch: batches.append(batch) or {"loss": float(len(batches))})
    report = learn(engine, changed(config, packs=P, group=G, size=S, minibatches=2), lives, numbered(P, G, S))
    assert report == {"loss": 1.5}
    expected = []
    for packs in ((0, 1), (2, 3)):
        expected.append([])
        for p in packs:
            for g in range(G):
                for e in lives[p * G + g].episodes:
                    if e.transcript.tokens:
                        sign = 1 if e.kind == "solve" else -1
                        expected[-1].append((e.transcript.ids, sign * (1.0 + 100 * p + 10 * g + e.position)))
    assert [[(s.ids, s.advantages[-1]) for s in batch] for batch in batches] == expected
    for sample in (sample for batch in batches for sample in batch):
        assert [bool(a) for a in sample.advantages] == sample.mask


def test_a_batch_without_any_life_takes_no_step(config):
    engine = SimpleNamespace(step=lambda batch: pytest.fail("a step on nothing"))
    assert learn(engine, config, some_lives(4, 3, missing=range(4)), numbered(2, 2, 3)) == {}


def test_the_rate_falls_over_all_minibatches(config):
    config = changed(config, steps=2, minibatches=2, learner={"lr": 0.01, "warmup": 0, "decay_to": 0.5})
    list(train(config))
    rates = [0.01 * (0.5 + 0.5 * (1 - step / 4)) for step in range(4)]
    found = [line["learner/lr"] for line in metrics(config.run)]
    assert found == pytest.approx([np.mean(rates[:2]), np.mean(rates[2:])])


def test_task_by_task_credits_a_solve_by_its_own_reward_alone(config):
    config = changed(config, contexts="none", credit={"preset": "leave-one-out"}, packs=3, group=4, size=3)
    rewards = collect(some_lives(12, 3, missing=(5,), given=True), 3, 4, 3)
    found = credit_of(config, rewards)
    r = rewards.solve_PGS
    for p in range(3):
        for g in range(4):
            for j in range(3):
                others = [r[p, h, j] for h in range(4) if h != g and not np.isnan(r[p, h, j])]
                own = 0.0 if np.isnan(r[p, g, j]) else r[p, g, j] - np.mean(others)
                assert found.solve_PGS[p, g, j] == pytest.approx(own)
    assert found.update_PGS.shape == (3, 4, 2)
    assert not found.update_PGS.any()


def test_training_task_by_task_rewrites_nothing(config):
    reports = list(train(changed(config, contexts="none", steps=2)))
    episodes = [episode for report in reports for life in report.lives for episode in life.episodes]
    assert {(episode.kind, episode.context) for episode in episodes} == {("solve", "")}
    assert all(report.metrics["malformed/update"] == 0 for report in reports)
    jobs = step_jobs(changed(config, contexts="none"), PROFILE, step_packs(config, 1), 1)
    assert {job.contexts for job in jobs} == {Given(Rewrite(cap=PROFILE.cap), ("", "", ""))}


def test_recorded_advantages_are_those_of_the_recorded_rewards(whole):
    rows = load_rollouts(whole.run)
    assert {row.step for row in rows} == {1, 2, 3, 4}
    for step in range(1, 5):
        arrays = [np.zeros((2, 2, S)) for S in (3, 2, 3, 2)]
        here = [row for row in rows if row.step == step]
        where = [
            (row.kind == "update", (row.pack[-1] - 2 * (step - 1), row.life - 2 * (row.pack[-1] % 2), row.position))
            for row in here
        ]
        for row, (update, at) in zip(here, where, strict=True):
            arrays[update][at], arrays[2 + update][at] = row.reward, row.tokens
        credit = advantages(*arrays, "codots")
        for row, (update, at) in zip(here, where, strict=True):
            assert row.advantage == pytest.approx((credit.update_PGS if update else credit.solve_PGS)[at])


def test_a_summary_counts_what_happened():
    lives = some_lives(6, 3, missing=(2,))
    packs = [make_pack("frozen-lake-v1", "tiny", "train", i, 3) for i in range(3)]
    values = summary(collect(lives, 3, 2, 3), lives, packs)
    there = [one for one in lives if one.failure is None]
    for j in range(3):
        rewards = [e.reward for one in there for e in one.episodes if (e.kind, e.position) == ("solve", j)]
        assert values[f"reward/{j}"] == pytest.approx(np.mean(rewards))
    for kind in ("solve", "update"):
        stops = [e.stop for one in there for e in one.episodes if e.kind == kind]
        assert values[f"malformed/{kind}"] == pytest.approx(stops.count("malformed") / len(stops))
    assert values["lives/missing"] == 1


def test_the_facts_of_the_last_contexts_are_counted():
    packs = [make_pack("frozen-lake-v1", "tiny", "train", i, 2) for i in range(2)]
    truths = [pack.domain.oracle_context(pack.world, "compact") for pack in packs]
    lives = []
    for i, context in enumerate([truths[0], "", truths[1], " ".join(truths[1].split()[:2])]):
        solves = (
            Episode("solve", j, 0.0, z, None, "goal", (), "", Transcript()) for j, z in enumerate(["1=up", context])
        )
        lives.append(Life(("life", i), tuple(solves)))
    values = summary(collect(lives, 2, 2, 2), lives, packs)
    assert (values["facts/right"], values["facts/wrong"]) == ((1 + 0 + 1 + 0.5) / 4, 0.0)


def test_lives_that_are_missing_do_not_stop_a_step(config, registry):
    domain = register(Flaky())
    domain.down = (1, 2, 3)
    config = changed(config, domain="flaky-v0", preset="few", steps=1, packs=4)
    (report,) = train(config)
    assert report.metrics["lives/missing"] == report.metrics["credit/missing_lives"] == 6
    assert report.metrics["credit/groups_used"] == 1
    assert [life.failure is None for life in report.lives] == [True] * 2 + [False] * 6
    assert {life.failure for life in report.lives[2:]} == {"ConnectionError: the house is down"}
    assert len({row.pack[-1] for row in load_rollouts(config.run)}) == 1


def test_one_missing_life_of_a_group_is_outside_every_mean(config, monkeypatch):
    """The other lives of its group are credited among themselves; in a group of two nothing is left to compare."""

    async def failing(pack, sampler, render, contexts, play, names):
        if names[-2:] == (0, 1):
            return Life(names, (), "gone")
        return await rollout(pack, sampler, render, contexts, play, names)

    config = changed(config, steps=1, group=3, record_every=1)
    monkeypatch.setattr("codots.rollout.life.rollout", failing)
    (report,) = train(config)
    lives = report.lives
    assert [life.failure for life in lives] == [None, "gone", None, None, None, None]
    rewards = [life.of("solve")[0].reward for life in lives if life.failure is None]
    assert report.metrics["reward/0"] == pytest.approx(np.mean(rewards))
    left = [row.advantage for row in load_rollouts(config.run) if row.pack[-1] == 0 and row.position == 0]
    assert len(left) == 4
    assert left[0] == pytest.approx(-left[2])
    assert report.metrics["credit/missing_lives"] == 1


def test_a_step_without_any_life_stops_the_run_and_says_why(config, registry):
    domain = register(Flaky())
    config = changed(config, domain="flaky-v0", preset="few", look_every=0)
    steps = train(config)
    next(steps)
    domain.down = range(100)
    with pytest.raises(RuntimeError, match="every life of step 2 is missing: ConnectionError: the house is down"):
        next(steps)
    domain.down = ()
    assert [report.step for report in train(config, resume=True)] == [2, 3, 4]


def test_a_gradient_that_is_not_a_number_stops_before_the_weights_change(whole, config, monkeypatch):
    right, learners = pkgutil.resolve_name("codots.learner.local:LocalLearner.gradient"), []

    def wrong(self, batch, normaliser):
        gradient, sums = right(self, batch, normaliser)
        learners.append(self)
        if self.steps == 2:
            gradient[7] = float("nan")
        return gradient, sums

    monkeypatch.setattr("codots.learner.local.LocalLearner.gradient", wrong)
    config = changed(config, save_every=4, look_every=0)
    line = (
        f"the gradient of step 3 is not finite; the weights are untouched; what it was to learn is in {config.run}/stop"
    )
    with pytest.raises(FloatingPointError, match=f"step 3 was stopped: {line}"):
        list(train(config))
    monkeypatch.undo()
    state = learners[0].model.state_dict()
    (last,) = checkpoints(Path(config.run))
    assert last.name == "step-000002"
    assert all(torch.equal(state[name], weight) for name, weight in weights(last).items())
    assert [line["step"] for line in metrics(config.run)] == [1, 2]
    kept_for_a_look(config, whole, 3)
    list(train(config, resume=True))
    assert equal(weights(config.run), weights(whole.run))


def kept_for_a_look(config, whole, step):
    """What the step was to learn from is there: its lives, and the samples to the last number."""
    stopped, report = Path(config.run) / "stopped", whole.reports[step - 1]
    assert load_rollouts(stopped / f"step-{step:06d}.jsonl") == load_rollouts(
        whole.run / "rollouts" / f"step-{step:06d}.jsonl"
    )
    kept = [json.loads(text) for text in (stopped / f"step-{step:06d}.samples").read_text().splitlines()]
    transcripts = [e.transcript for life in report.lives for e in life.episodes if e.transcript.tokens]
    assert [(one["ids"], one["mask"]) for one in kept] == [(t.ids, t.mask) for t in transcripts]
    assert [one["logprobs"] for one in kept] == [t.sample(1.0).logprobs for t in transcripts]


def test_numbers_that_are_not_finite_in_any_worker_stop_the_run_in_one_line(base, tmp_path, monkeypatch):
    """The second worker reads a sample that the first process never looks at."""
    right = pkgutil.resolve_name("codots.engine.local:LocalEngine.step")

    def spoilt(self, batch):
        last = max(range(len(batch)), key=lambda i: len(batch[i].ids) * any(batch[i].advantages))
        batch[last] = replace(batch[last], advantages=[float("inf")] * len(batch[last].ids))
        return right(self, [batch[last]] * 2)

    monkeypatch.setattr("codots.engine.local.LocalEngine.step", spoilt)
    with pytest.raises(ArithmeticError, match=r"step 1 was stopped: .*not finite; the weights") as error:
        list(train(recipe(base, tmp_path / "run", workers=2)))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_sampler_that_disagrees_with_the_learner_stops_the_run_before_the_weights(config, base, tmp_path):
    """Here really: the model is asked to sample at another temperature than the learner scores at."""
    hot = shutil.copytree(base, tmp_path / "hot")
    PROFILE.at(1.5).save(hot)
    config = changed(config, model=str(hot))
    line = (
        r"step (\d) was stopped: sampler and learner disagree: .* are 0\.\d+ apart on average, and gap_limit is 0\.05"
    )
    with pytest.raises(ArithmeticError, match=line) as error:
        list(train(config))
    assert "\n" not in str(error.value)
    step = int(re.match(line, str(error.value))[1])
    assert load_rollouts(Path(config.run) / "stopped")
    assert [line["step"] for line in metrics(config.run)] == list(range(1, step))
    again = next(train(changed(config, gap_limit=10), resume=True))
    assert again.step == step
    assert again.metrics["learner/logprob_gap"] > 0.05


def test_the_gap_is_held_against_the_limit_only_while_the_weights_are_the_samplers(config):
    """Later mini-batches of a step are right to differ."""
    config = changed(config, steps=2, minibatches=2, learner={"lr": 0.05, "warmup": 0}, gap_limit=1e-4, look_every=0)
    reports = list(train(config))
    assert max(report.metrics["learner/logprob_gap"] for report in reports) > 1e-4


def test_a_stage_that_takes_too_long_stops_the_run_and_says_which(whole, config, monkeypatch):
    right = pkgutil.resolve_name("codots.engine.local:LocalEngine.live")
    calls = []

    def stuck(self, jobs, *more):
        calls.append(0)
        if len(calls) == 4:  # 1, 2, its look, and then
            signal.pause()
        return right(self, jobs, *more)

    monkeypatch.setattr("codots.engine.local.LocalEngine.live", stuck)
    patience = {("living 4 lives", 3): 1}
    limited = lambda _, doing: deadline(patience.get((doing, len(calls)), 999), doing)  # noqa: E731
    monkeypatch.setattr(sys.modules["codots.training.train"], "deadline", limited)
    with pytest.raises(TimeoutError, match="gave up after 1 s of living 4 lives"):
        list(train(config))
    monkeypatch.undo()
    assert [report.step for report in train(config, resume=True)] == [3, 4]
    same_run(config.run, whole.run)


def test_a_worker_that_hangs_ends_the_run_and_not_the_patience_of_its_owner(base, tmp_path):
    config = recipe(base, tmp_path / "run", workers=2, steps=2, look_every=0)
    steps = train(config)
    next(steps)
    engine = steps.gi_frame.f_locals["engine"]
    process, _ = engine._others[0]
    os.kill(process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="gave up after 2 s of living"), deadline(2, "living"):
        next(steps)
    assert not process.is_alive()
    assert time.monotonic() - start < 20  # nobody waits for the answer that it owes


def test_two_processes_never_train_in_one_folder(whole, config):
    shutil.copytree(whole.run, config.run)
    before = tree(config.run)
    with open_run(Path(config.run), config, resume=True), pytest.raises(ValueError, match="is in use by process"):
        next(train(config, resume=True))
    assert tree(config.run) == before


def tree(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("point", ["", "checkpoints/step-000003"])
def test_a_fork_takes_weights_and_optimiser_and_counts_from_zero(whole, config, point):
    origin = whole.run / point if point else whole.run
    source = origin if point else checkpoints(whole.run)[-1]
    config = changed(config, fork=str(origin), seed=5, learner={"lr": 3e-3, "warmup": 2}, steps=3)
    steps = train(config)
    first = next(steps)
    start = checkpoints(Path(config.run))[0]
    assert start.name == "step-000000"
    assert equal(weights(start), weights(source))
    assert equal(optimiser(start), optimiser(source))
    assert first.metrics["learner/lr"] == pytest.approx(3e-3 / 2)
    said = json.loads((Path(config.run) / "origin.json").read_text())
    assert (said["checkpoint"], said["step"]) == (str(source.resolve()), int(source.name[-1]))
    assert [report.step for report in steps] == [2, 3]
    moments = optimiser(checkpoints(Path(config.run))[-1])
    assert moments["0 step"] == optimiser(source)["0 step"] + 3


def test_a_fork_decays_its_weights_as_its_own_recipe_says(whole, config):
    ends = []
    for i, decay in enumerate((0.0, 0.5)):
        there = changed(config, run=f"{config.run}-{i}", fork=str(whole.run), steps=1, look_every=0)
        list(train(changed(there, learner={"weight_decay": decay})))
        ends.append(checkpoints(Path(there.run))[-1])
    assert not equal(weights(ends[0]), weights(ends[1]))


def test_a_fork_goes_on_when_its_origin_is_gone(whole, config, tmp_path):
    origin = shutil.copytree(whole.run, tmp_path / "origin")
    there = changed(config, fork=str(origin), seed=5, steps=3)
    list(train(there))
    again = changed(there, run=str(tmp_path / "again"))
    steps = train(again)
    next(steps)
    steps.close()
    shutil.rmtree(origin)
    assert [report.step for report in train(again, resume=True)] == [2, 3]
    same_run(there.run, again.run)


def test_a_fork_from_nothing_leaves_no_run(config, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint at"):
        next(train(changed(config, fork=str(tmp_path / "nowhere"))))
    assert not Path(config.run).exists()


def test_a_run_that_is_there_is_left_alone(whole, config):
    before = {path: path.read_bytes() for path in whole.run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="already holds a run; add --resume"):
        next(train(changed(config, run=str(whole.run))))
    with pytest.raises(ValueError, match="is another run: there seed is 0, here 1"):
        next(train(changed(config, run=str(whole.run), seed=1), resume=True))
    assert {path: path.read_bytes() for path in whole.run.rglob("*") if path.is_file()} == before


def test_a_corrupt_checkpoint_costs_the_steps_since_the_one_before(whole, config, caplog):
    shutil.copytree(whole.run, config.run)
    file = checkpoints(Path(config.run))[-1] / "optimiser.pt"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert [report.step for report in train(config, resume=True)] == [4]
    (said,) = caplog.messages
    assert "optimiser.pt is not what was written; it is set aside" in said
    same_run(config.run, whole.run)


def test_a_model_that_does_not_fit_leaves_no_run(config, base, tmp_path):
    broken = shutil.copytree(base, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no weights"):
        next(train(changed(config, model=str(broken))))
    assert not Path(config.run).exists()


def test_a_style_that_the_domain_does_not_have_leaves_no_run(config, registry):
    register(Guess())
    with pytest.raises(ValueError, match="style 'compact'; guess-v0 has natural"):
        next(train(changed(config, domain="guess-v0", preset="few")))
    assert not Path(config.run).exists()


def test_a_model_that_does_not_know_the_world_is_told_of_at_once(config, caplog):
    report = next(train(changed(config, domain="alchemy-v1", preset="limited", model="base")))
    assert report.metrics["malformed/solve"] == 1
    assert caplog.messages == ["no answer of step 1 could be read; does base know alchemy-v1?"]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 4 MiB; where that is not permitted there is none."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True)
    if not done or done.returncode:
        yield None
        return
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_costs_only_the_steps_since_the_last_checkpoint(whole, config, small_disk, monkeypatch):
    def full(self, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if small_disk is not None:
        config = changed(config, run=str(small_disk / "run"))
    steps = train(config)
    next(steps), next(steps)
    if small_disk is None:
        monkeypatch.setattr("codots.engine.local.LocalEngine.save", full)
    else:
        with (small_disk / "filler").open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(4096))
            file.truncate(file.tell() - 2**16)
    with pytest.raises(OSError, match=r"checkpoint 2 could not be written to .*; the ones before are whole"):
        next(steps)
    assert [folder.name for folder in checkpoints(Path(config.run))] == ["step-000001"]
    assert last_checkpoint(Path(config.run), config)[1]["step"] == 1
    monkeypatch.undo()
    if small_disk is not None:
        (small_disk / "filler").unlink()
    assert [report.step for report in train(config, resume=True)] == [2, 3, 4]
    same_run(config.run, whole.run)
