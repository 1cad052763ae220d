"""A run is a function of its recipe, and its steps follow the algorithm."""

import os

import numpy as np
import pytest

from codots.algorithm.credit import Advantages, advantages
from codots.config.schema import TrainConfig
from codots.context.rewrite import Rewrite
from codots.core.transcript import Transcript
from codots.domains.registry import make_pack, register
from codots.engine.local import LocalEngine
from codots.engine.plan import Plan
from codots.rollout.life import Job, Life
from codots.rollout.profile import load_profile
from codots.rollout.records import load_rollouts
from codots.rollout.steps import Episode, Given, Own
from codots.runs.checkpoint import best_checkpoint, checkpoints
from codots.training.batch import Block, credit_of, minibatches, rewards_of, step_jobs
from codots.training.metrics import summary
from codots.training.setup import entries_of
from codots.training.train import train
from tests.random_model import PROFILE, Flaky, fake_lives
from tests.training.small import changed, equal, metrics, same_run, weights


def test_a_run_writes_its_documented_files(whole, base):
    assert sorted(os.listdir(whole.run)) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "model",
        "rollouts",
        "tensorboard",
    ]
    best = max((2, 4), key=lambda step: np.mean([metrics(whole.run)[step - 1][f"eval/own_{j}"] for j in range(3)]))
    kept = sorted({best, 3, 4})
    assert [folder.name for folder in checkpoints(whole.run)] == [f"step-{step:06d}" for step in kept]
    assert best_checkpoint(whole.run).name == f"step-{best:06d}"
    assert equal(weights(whole.run), weights(checkpoints(whole.run)[-1]))
    assert load_profile(whole.run / "model") == PROFILE
    assert [line["step"] for line in metrics(whole.run)] == [1, 2, 3, 4]
    assert [(report.step, report.steps) for report in whole.reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [{"step": report.step} | report.metrics for report in whole.reports] == metrics(whole.run, clock=True)


def test_every_step_has_a_gradient(whole):
    """Otherwise the tests of equal weights would be vacuous."""
    assert all(report.metrics["train/grad_norm"] > 0 for report in whole.reports)
    assert any(report.metrics[f"reward/{j}"] > 0 for report in whole.reports for j in range(3))


def test_equal_recipes_give_equal_runs(whole, config):
    list(train(config))
    same_run(config.run, whole.run)


@pytest.mark.parametrize("temperature", [0.5, 0.7, 1.3])
@pytest.mark.parametrize("more", [{}, {"lora": {"rank": 4}, "gradient_checkpointing": True}], ids=["plain", "lora"])
def test_learner_and_reference_score_at_the_temperature_of_the_sampling(config, temperature, more):
    """In both entries of a mixture, with one mini-batch, whose weights are still those of the sampler."""
    worlds = [{"preset": "tiny", "pack_size": 3, "packs_per_step": 2}, {"packs_per_step": 2, "pack_size": 2}]
    learner = {"lr": 3e-3, "warmup_steps": 0, "kl_coef": 0.1, "entropy_coef": 0.01} | more
    config = changed(config, worlds=worlds, profile={"temperature": temperature}, learner=learner, steps=2)
    first, second = (report.metrics for report in train(config))
    for values in (first, second):
        assert values["train/logprob_gap_max"] < 1e-5
        assert values["train/clip_fraction"] == 0
        assert values["train/grad_norm"] > 0
    assert first["train/ref_kl"] == pytest.approx(0, abs=1e-9)  # the policy is still the reference
    assert second["train/ref_kl"] > 0


def test_an_engine_returns_logprobs_at_the_temperature_of_its_profile(base):
    profile = PROFILE.at(0.7)
    engine = LocalEngine(Plan(base, profile, reference=base), workers=2)
    pack = make_pack("frozen-lake-v1", "tiny", "train", 0, 2)
    jobs = [Job(pack, Own(profile.strategy()), profile.episode_params(), ("life", i)) for i in range(2)]
    samples = [e.transcript.sample(1.0) for life in engine.rollout(jobs, 60) for e in life.episodes]
    for rows in (engine.logprobs(samples, 60), engine.logprobs(samples, 60, reference=True)):
        for row, sample in zip(rows, samples, strict=True):
            assert row == pytest.approx(sample.logprobs, abs=1e-5)
    engine.close()


def test_another_seed_gives_another_run(whole, config):
    list(train(changed(config, seed=1)))
    assert not equal(weights(config.run), weights(whole.run))


def test_dev_evaluation_does_not_change_the_run(whole, config):
    list(train(changed(config, eval_every=0)))
    assert equal(weights(config.run), weights(whole.run))
    assert not any(key.startswith("eval/") for line in metrics(config.run) for key in line)


def test_dev_evaluation_has_the_same_first_task_for_own_and_null(whole):
    lines = [line for line in metrics(whole.run) if "eval/lift" in line]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert line["eval/own_0"] == line["eval/null_0"]
        assert line["eval/lift"] == line["eval/own_2"] - line["eval/null_2"]


class DevDown(Flaky):
    """Its environments are down on dev packs."""

    id = "dev-down-v0"

    def make_env(self, task, *, style="natural", memory=None, rng):
        if style == "compact" and task.names[2] == "dev":
            raise ConnectionError("the environment is down")
        return super().make_env(task, style=style, memory=memory, rng=rng)


def test_dev_evaluation_without_lives_has_no_metrics(config, registry):
    register(DevDown())
    (report,) = train(changed(config, domain="dev-down-v0", preset="few", steps=1, eval_every=1))
    assert report.metrics["rollout/failed"] == 0
    assert not any(key.startswith("eval/") for key in report.metrics)


def test_all_training_packs_are_distinct_and_from_the_train_split(config):
    (entry,) = entries_of(config, PROFILE)
    packs = [pack for step in (1, 2, 3) for pack in entry.packs(step)]
    assert len({pack.names for pack in packs}) == 6
    assert {pack.split for pack in packs} == {"train"}


def test_every_job_has_a_unique_name(config):
    jobs = [job for step in (1, 2) for job in step_jobs(entries_of(config, PROFILE), config.seed, step)]
    assert len({job.names for job in jobs}) == len(jobs) == 8
    assert [job.pack.index for job in jobs] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(isinstance(job.contexts, Own) for job in jobs)


@pytest.mark.parametrize("given", [False, True])
def test_rewards_are_arrays_by_pack_life_and_position(given):
    P, G, S = 3, 2, 4
    lives = fake_lives(P * G, S, missing=(1, 4), given=given)
    found = rewards_of(lives, P, G, S)
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
    found = rewards_of(fake_lives(4, 1), 2, 2, 1)
    assert found.solve_PGS.shape == (2, 2, 1)
    assert found.update_PGS.shape == (2, 2, 0)


def block(lives, P, G, S, **changes):
    """Return fake lives as the block of one entry."""
    config = TrainConfig.model_validate(
        {"preset": "tiny", "packs_per_step": P, "group_size": G, "pack_size": S} | changes
    )
    (entry,) = entries_of(config, PROFILE)
    return Block(entry, entry.packs(1), lives)


def numbered(P, G, S):
    """Return a unique advantage for every episode of a batch."""
    p, g, j = np.ogrid[:P, :G, :S]
    return Advantages(1.0 + 100 * p + 10 * g + j, -(1.0 + 100 * p + 10 * g + j)[..., : S - 1], {})


def test_minibatches_split_by_pack_and_contain_every_episode():
    P, G, S = 4, 2, 3
    lives = fake_lives(P * G, S, missing=(3,))
    lives[0].episodes[1].transcript.mask[:] = [False] * len(lives[0].episodes[1].transcript.mask)
    batches = list(minibatches([block(lives, P, G, S)], [numbered(P, G, S)], 2))
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


def test_empty_minibatches_are_skipped():
    lives = fake_lives(4, 3, missing=(0, 1))
    assert len(list(minibatches([block(lives, 2, 2, 3)], [numbered(2, 2, 3)], 2))) == 1
    assert list(minibatches([block(fake_lives(4, 3, missing=range(4)), 2, 2, 3)], [numbered(2, 2, 3)], 1)) == []


def test_the_learning_rate_decays_over_all_minibatches(config):
    config = changed(config, steps=2, minibatches=2, learner={"lr": 0.01, "warmup_steps": 0, "min_lr_ratio": 0.5})
    list(train(config))
    rates = [0.01 * (0.5 + 0.5 * (1 - step / 4)) for step in range(4)]
    found = [line["train/lr"] for line in metrics(config.run)]
    assert found == pytest.approx([np.mean(rates[:2]), np.mean(rates[2:])])


def test_task_by_task_credit_of_a_solve_depends_on_its_own_reward_only(config):
    config = changed(
        config, contexts="none", credit={"preset": "leave-one-out"}, packs_per_step=3, group_size=4, pack_size=3
    )
    given = block(fake_lives(12, 3, missing=(5,), given=True), 3, 4, 3, contexts="none")
    (found,) = credit_of(config, [given])
    r = given.rewards.solve_PGS
    for p in range(3):
        for g in range(4):
            for j in range(3):
                others = [r[p, h, j] for h in range(4) if h != g and not np.isnan(r[p, h, j])]
                own = 0.0 if np.isnan(r[p, g, j]) else r[p, g, j] - np.mean(others)
                assert found.solve_PGS[p, g, j] == pytest.approx(own)
    assert found.update_PGS.shape == (3, 4, 2)
    assert not found.update_PGS.any()


def test_training_task_by_task_has_no_updates(config):
    reports = list(train(changed(config, contexts="none", steps=2)))
    episodes = [episode for report in reports for life in report.lives for episode in life.episodes]
    assert {(episode.kind, episode.context) for episode in episodes} == {("solve", "")}
    assert all(report.metrics["malformed/update"] == 0 for report in reports)
    jobs = step_jobs(entries_of(changed(config, contexts="none"), PROFILE), config.seed, 1)
    assert {job.contexts for job in jobs} == {Given(Rewrite(cap=PROFILE.max_context_chars), ("", "", ""))}


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


def test_a_summary_has_mean_rewards_and_failures():
    lives = fake_lives(6, 3, missing=(2,))
    values = summary([block(lives, 3, 2, 3)])
    present = [one for one in lives if one.failure is None]
    for j in range(3):
        rewards = [e.reward for one in present for e in one.episodes if (e.kind, e.position) == ("solve", j)]
        assert values[f"reward/{j}"] == pytest.approx(np.mean(rewards))
    for kind in ("solve", "update"):
        stops = [e.stop for one in present for e in one.episodes if e.kind == kind]
        assert values[f"malformed/{kind}"] == pytest.approx(stops.count("malformed") / len(stops))
    assert values["rollout/failed"] == 1


def test_a_summary_has_the_facts_of_the_final_contexts():
    packs = [make_pack("frozen-lake-v1", "tiny", "train", i, 2) for i in range(2)]
    truths = [pack.domain.oracle_context(pack.world, "compact") for pack in packs]
    lives = []
    for i, context in enumerate([truths[0], "", truths[1], " ".join(truths[1].split()[:2])]):
        solves = (
            Episode("solve", j, 0.0, z, None, "goal", (), "", Transcript()) for j, z in enumerate(["1=up", context])
        )
        lives.append(Life(("life", i), tuple(solves)))
    values = summary([block(lives, 2, 2, 2)])
    assert (values["facts/right"], values["facts/wrong"]) == ((1 + 0 + 1 + 0.5) / 4, 0.0)
