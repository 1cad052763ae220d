"""Runs on several domains: each entry keeps its prompt style, groups and share of every mini-batch."""

from collections import Counter

import numpy as np
import pytest

from codots.config.schema import TrainConfig
from codots.domains.registry import register
from codots.engine.local import LocalEngine
from codots.rollout.records import load_rollouts
from codots.sampler.scripted import ScriptedSampler
from codots.training.batch import blocks_of, credit_of, minibatches, step_jobs
from codots.training.setup import engine_plan, entries_of
from codots.training.train import train
from tests.random_model import PROFILE
from tests.toy import Guess
from tests.training.small import changed, metrics, same_run

LAKE = {"domain": "frozen-lake-v1", "preset": "tiny", "pack_size": 3, "packs_per_step": 2}
GUESS = {"domain": "guess-v0", "preset": "few", "pack_size": 2, "packs_per_step": 4, "profile": {"style": "natural"}}


class Scripted:
    """Makes samplers that reply by session name, so that the lives of a group differ."""

    def __call__(self, worker):
        return ScriptedSampler(worker.render, self.policy)

    def policy(self, names):
        reply = "<context> 1=up </context>" if names[-1] == "update" else str(names[-3] % 2 + 1)
        return lambda text: reply


@pytest.fixture
def mixed(config, registry):
    register(Guess())
    return changed(config, worlds=[LAKE, GUESS], steps=2, max_logprob_gap=1e3, minibatches=2, eval_every=1)


def run(config, base, **how):
    plan = engine_plan(config, base, PROFILE)
    return train(config, engine=LocalEngine(plan.__class__(**{**vars(plan), "make_sampler": Scripted()})), **how)


def test_a_mixed_run_with_scripted_replies(mixed, base, tmp_path):
    reports = list(run(mixed, base))
    assert [report.step for report in reports] == [1, 2]
    for report in reports:
        assert Counter(pack.domain.id for pack in report.packs) == {"frozen-lake-v1": 2, "guess-v0": 4}
        assert len(report.lives) == 2 * 6
        rewards = {key for key in report.metrics if key.startswith("reward/")}
        expected = {f"reward/frozen-lake-v1/{j}" for j in range(3)} | {f"reward/guess-v0/{j}" for j in range(2)}
        assert rewards == expected
        guessed = [life.of("solve") for life in report.lives[4:]]
        for j in range(2):
            mean = np.mean([solves[j].reward for solves in guessed])
            assert report.metrics[f"reward/guess-v0/{j}"] == pytest.approx(mean)
        assert "eval/frozen-lake-v1/own_2" in report.metrics
        assert "eval/guess-v0/lift" in report.metrics
        assert report.metrics["train/grad_norm"] > 0
    rows = load_rollouts(mixed.run)
    assert {row.pack[0] for row in rows} == {"frozen-lake-v1", "guess-v0"}
    stopped = changed(mixed, run=str(tmp_path / "stopped"))
    steps = run(stopped, base)
    next(steps)
    steps.close()
    assert [report.step for report in run(stopped, base, resume=True)] == [2]
    same_run(stopped.run, mixed.run)


def test_the_dev_score_is_the_mean_of_the_normalized_rewards_of_the_domains(mixed, base):
    (report, _) = run(mixed, base)
    entries, shares = entries_of(mixed, PROFILE), []
    for entry in entries:
        packs = [entry.pack("dev", i) for i in range(mixed.eval_packs)]
        tasks = [(pack.domain, task) for pack in packs for task in pack.tasks]
        floor = np.mean([domain.floor(task) for domain, task in tasks])
        ceiling = np.mean([domain.ceiling(task) for domain, task in tasks])
        own = np.mean([report.metrics[f"eval/{entry.label}/own_{j}"] for j in range(entry.world.pack_size)])
        shares.append((own - floor) / (ceiling - floor))
    assert report.metrics["eval/score"] == pytest.approx(np.mean(shares))
    assert metrics(mixed.run)[0]["eval/score"] == report.metrics["eval/score"]


