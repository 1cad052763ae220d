"""Tests of reading run folders: partial runs, several worlds, evaluations, and one-line errors."""

import json
import math
import re

import pytest
import yaml

from codots.report.figures import figures
from codots.report.page import build, section
from codots.report.run import POINTS, by_setting, find_runs, read_run, references_of, unique_names
from tests.report.runs import WORLDS, demo_summary, full_run, life, make_run, mixed_run, report, steps


def test_every_part_of_a_run_is_read(tmp_path):
    run = read_run(full_run(tmp_path / "run"))
    assert (run.name, run.size, run.last_step, run.running) == ("run", 3, 30, False)
    assert [(e.name, e.when) for e in run.evaluations] == [
        ("before", "before"),
        ("base-reads", "before"),
        ("after", "after"),
    ]
    assert [name for name, _ in run.rows] == ["after", "step 1"]
    assert run.totals == {"tokens": 60_000, "seconds": 60.0}
    assert references_of(run)["bayes"] == [0.62, 0.93, 0.93]


@pytest.mark.parametrize("part", ["config", "metrics", "rows"])
def test_a_run_may_have_a_single_part(tmp_path, part):
    parts = {"config": {}, "metrics": {"metrics": steps(3)}, "rows": {"trained": life(0, [0, 1, 1])}}
    folder = make_run(tmp_path / "run", **parts[part])
    if part != "config":
        (folder / "config.yaml").unlink()
    run = read_run(folder)
    assert (len(run.steps), len(run.rows)) == {"config": (0, 0), "metrics": (3, 0), "rows": (0, 1)}[part]


def test_a_run_over_several_worlds_has_references_for_each(tmp_path):
    folder = mixed_run(tmp_path / "run")
    for name, preset, size in (("easy", "easy", 3), ("hard", "hard", 2), ("far", "wide", 2)):
        values = report([0.5] * size, [0.4] * size, model="run", preset=preset)
        (folder / f"{name}.json").write_text(json.dumps(values))
    run = read_run(folder)
    assert (run.size, run.labels) == (3, ["frozen-lake-v1:easy/", "frozen-lake-v1:hard/"])
    assert run.world == ["frozen-lake-v1 easy, frozen-lake-v1 hard", "seed 0"]
    assert {e.name: e.mismatch(run.config) for e in run.evaluations} == {"easy": "", "hard": "", "far": "wide"}
    assert [references_of(run, label)["bayes"] for label in run.labels] == [[0.62, 0.93, 0.93], [0.62, 0.93]]
    assert read_run(make_run(tmp_path / "one")).labels == [""]


@pytest.mark.parametrize("worlds", [3, [], [3], [WORLDS[0] | {"pack_size": "x"}]])
def test_invalid_worlds_are_a_one_line_error(tmp_path, worlds):
    with pytest.raises(
        ValueError, match=r"config\.yaml is not a recipe: expected (a list of worlds|an integer for pack_size)"
    ):
        read_run(make_run(tmp_path / "run", worlds=worlds))


def test_running_is_whether_steps_are_left(tmp_path):
    assert read_run(make_run(tmp_path / "a", metrics=steps(3), steps=10)).running
    assert not read_run(make_run(tmp_path / "b", metrics=steps(3))).running


def test_a_cut_off_last_line_of_metrics_is_ignored(tmp_path):
    folder = make_run(tmp_path / "run", metrics=steps(3))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    assert read_run(folder).last_step == 3


def test_many_steps_are_averaged_with_their_neighbours(tmp_path):
    lines = [{"step": t, "reward/0": float(t), **({"eval/own_0": 1.0} if t == 5 else {})} for t in range(1, 1201)]
    run = read_run(make_run(tmp_path / "run", metrics=lines))
    assert len(run.steps) == POINTS
    assert (run.steps[0], run.steps[-1]) == (3, 1200)
    assert run.column("reward/0")[:2] == [2.0, 5.0]
    assert [v for v in run.column("eval/own_0") if math.isfinite(v)] == [1.0]
    assert all(map(math.isnan, run.column("never written")))


