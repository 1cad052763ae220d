"""Suites measure one model, or every checkpoint of a run, in many evaluations, and go on where they were stopped."""

import json
import re
from pathlib import Path

import pytest

from codots.config.schema import TrainConfig
from codots.config.suite import load_suite
from codots.evaluation import evaluate as evaluation
from codots.evaluation.suites import SUMMARY, Subject, every_checkpoint, run_suite
from codots.report.suite import write_suite_page
from codots.rollout.records import load_rollouts
from codots.rollout.steps import Own
from codots.runs.checkpoint import checkpoints
from codots.training.train import train

SHIPPED = sorted(Path("recipes/eval").glob("*.yaml"))
SMALL = """
packs: 6
pack_size: 3
workers: 1
arms: [own, null, transcript]
suite:
  bandit: {domain: bandit-v1, preset: tiny}
  lake: {domain: frozen-lake-v1, preset: tiny, arms: [own, null]}
  again: {domain: "ralph-stop:bandit-v1", preset: tiny}
"""


def quiet(name):
    return lambda arm, done, total: None


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def results(out):
    """Return all files of a suite's results as bytes, by path."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.json*"))}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_suite_is_valid(path):
    suite = load_suite(path, "base", ["packs=3"])
    assert len(suite.evaluations) >= 2
    assert {config.packs for config in suite.evaluations.values()} == {3}


def test_shared_settings_give_way_to_those_of_an_evaluation_and_both_to_changes(small):
    suite = load_suite(small, "base", ["pack_size=2"])
    assert [config.arms for config in suite.evaluations.values()] == [
        ["own", "null", "transcript"],
        ["own", "null"],
        ["own", "null", "transcript"],
    ]
    assert {(config.packs, config.pack_size, config.model) for config in suite.evaluations.values()} == {(6, 2, "base")}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("suite: {}", "suite is {}; expected names of evaluations"),
        ("suite: 3", "suite is 3; expected names of evaluations"),
        ("suite: {lake: {pack: 3}}", "suite.lake: unknown key 'pack'; .*the nearest is 'packs'"),
        ("suite: {lake: {domain: frozen-lake-v2}}", "suite.lake: .*the nearest is 'frozen-lake-v1'"),
        ("suite: {lake: {preset: drft}}", "suite.lake: .*the nearest is 'drift'"),
        ("suite: {a/b: {}}", "suite.a/b: expected a name"),
        ("suite: {lake: 3}", "suite.lake is 3; expected settings"),
        ("suite: {lake: {rows: x.jsonl}}", "suite.lake: rows is set"),
        ("suite: {grid: {domain: optimal-control-v1, preset: drift}}", "suite.grid: unknown preset"),
        ("suite: {lake: {context_tokens: 0}}", "suite.lake: context_tokens: .*greater than or equal to 1"),
    ],
)
def test_an_invalid_suite_is_one_line_and_writes_nothing(text, line, tmp_path, codots):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    result = codots("eval", str(path), "--model", "base")
    assert result.code == 2
    assert re.search(line, " ".join(result.err.split()))
    assert [file.name for file in tmp_path.iterdir()] == ["wrong.yaml"]


def test_a_suite_without_a_model_and_a_model_with_a_suites_options_are_refused(small, codots):
    assert "expected --model MODEL" in " ".join(codots("eval", str(small)).err.split())
    assert codots("eval", "base", "--every-checkpoint").code == 2


def test_a_suite_with_a_style_that_a_domain_lacks_is_refused_before_it_starts(tmp_path, codots):
    out = tmp_path / "out"
    result = codots("eval", "recipes/eval/cross-domain.yaml", "--model", "base", "--out", str(out), "packs=2")
    assert result.code == 2
    line = "suite.terminal: the model uses prompt style 'compact'; terminal-v1 has natural"
    assert line in " ".join(result.err.split())
    assert not out.exists()


def test_a_suite_stopped_ten_times_gives_the_same_files_and_asks_for_no_finished_life(small, tmp_path, monkeypatch):
    suite, whole, parts = load_suite(small, "base"), tmp_path / "whole", tmp_path / "parts"
    run_suite(suite, "base", [Subject("base")], whole, quiet)
    asked, ended = [], set()
    rollout = evaluation.OpenModel.rollout

    def watched(self, jobs, timeout, on_life):
        names = [(*job.pack.names, str(job.contexts)) if isinstance(job.contexts, Own) else None for job in jobs]
        assert ended.isdisjoint(names)
        asked.extend(jobs)

        def on_end(k, life):
            ended.update(filter(None, [names[k]]))
            on_life(k, life)

        return rollout(self, jobs, timeout, on_end)

    monkeypatch.setattr(evaluation.OpenModel, "rollout", watched)
    stops = 0
    for limit in range(3, 30):
        left = [limit]

        def killing(name, left=left):
            def on_progress(arm, done, total):
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt

            return on_progress

        try:
            run_suite(suite, "base", [Subject("base")], parts, killing)
        except KeyboardInterrupt:
            stops += 1
    run_suite(suite, "base", [Subject("base")], parts, quiet)
    assert stops >= 10
    assert len(ended) == 5 * 6  # lives of `own`, and of `transcript` where it is an arm
    assert results(parts) == results(whole)
    before = len(asked)
    run_suite(suite, "base", [Subject("base")], parts, quiet)
    assert len(asked) == before


def test_every_checkpoint_is_measured_on_the_same_packs_from_step_0_on(small, tmp_path):
    run = tmp_path / "run"
    world = {"domain": "bandit-v1", "preset": "tiny", "pack_size": 2, "packs_per_step": 2}
    saved = {"save_every": 1, "keep_checkpoints": "all", "eval_every": 0}
    config = TrainConfig(worlds=[world], run=str(run), steps=3, group_size=2, workers=1, **saved)
    assert len(list(train(config))) == len(checkpoints(run)) == 3
    subjects = every_checkpoint(run)
    assert [subject.step for subject in subjects] == [0, 1, 2, 3]
    found = run_suite(load_suite(small, str(run)), str(run), subjects, tmp_path / "out", quiet)
    assert list(found.reports) == [0, 1, 2, 3]
    files = [tmp_path / "out" / f"step-{step:06d}" / "bandit.jsonl" for step in range(4)]
    opened = [[(row.pack, row.turns[0][0]) for row in load_rollouts(file) if row.kind == "solve"] for file in files]
    assert opened[0] == opened[1] == opened[2] == opened[3]
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert [entry["step"] for entry in summary["steps"]] == [0, 1, 2, 3]
    page = write_suite_page(found, tmp_path / "out" / "report.html").read_text()
    assert "reward at position 2 over training" in page
    assert "fraction that has solved its task so far" in page


def test_a_run_without_checkpoints_is_one_line(small, tmp_path, codots):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("steps: 3\n")
    result = codots("eval", str(small), "--model", str(tmp_path / "run"), "--every-checkpoint")
    assert (result.code, "has no checkpoint" in result.err) == (2, True)


def test_the_command_prints_tables_and_writes_a_page(small, tmp_path, codots):
    out = tmp_path / "out"
    result = codots("eval", str(small), "--model", "base", "--out", str(out), "packs=3")
    assert result.code == 0, result.err
    for name in ("bandit (3 packs)", "lake (3 packs)", "again (3 packs)", "lift, last"):
        assert name in result.out
    assert {"report.html", SUMMARY, "lake.json", "lake.jsonl"} <= {file.name for file in out.iterdir()}
