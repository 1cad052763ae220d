"""The benchmarks of learning run at a quick scale, and what they count is what they say they count."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from codots.core.rng import stream
from codots.core.transcript import Sampled, StopReason, Transcript

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    """Find scripts where they lie, and forget them after: one is named as a package that others look for."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def quick(script, monkeypatch, capsys):
    """Call a script as from a shell, at a quick scale."""

    def call(name):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick", "--json"])
        script(name).main()
        return json.loads(capsys.readouterr().out)

    return call


def transcript_of(seed):
    """Draw an episode of some turns."""
    rng, transcript = stream("benchmark", seed), Transcript()
    for _ in range(rng.integers(1, 5)):
        transcript.read(rng.integers(0, 800, rng.integers(1, 12)).tolist())
        ids = rng.integers(0, 800, rng.integers(1, 5)).tolist()
        transcript.wrote(Sampled(ids, [-1.0] * len(ids), StopReason.STOP, [0] * len(ids)))
    return transcript


def test_every_way_to_train_the_demos_episodes_has_the_same_gradient_and_trees_run_the_fewest_ids(quick):
    found = quick("learner")["contestants"]
    for row in found.values():
        assert row["difference"] < 1e-4
        assert row["real_tokens_per_s"] > 0
    trees, padded, turns = (found[name] for name in ("trees", "padded", "a sample a turn"))
    assert trees["ids"] < padded["ids_unpadded"] < padded["ids"]
    assert turns["ids"] > 4 * trees["ids"]
    assert trees["samples"] == padded["samples"] < turns["samples"]


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_a_turn_trains_every_sampled_id_once_after_all_that_was_before(script, seed):
    sample = transcript_of(seed).sample(0.5)
    turns = script("learner").by_turn([sample])
    trained = [(i, a) for turn in turns for i, (m, a) in enumerate(zip(turn.mask, turn.advantages, strict=True)) if m]
    assert trained == [(i, 0.5) for i, sampled in enumerate(sample.mask) if sampled]
    for turn in turns:
        assert turn.ids == sample.ids[: len(turn.ids)]
        assert turn.mask[-1]


@pytest.mark.parametrize("budget", [1, 60, 10**6])
def test_a_padded_part_keeps_the_budget_and_no_sample_is_lost(script, budget):
    batch = [transcript_of(seed).sample(1.0) for seed in range(30)]
    parts = list(script("learner").padded_parts(batch, budget))
    assert sorted(id(sample) for part in parts for sample in part) == sorted(map(id, batch))
    assert all(len(part) == 1 or len(part) * max(len(s.ids) for s in part) <= budget for part in parts)


def test_a_step_of_the_demo_is_measured_and_an_absent_trl_is_said(quick):
    found = quick("trl")
    (ours,) = found["contestants"].values()
    assert 0 < ours["live"] < ours["seconds"]
    assert 0 < ours["sampled"] < ours["total"]
    assert "TRL was not run" in found["notes"][0]


@pytest.mark.parametrize("seed", range(5))
def test_trl_is_given_all_that_the_policy_was_given_turn_by_turn(script, seed):
    transcript = transcript_of(seed)
    turns = script("trl").given(transcript)
    flat = [id for turn in turns for id in turn]
    assert flat == [id for id, sampled in zip(transcript.ids, transcript.mask, strict=True) if not sampled]
    assert len(turns) == sum(a and not b for a, b in zip(transcript.mask, [*transcript.mask[1:], False], strict=True))


def test_tasks_of_lives_of_every_length_are_told_apart_by_living_and_learning(quick):
    found = quick("long_life")
    assert [row["tasks"] for row in found["contestants"].values()] == [2, 4, 8]
    for row in found["contestants"].values():
        assert row["ms_a_task"] == pytest.approx(row["live_ms_a_task"] + row["learn_ms_a_task"], rel=1e-6)
        assert min(row.values()) > 0 or sys.platform != "linux"  # elsewhere no peak of memory is told


def test_a_contestant_that_fails_ends_the_contest(script):
    contest = script("contest")
    with pytest.raises(RuntimeError, match="a contestant ended with exit code 1"):
        contest.contest({"broken": contest.apart(int, "not a number")}, 1)


def test_figures_are_shown_beside_what_was_asked_for(script, capsys):
    found = {
        "what": "a race",
        "contestants": {"hare": {"s": 0.5}, "hedgehog": {}},
        "notes": [],
        "bars": {"ratio": (2.04, "at least 1.5")},
    }
    script("contest").show(found, {"s": "seconds"}, False)
    assert "ratio: 2.04 (asked for: at least 1.5)" in capsys.readouterr().out