def test_references_are_computed_on_dev_packs_without_an_evaluation(tmp_path):
    found = references_of(read_run(make_run(tmp_path / "run", preset="tiny")))
    assert all(len(values) == 3 for values in found.values())
    assert found["floor"][0] < found["bayes"][0] < found["ceiling"][0]
    assert references_of(read_run(make_run(tmp_path / "other", domain="not-here-v1"))) == {}


def test_evaluations_are_grouped_by_setting(tmp_path):
    folder = make_run(tmp_path / "run", demo_summary())
    (folder / "hard.json").write_text(json.dumps(report([0.1] * 8, [0.1] * 8, model=f"{folder}/model", preset="hard")))
    (folder / "notes.json").write_text('{"something": "else"}')
    assert [[e.name for e in group] for group in by_setting(read_run(folder))] == [["before", "after"], ["hard"]]


def test_references_and_after_prefer_the_training_setting(tmp_path):
    folder = make_run(tmp_path / "run", metrics=steps(4))
    computed = references_of(read_run(folder))
    reports = {"eval-hard": report([0.1] * 8, [0.1] * 8, preset="hard"), "eval": report([0.2] * 3, [0.1] * 3)}
    for name, values in reports.items():
        (folder / f"{name}.json").write_text(json.dumps(values | {"model": f"{folder}/model"}))
        run = read_run(folder)
        assert run.after.name == name
        assert references_of(run) == (computed if name == "eval-hard" else {k: values[k] for k in computed})
    assert [e.mismatch(run.config) for e in run.evaluations] == ["", "hard 8 tasks"]
    assert [e.mismatch({}) for e in run.evaluations] == ["", ""]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", '{"step": 1}\nnonsense\n', "metrics.jsonl, line 2: expected the metrics of a step"),
        ("summary.json", "{", "summary.json is not JSON"),
        ("config.yaml", "a: [", "config.yaml is not a recipe"),
        ("config.yaml", "words", "config.yaml is not a recipe"),
        (
            "config.yaml",
            "seed: 1\nseed: 2",
            "config.yaml is not a recipe: the key 'seed' is given twice, in lines 1 and 2",
        ),
        ("config.yaml", "steps:", "config.yaml is not a recipe: expected an integer for steps, got None"),
    ],
)
def test_an_invalid_file_is_named(tmp_path, name, text, message):
    folder = make_run(tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_run(folder)


def test_empty_and_unrelated_json_files_are_ignored(tmp_path):
    folder = make_run(tmp_path / "run", demo_summary())
    (folder / "eval.json").write_text("")
    (folder / "half.json").write_text(json.dumps({"arms": {}, "model": "m", "writer": None, "floor": [], "bayes": []}))
    assert [e.name for e in read_run(folder).evaluations] == ["before", "after"]


def test_repeated_run_names_are_numbered(tmp_path):
    runs = []
    for place, name in (("p", "a"), ("q", "a"), ("r", "a-2"), ("s", "a")):
        (tmp_path / place).mkdir()
        runs.append(read_run(make_run(tmp_path / place / name)))
    assert unique_names(runs) == ["a", "a-2", "a-2-2", "a-3"]


def test_a_step_without_trained_tokens_has_no_entropy(tmp_path):
    values = {"train/entropy": 0.4, "train/logprob_gap": 1e-7, "train/grad_norm": 0.3}
    lines = [line | (values if line["step"] != 2 else dict.fromkeys(values, 0.0)) for line in steps(3)]
    run = read_run(make_run(tmp_path / "run", metrics=lines))
    assert run.column("train/entropy") == pytest.approx([0.4, math.nan, 0.4], nan_ok=True)
    assert run.column("train/logprob_gap") == pytest.approx([1e-7, math.nan, 1e-7], nan_ok=True)
    assert run.column("train/grad_norm") == [0.3, 0.0, 0.3]


def test_after_ignores_evaluations_with_another_writer(tmp_path):
    folder = make_run(tmp_path / "run")
    for name, writer in (("a", "base"), ("b", None)):
        values = report([0.2] * 3, [0.1] * 3, model=f"{folder}/model", writer=writer)
        (folder / f"{name}.json").write_text(json.dumps(values))
    assert read_run(folder).after.name == "b"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model is None"),
        ({"size": "3"}, "size is '3'"),
        ({"size": 4}, "the curve of own does not have 4 positions"),
        ({"arms": {"new": {}}}, "unknown arm 'new'"),
    ],
)
def test_an_invalid_evaluation_is_named(tmp_path, change, message):
    folder = make_run(tmp_path / "run")
    (folder / "eval.json").write_text(json.dumps(report([0.2] * 3, [0.1] * 3) | change))
    with pytest.raises(ValueError, match=rf"eval\.json is not an evaluation: {message}"):
        read_run(folder)
    (folder / "eval.json").unlink()
    (folder / "summary.json").write_text('{"before": {}, "after": {}, "seconds": {}}')
    with pytest.raises(ValueError, match=r"summary\.json is not a demo summary"):
        read_run(folder)