def test_each_job_has_the_style_and_the_limits_of_its_entry(mixed):
    mixed = changed(
        mixed, worlds=[LAKE, GUESS | {"profile": {"style": "natural", "solve_tokens": 2, "max_context_chars": 7}}]
    )
    jobs = step_jobs(entries_of(mixed, PROFILE), mixed.seed, 1)
    found = {
        (job.pack.domain.id, job.params.style, job.params.solve.max_tokens, job.contexts.strategy.cap) for job in jobs
    }
    assert found == {("frozen-lake-v1", "compact", 4, 200), ("guess-v0", "natural", 2, 7)}
    assert len({job.names for job in jobs}) == len(jobs)


def test_minibatches_have_equal_shares_of_every_entry(mixed, base):
    (report, _) = run(mixed, base)
    blocks = blocks_of(entries_of(mixed, PROFILE), 1, report.lives)
    credit = credit_of(mixed, blocks)
    batches = list(minibatches(blocks, credit, 2))
    # 1 of 2 lakes and 2 of 4 guesses, 2 lives each, of 5 and 3 episodes
    assert [len(batch) for batch in batches] == [2 * 5 + 2 * 2 * 3] * 2
    whole = [sample for batch in minibatches(blocks, credit, 1) for sample in batch]
    assert Counter(map(repr, whole)) == Counter(repr(sample) for batch in batches for sample in batch)


def test_entries_of_one_domain_have_distinct_packs_and_labels():
    worlds = [
        LAKE,
        LAKE | {"pack_size": 5, "packs_per_step": 4},
        LAKE | {"preset": "easy"},
        {"domain": "alchemy-v1", "preset": "limited", "profile": {"style": "natural"}},
        LAKE | {"profile": {"solve_tokens": 3}},
    ]
    entries = entries_of(TrainConfig.model_validate({"worlds": worlds}), PROFILE)
    lake = "frozen-lake-v1"
    assert [entry.label for entry in entries] == [
        f"{lake}:tiny:3:0",
        f"{lake}:tiny:5",
        f"{lake}:easy",
        "alchemy-v1",
        f"{lake}:tiny:3:4",
    ]
    names = [pack.names for step in (1, 2, 3) for entry in entries for pack in entry.packs(step)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("worlds", "line"),
    [
        ([LAKE, LAKE], "frozen-lake-v1 tiny is listed twice in worlds"),
        ([LAKE, LAKE | {"packs_per_step": 3}], "3 packs cannot be split into 2 equal mini-batches"),
        ([LAKE | {"profile": {"temperature": 2}}], "unknown key of an entry's profile 'temperature'"),
        (
            [LAKE | {"profile": {"max_context_chars": True}}],
            "max_context_chars is True; expected a number of at least 0",
        ),
        ([LAKE | {"profile": {"solve_tokens": -1}}], "solve_tokens is -1; expected a number of at least 1"),
        ([LAKE | {"packs_per_step": 10**20}], "less than or equal to 1000000"),
        ([], "at least 1 item"),
    ],
)
def test_invalid_worlds_are_rejected(worlds, line):
    with pytest.raises(ValueError, match=line):
        TrainConfig.model_validate({"worlds": worlds, "minibatches": 2})


def test_there_is_no_dev_score_if_an_entry_could_not_be_evaluated(mixed, base, registry):
    """Otherwise the mean over the others would look like that of all entries."""

    class DevDown(Guess):
        id = "dev-down-v0"

        def make_env(self, task, *, style="natural", memory=None, rng):
            if task.names[2] == "dev":
                raise ConnectionError("the environment is down")
            return super().make_env(task, style=style, memory=memory, rng=rng)

    register(DevDown())
    (report, _) = run(changed(mixed, worlds=[LAKE, GUESS | {"domain": "dev-down-v0"}]), base)
    assert "eval/frozen-lake-v1/own_0" in report.metrics
    assert not any(key.startswith("eval/dev-down-v0") or key == "eval/score" for key in report.metrics)


def test_a_style_that_one_domain_lacks_writes_no_run(mixed, tmp_path):
    config = changed(mixed, worlds=[LAKE, GUESS | {"profile": {}}], run=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="style 'compact'; guess-v0 has natural"):
        next(train(config))
    assert not (tmp_path / "none").exists()
