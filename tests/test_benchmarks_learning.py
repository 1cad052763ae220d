"""Quick forms of the learning benchmarks, and the correctness of what they count."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from codots.core.rng import stream
from codots.core.transcript import Sampled, StopReason, Transcript
from codots.domains.registry import domain_ids, get_domain

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def script():
    """Import benchmark scripts by name, and remove them afterwards, because `trl` is also the name of a package."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def quick(script, monkeypatch, capsys):
    """Return a function that runs a script with `--quick --json` and returns its output."""

    def call(name):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick", "--json"])
        script(name).main()
        return json.loads(capsys.readouterr().out)

    return call


def transcript_of(seed):
    """Draw an episode of one to four turns."""
    rng, transcript = stream("benchmark", seed), Transcript()
    for _ in range(rng.integers(1, 5)):
        transcript.read(rng.integers(0, 800, rng.integers(1, 12)).tolist())
        ids = rng.integers(0, 800, rng.integers(1, 5)).tolist()
        transcript.wrote(Sampled(ids, [-1.0] * len(ids), StopReason.STOP, [0] * len(ids)))
    return transcript


def test_all_learners_compute_the_same_gradient_and_trees_run_the_fewest_ids(quick):
    found = quick("learner")["contestants"]
    for row in found.values():
        assert row["difference"] < 1e-4
        assert row["real_tokens_per_s"] > 0
    trees, padded, turns = (found[name] for name in ("trees", "padded", "a sample a turn"))
    assert trees["ids"] < padded["ids_unpadded"] < padded["ids"]
    assert turns["ids"] > 4 * trees["ids"]
    assert trees["samples"] == padded["samples"] < turns["samples"]


@pytest.mark.parametrize("seed", range(5))
def test_samples_by_turn_train_every_sampled_id_once_after_its_whole_prefix(script, seed):
    sample = transcript_of(seed).sample(0.5)
    turns = script("learner").by_turn([sample])
    trained = [(i, a) for turn in turns for i, (m, a) in enumerate(zip(turn.mask, turn.advantages, strict=True)) if m]
    assert trained == [(i, 0.5) for i, sampled in enumerate(sample.mask) if sampled]
    for turn in turns:
        assert turn.ids == sample.ids[: len(turn.ids)]
        assert turn.mask[-1]


@pytest.mark.parametrize("budget", [1, 60, 10**6])
def test_padded_parts_stay_within_the_budget_and_keep_every_sample(script, budget):
    batch = [transcript_of(seed).sample(1.0) for seed in range(30)]
    parts = list(script("learner").padded_parts(batch, budget))
    assert sorted(id(sample) for part in parts for sample in part) == sorted(map(id, batch))
    assert all(len(part) == 1 or len(part) * max(len(s.ids) for s in part) <= budget for part in parts)


def test_the_trl_benchmark_runs_without_trl_and_says_so(quick):
    found = quick("trl")
    (ours,) = found["contestants"].values()
    assert 0 < ours["live"] < ours["seconds"]
    assert 0 < ours["sampled"] < ours["total"]
    assert "TRL was not run" in found["notes"][0]


@pytest.mark.parametrize("seed", range(5))
def test_trl_receives_every_id_that_the_policy_read_by_turn(script, seed):
    transcript = transcript_of(seed)
    turns = script("trl").inputs_by_turn(transcript)
    flat = [id for turn in turns for id in turn]
    assert flat == [id for id, sampled in zip(transcript.ids, transcript.mask, strict=True) if not sampled]
    assert len(turns) == sum(a and not b for a, b in zip(transcript.mask, [*transcript.mask[1:], False], strict=True))


def test_long_life_reports_rollout_and_learning_costs_for_each_length(quick):
    found = quick("long_life")
    assert [row["tasks"] for row in found["contestants"].values()] == [2, 4, 8]
    for row in found["contestants"].values():
        assert row["ms_a_task"] == pytest.approx(row["live_ms_a_task"] + row["learn_ms_a_task"], rel=1e-6)
        assert min(row.values()) > 0 or sys.platform != "linux"  # other systems do not report peak memory


def test_a_failing_contestant_ends_the_contest(script):
    contest = script("contest")
    with pytest.raises(RuntimeError, match="a contestant ended with exit code 1"):
        contest.contest({"broken": contest.in_process(int, "not a number")}, 1)


def test_figures_are_printed_with_their_targets(script, capsys):
    found = {
        "what": "a race",
        "contestants": {"hare": {"s": 0.5}, "hedgehog": {}},
        "notes": [],
        "bars": {"ratio": (2.04, "at least 1.5")},
    }
    script("contest").show(found, {"s": "seconds"}, False)
    assert "ratio: 2.04 (target: at least 1.5)" in capsys.readouterr().out


def test_the_benchmark_of_reading_has_a_valid_recipe_for_every_family(script):
    literate = script("literate")
    families = {name.rsplit("-v", 1)[0] for name in domain_ids()}
    assert {name.rsplit("-v", 1)[0] for name in literate.SETTINGS} == families
    for domain, settings in literate.SETTINGS.items():
        (world,) = literate.recipe(domain, **settings).stages[0].worlds
        assert world.preset in get_domain(domain).presets