def test_a_missing_run_names_the_nearest(tmp_path):
    make_run(tmp_path / "demo")
    with pytest.raises(ValueError, match=r"no run at .*dmo; expected a folder with config.yaml.*nearest is '.*demo'"):
        read_run(tmp_path / "dmo")


def test_find_runs_searches_nested_folders_but_not_runs(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / name)
    (tmp_path / "more").mkdir()
    make_run(tmp_path / "more" / "c")
    make_run(tmp_path / "a" / "inside")
    (tmp_path / "away").symlink_to(tmp_path / "b")
    assert sorted(find_runs(tmp_path)) == ["a", "b", "more/c"]
    assert find_runs(tmp_path / "b") == {"b": tmp_path / "b"}


def test_an_evaluation_of_longer_packs_is_no_reference(tmp_path):
    folder = make_run(tmp_path / "run", metrics=steps(4))
    computed = references_of(read_run(folder))
    longer = report([0.2] * 8, [0.1] * 8) | {"model": f"{folder}/model"}
    (folder / "eval.json").write_text(json.dumps(longer))
    assert references_of(read_run(folder)) == computed


def test_a_collapse_is_told_with_its_last_step(tmp_path):
    rewards, entropies = [0.35] * 5 + [0.03] * 7, [0.2] * 5 + [0.06] * 7
    rows = [
        {"step": i, "reward/0": reward, "train/entropy": entropy, "train/collapse": float(i in (9, 10))}
        for i, (reward, entropy) in enumerate(zip(rewards, entropies, strict=True), 1)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_run(tmp_path).collapse.startswith(
        "By step 10 training is collapsing: mean reward 0.03 (its best was 0.35)"
    )
    assert "By step 10 training is collapsing" in build([section(read_run(tmp_path))])
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row | {"train/collapse": 0.0}) + "\n" for row in rows))
    assert read_run(tmp_path).collapse == ""


def test_a_run_of_imitation_has_the_worlds_and_steps_of_all_stages(tmp_path):
    stages = [
        {"steps": 2, "worlds": [WORLDS[0], WORLDS[0] | {"pack_size": 2}]},
        {"steps": 2, "worlds": [WORLDS[0], WORLDS[1]]},
        {"steps": 1, "recorded": "x"},
    ]
    values = [
        {"eval/frozen-lake-v1:easy/own_2": 0.1, "eval/frozen-lake-v1:hard/own_1": 0.1, "eval/malformed/solve": 0.5}
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"stages": stages, "seed": 0}))
    rows = [{"step": step, "train/loss": 3.0 / step, **values[0]} for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(folder)
    assert (run.taught, run.running, run.size) == (True, True, 3)
    assert run.labels == ["frozen-lake-v1:easy/", "frozen-lake-v1:hard/"]
    assert run.world == ["frozen-lake-v1 easy, frozen-lake-v1 hard", "seed 0"]
    page = build([section(run)])
    assert "3 of 5 training steps" in page
    assert "No rewards yet." not in page
    assert re.search(r"its loss went from <em[^>]*>3.00</em> to <em[^>]*>1.00</em> nats", page)
    assert {figure.caption for figure in section(run).main_figures} == {"loss", "evaluations", "malformed"}
    assert {"loss", "malformed-dev", "evaluations", "evaluations-1"} <= {figure.name for figure in figures(run)}
