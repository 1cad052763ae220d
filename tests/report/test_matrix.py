"""The transfer matrix marks a lift only if its interval excludes 0, and compares only equal packs."""

import json
import re

import pytest

from codots.report.matrix import Cell, read_result, rows, starts, write_matrix
from tests.report.runs import make_run, report
from tests.report.test_page import Reader


def suite(folder, *, lifts, model="m", step=None, start=None, name="worlds", **changed):
    """Write the results of a suite: the lift of each evaluation, and those of step 0 if `start` is given."""

    def reports(values, of):
        pairs = values.items()
        return {key: report([0.5, 0.5 + lift], [0.5, 0.5], model=of, **changed) for key, lift in pairs}

    steps = [{"step": step, "evaluations": reports(lifts, model)}]
    if start is not None:
        steps.insert(0, {"step": 0, "evaluations": reports(start, "models/first")})
    folder.mkdir(exist_ok=True)
    (folder / "suite.json").write_text(json.dumps({"suite": name, "model": model, "steps": steps}))
    return folder


def page(folders, to):
    return Reader(write_matrix(folders, to).read_text()).text


@pytest.mark.parametrize(
    ("interval", "sign"),
    [([0.01, 0.3], "above 0"), ([-0.3, -0.01], "below 0"), ([0.0, 0.3], ""), ([-0.1, 0.3], ""), ([None, None], "")],
)
def test_a_lift_is_marked_only_if_its_interval_excludes_0(interval, sign):
    assert Cell(0.2, interval).sign == sign


def test_a_cell_has_the_lift_at_the_last_position_with_its_interval(tmp_path):
    one = suite(tmp_path / "one", lifts={"lake": 0.3, "bandit": 0.04}, model="runs/one")
    two = suite(tmp_path / "two", lifts={"bandit": -0.2, "lake": 0.0}, model="runs/two")
    text = page([one, two], tmp_path / "matrix.html")
    assert "one +0.30[0.25, 0.35]above 0 +0.04[\u22120.01, 0.09]" in text
    assert "two +0.00[\u22120.05, 0.05] \u22120.20[\u22120.25, \u22120.15]below 0" in text


def test_the_last_checkpoint_is_the_model_and_step_0_is_its_start(tmp_path):
    folders = [
        suite(tmp_path / name, lifts={"lake": lift}, model=f"runs/{name}", step=20, start={"lake": 0.1})
        for name, lift in (("one", 0.3), ("two", 0.4))
    ]
    found = [read_result(folder) for folder in folders]
    assert [(row.name, row.about) for row in starts(found)] == [("first", "start of one, two")]
    assert [row.name for row in rows(found)] == ["one", "two"]
    assert [round(row.cells[0].gain, 2) for row in rows(found)] == [0.2, 0.3]
    assert "+0.30 over the start" in page(folders, tmp_path / "matrix.html")


def test_a_start_with_a_folder_of_its_own_has_one_row(tmp_path):
    first = suite(tmp_path / "first", lifts={"lake": 0.1}, model="models/first")
    run = suite(tmp_path / "run", lifts={"lake": 0.3}, model="runs/one", step=20, start={"lake": 0.1})
    assert list(starts([read_result(first), read_result(run)])) == []


def test_cells_of_the_trained_world_say_so(tmp_path):
    run = make_run(tmp_path / "mine")  # on frozen-lake-v1 easy
    trained = suite(tmp_path / "trained", lifts={"lake": 0.3}, model=str(run))
    other = suite(tmp_path / "other", lifts={"lake": 0.3}, model=str(run), preset="hard")
    for folder, known in ((trained, True), (other, False)):
        [row] = rows([read_result(folder)])
        assert (row.name, row.about, row.cells[0].trained) == ("mine", "trained on frozen-lake-v1 easy", known)


def test_models_of_one_name_are_told_apart_by_their_folders(tmp_path):
    folders = [suite(tmp_path / name, lifts={"lake": 0.3}, model=f"{name}/mine") for name in ("a", "b")]
    assert [row.name for row in rows(list(map(read_result, folders)))] == list(map(str, folders))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"name": "quick"}, "is of the suite quick"),
        ({"lifts": {"lake": 0.3, "bandit": 0.1}}, "has bandit; expected the same evaluations"),
        ({"n_packs": 50}, "lake has n_packs 50 in .*two, 40 in .*one; expected equal packs"),
        ({"split": "test"}, "lake has split test"),
        ({"lift": None, "lift_ci95": None}, "lake has no lift; evaluate it with the arms own and null"),
    ],
)
def test_suites_that_cannot_be_compared_are_one_line_and_write_nothing(tmp_path, codots, changed, line):
    one = suite(tmp_path / "one", lifts={"lake": 0.3})
    two = suite(tmp_path / "two", **({"lifts": {"lake": 0.3}} | changed))
    result = codots("report", str(one), str(two), "--out", str(tmp_path / "matrix.html"))
    assert result.code == 2
    assert re.search(line, result.err)
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "matrix.html").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"suite": "a", "model": "m", "steps": []}', '{"steps": 3}'])
def test_a_folder_without_a_finished_suite_is_one_line(tmp_path, codots, text):
    one, two = suite(tmp_path / "one", lifts={"lake": 0.3}), tmp_path / "two"
    two.mkdir()
    assert "two has no suite.json" in codots("report", str(one), str(two)).err
    (two / "suite.json").write_text(text)
    result = codots("report", str(one), str(two))
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "is not a summary of a suite" in result.err


def test_names_are_escaped_and_the_style_is_the_one_that_the_page_allows(tmp_path):
    one = suite(tmp_path / "one", lifts={"<b>lake": 0.3}, model="<script>")
    two = suite(tmp_path / "two", lifts={"<b>lake": 0.3}, model="mine")
    html = write_matrix([one, two], tmp_path / "matrix.html").read_text()
    assert "<script>" not in html
    assert "<b>lake" not in html
    assert " style=" not in html
    assert html.count("<style>") == 1
