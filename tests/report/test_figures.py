"""Tests of the figures of a run, and of their SVG and PNG files."""

import re
import sys
import xml.etree.ElementTree as ET
from functools import partial

import pytest
import resvg_py
from PIL import Image

from codots.report.figures import figures, side_by_side, write_figures
from codots.report.page import write_report
from codots.report.run import read_run, references_of
from tests.report.runs import demo_summary, full_run, make_run, mixed_run, steps

ALL = ["positions", "arms-after", "training", "facts", "evaluations", "malformed", "tokens", "seconds"]


def test_a_run_has_the_figures_of_its_data(tmp_path):
    assert [f.name for f in figures(read_run(full_run(tmp_path / "all")))] == ALL
    one_step = [{"step": 1, "reward/0": 0.5}]
    assert [f.name for f in figures(read_run(make_run(tmp_path / "one", metrics=one_step, pack_size=1)))] == [
        "training"
    ]
    assert figures(read_run(make_run(tmp_path / "none"))) == []


def title(figure):
    return re.search(r"<title id=[^>]*>([^<]*)", figure.svg)[1]


def test_each_entry_of_worlds_has_its_own_curves_and_references(tmp_path):
    run = read_run(mixed_run(tmp_path / "run"))
    found = {f.name: f for f in figures(run)}
    assert list(found) == ["training", "training-1", "facts-1", "evaluations", "evaluations-1", "tokens", "seconds"]
    assert title(found["training"]) == "Reward while training, frozen-lake-v1:easy"
    assert title(found["training-1"]) == "Reward while training, frozen-lake-v1:hard"
    assert "position 2:" in found["training"].svg
    assert "position 2:" not in found["training-1"].svg
    assert title(found["evaluations-1"]) == "Evaluations on dev, position 1, frozen-lake-v1:hard"
    assert title(found["facts-1"]) == "Facts in the last context, frozen-lake-v1:hard"
    easy, hard = (references_of(run, label) for label in run.labels)
    assert easy != hard
    assert (len(easy["bayes"]), len(hard["bayes"])) == (3, 2)
    both = {f.name: f.svg for f in side_by_side([run, read_run(full_run(tmp_path / "other"))])}
    assert "run frozen-lake-v1:hard" in both["runs-training"]


def test_the_first_figure_shows_before_after_null_and_the_references(tmp_path):
    first = figures(read_run(full_run(tmp_path / "run")))[0]
    for text in ("before: 0.30", "after, null: 0.50", "after: 0.50, 0.70, 0.81", "floor:", "bayes:", "ceiling:"):
        assert text in first.svg


def test_facts_that_are_neither_right_nor_wrong_are_missing(tmp_path):
    lines = [{"step": t, "facts/right": r, "facts/wrong": w} for t, r, w in ((1, 0.2, 0.3), (2, 0.9, 0.4))]
    lines.append({"step": 3, "other": 1.0})
    found = {f.name: f.svg for f in figures(read_run(make_run(tmp_path / "run", metrics=lines)))}
    assert "missing, step 1: 0.500" in found["facts"]
    assert "missing, step 2: 0.000" in found["facts"]
    assert "missing, step 3" not in found["facts"]


def test_several_runs_share_a_figure_over_all_their_steps(tmp_path):
    runs = [read_run(full_run(tmp_path / "long")), read_run(make_run(tmp_path / "short", metrics=steps(12)))]
    both = {f.name: f.svg for f in side_by_side(runs)}
    assert set(both) == {"runs-0", "runs-training"}
    assert "short:" in both["runs-training"]
    assert "long: 0.50, 0.70, 0.81" in both["runs-0"]


def test_runs_in_different_settings_have_separate_figures(tmp_path):
    runs = [read_run(make_run(tmp_path / p, demo_summary(preset=p), preset=p)) for p in ("easy", "hard")]
    titles = [re.search(r"<title id=[^>]*>([^<]*)", figure.svg)[1] for figure in side_by_side(runs)]
    assert titles == [f"frozen-lake-v1 {preset} after training, 40 packs of dev" for preset in ("easy", "hard")]


def test_png_files_have_text_and_missing_fonts_are_a_one_line_error(tmp_path, monkeypatch):
    figure = figures(read_run(full_run(tmp_path / "run")))[0]
    _, png = write_figures(tmp_path / "figures", [figure])
    without_text = re.sub(r"<text.*?</text>", "", figure.svg)
    assert png.read_bytes() != bytes(resvg_py.svg_to_bytes(svg_string=without_text, zoom=2))
    without_fonts = partial(resvg_py.svg_to_bytes, skip_system_fonts=True)
    monkeypatch.setattr(resvg_py, "svg_to_bytes", without_fonts)
    with pytest.raises(ValueError, match="need a font"):
        write_figures(tmp_path / "none", [figure])
    assert not (tmp_path / "none").exists()


def test_figures_are_written_as_svg_and_png(tmp_path):
    folder = full_run(tmp_path / "run")
    page, *written = write_report([folder], folder / "report.html", with_figures=True)
    assert page == folder / "report.html"
    assert sorted(p.name for p in (folder / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in ALL for kind in ("svg", "png")
    )
    for path in written:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            with Image.open(path) as image:
                assert image.size == (1040, 740)
                assert len(image.convert("RGB").getcolors(1_000_000)) > 20  # lines and text, not a blank image


def test_a_missing_extra_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ValueError, match=r"codots\[figures\]"):
        write_figures(tmp_path / "figures", figures(read_run(full_run(tmp_path / "run"))))
    assert not (tmp_path / "figures").exists()
