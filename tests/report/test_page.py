"""Tests of the report page: numbers, claims, tables, and escaping of model output."""

import base64
import gzip
import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser

import pytest

from codots.report.page import build, hashed, headline, number, safe_json, section, signed, span, write_report
from codots.report.run import read_run
from tests.report.runs import INJECTION, arm, demo_summary, full_run, life, make_run, mixed_run, report, steps


class Reader(HTMLParser):
    """Collects the elements, links and visible text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.loads, self.within = [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href") or name.startswith("on")]
        self.within = tag

    def handle_endtag(self, tag):
        self.within = None

    def handle_data(self, data):
        if self.within not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


def write(tmp_path, summary=None, rows=(), metrics=(), **more):
    folder = make_run(tmp_path / "run", summary, rows, metrics, **more)
    write_report([folder], folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_headline_has_before_after_and_the_bound_without_a_context(tmp_path):
    text = Reader(write(tmp_path, demo_summary(), life(0, [0, 1, 1]), steps(3))).text
    assert "reward went from 0.35 before training to 0.81 after it." in text
    assert "Without a context, no policy can expect more than 0.62." in text


def test_an_evaluation_in_another_setting_names_it(tmp_path):
    folder = make_run(tmp_path / "run")
    hard = report([0.1] * 8, [0.1] * 8, model=f"{folder}/model", preset="hard", n_packs=10)
    (folder / "hard.json").write_text(json.dumps(hard))
    write_report([folder], folder / "report.html")
    text = Reader((folder / "report.html").read_text(encoding="utf-8")).text
    assert "measured on frozen-lake-v1 hard, 10 packs of dev, 8 tasks each" in text
    assert "Reward by position: hard 8 tasks" in text


def test_the_headline_uses_training_lives_without_evaluations(tmp_path):
    text = Reader(write(tmp_path, metrics=steps(30))).text
    assert "reward went from 0.32 in the first steps of training to 0.62 in the last." in text
    assert "Only an evaluation with control arms shows" in text
    assert "What this shows" not in text


def test_the_headline_of_several_worlds_is_the_mean_over_entries(tmp_path):
    [page] = write_report([mixed_run(tmp_path / "run")], tmp_path / "report.html")
    text = Reader(page.read_text(encoding="utf-8")).text
    assert "frozen-lake-v1 easy, frozen-lake-v1 hard" in text
    assert "reward went from 0.20 in the first steps of training to 0.65 in the last." in text  # .2 and .1; .7 and .6
    assert "can expect more" not in text


def test_several_worlds_are_panels_on_one_axis_in_place_of_the_figure_of_the_first(tmp_path):
    mixed = section(read_run(mixed_run(tmp_path / "run")))
    assert [panel.name for panel in mixed.worlds.panels] == ["frozen-lake-v1:easy", "frozen-lake-v1:hard"]
    assert "training" not in [figure.caption for figure in mixed.main_figures]
    assert "training" in [figure.caption for figure in mixed.more_figures]
    html = build([mixed])
    assert html.count("Reward while training, by world</h2>") == 1
    one = section(read_run(make_run(tmp_path / "one", metrics=steps(3))))
    assert one.worlds is None
    assert "training" in [figure.caption for figure in one.main_figures]


def test_a_run_without_steps_has_a_page(tmp_path):
    text = Reader(write(tmp_path)).text
    assert "No rewards yet." in text


def test_a_missing_domain_has_no_references(tmp_path):
    text = Reader(write(tmp_path, metrics=steps(3), domain="elsewhere-v1")).text
    assert "can expect more" not in text
    assert "reward went from" in text


def test_the_page_is_self_contained_and_restricts_scripts(tmp_path):
    html = write(tmp_path, demo_summary(), life(0, [0, 1, 1]), steps(3))
    page = Reader(html)
    assert set(page.loads) == {"#lives"}
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    [style], [script] = (
        re.findall(r"<style>(.*?)</style>", html, re.S),
        re.findall(r'e="module">(.*?)</script>', html, re.S),
    )
    assert {hashed(style), hashed(script)} == set(re.findall(r"sha256-[\w+/=]+", policy))


def test_model_output_never_becomes_markup(tmp_path):
    rows = life(0, [0, 1, 1], contexts=("", INJECTION, "2=left"), text="<script>x</script>")
    html = write(tmp_path, demo_summary(), rows)
    assert INJECTION not in html
    assert "<b>bold" not in html
    [piece] = re.findall(r'id="piece-0-0">(.*?)</script>', html)
    [story] = json.loads(gzip.decompress(base64.b64decode(piece)))
    assert story["tasks"][1]["context"] == INJECTION
    assert story["tasks"][0]["moves"][0]["said"] == "<script>x</script>"


def test_names_in_the_script_are_escaped(tmp_path):
    rows = life(0, [0, 1, 1], arm="</script><b>arm</b>", stop="<!--<script>")
    folder = make_run(tmp_path / "a&<b>", None, rows)
    write_report([folder], folder / "report.html")
    html = (folder / "report.html").read_text()
    assert "<b>arm" not in html
    assert "a&<b>" not in html
    [data] = re.findall(r'id="index">(.*?)</script>', html)
    assert json.loads(data)["runs"][0]["arm"] == ["</script><b>arm</b>"]


def test_json_in_a_script_has_no_html_characters():
    text = safe_json({"a": "</script> & \u2028 \ud800"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script> & \u2028 ?"}


def test_the_page_claims_only_what_the_data_support(tmp_path):
    supported = Reader(write(tmp_path, demo_summary())).text
    assert "above that bound, beyond the noise" in supported
    assert "It shows that reinforcement learning" in supported
    flat = Reader(write(tmp_path, demo_summary(after=(0.3, 0.31, 0.36), null=(0.3, 0.31, 0.36)))).text
    assert "not significantly above that bound" in flat
    assert "It does not show an effect" in flat
    assert "It shows that" not in flat
    unlifted = Reader(write(tmp_path, demo_summary(null=(0.5, 0.7, 0.8)))).text
    assert "It does not show an effect" in unlifted
    for text in (supported, flat, unlifted):
        assert "It does not show that the skill can emerge from scratch, nor that a large language model" in text


def test_statements_about_the_shipped_base_model_are_only_for_that_model(tmp_path):
    text = Reader(write(tmp_path, demo_summary(), model="mine")).text
    assert "We made that base model" not in text
    assert "large language model" not in text
    assert "It shows that training raised the reward" in text


def test_a_report_without_lift_and_share_has_no_claims_about_them(tmp_path):
    summary = demo_summary(lift=None, lift_ci95=None, share=None, share_ci95=None)
    head = headline(read_run(make_run(tmp_path / "run", summary)))
    assert (head.needs_contexts, head.worked) == (False, False)
    assert "lift, after" not in Reader(write(tmp_path, summary)).text


def test_the_table_has_every_arm_with_its_interval(tmp_path):
    summary = demo_summary()
    summary["after"]["arms"]["oracle"] = asdict(arm([0.94, 0.95, 0.0], missing=3, right=None, wrong=None)) | {
        "reward": [0.94, 0.95, None],
        "ci95": [[0.9, 0.96], [0.9, 0.96], [None, None]],
    }
    text = Reader(write(tmp_path, summary)).text
    for name in ("own, before", "null, before", "own, after", "null, after", "oracle, after", "bayes", "ceiling"):
        assert name in text
    assert "0.81 [0.78, 0.84]" in text.replace("0.81[", "0.81 [")
    assert "nan" not in text
    assert "None" not in text


def test_the_page_states_the_temperature_of_every_evaluation(tmp_path):
    texts = []
    for i, temperature in enumerate((1.0, 0.7)):
        summary = demo_summary()
        summary["after"]["temperature"] = temperature
        folder = make_run(tmp_path / f"run-{i}", summary)
        write_report([folder], folder / "report.html")
        texts.append(Reader((folder / "report.html").read_text()).text)
    assert "All arms are sampled at temperature 1.0." in texts[0]
    assert "Sampling temperatures: 1.0 (before), 0.7 (after)." in texts[1]


def test_the_table_of_writers_and_readers(tmp_path):
    folder = full_run(tmp_path / "run")
    write_report([folder], folder / "report.html")
    text = Reader((folder / "report.html").read_text()).text
    assert "Reward by writer and reader" in text
    table = text.partition("written by")[2]
    assert table.startswith(
        "read by baseread by trained base0.35 [0.32, 0.38]\u2013trained0.60 [0.57, 0.63]0.81 [0.78, 0.84]"
    )


def test_an_evaluation_alone_is_reported(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "eval.json").write_text(json.dumps(report([0.5, 0.7, 0.8], [0.5, 0.5, 0.5], model=str(folder))))
    write_report([folder], folder / "report.html")
    text = Reader((folder / "report.html").read_text()).text
    assert "the trained model reached a reward of 0.80." in text
    assert "nothing was measured before training" in text


def test_several_runs_share_a_page(tmp_path):
    folders = [full_run(tmp_path / "first"), make_run(tmp_path / "second", metrics=steps(12))]
    write_report(folders, tmp_path / "both.html")
    page = Reader((tmp_path / "both.html").read_text())
    assert "Runs side by side" in page.text
    assert page.tags.count("article") == 3  # one per run, and one for the life
    assert "first" in page.text
    assert "second" in page.text


def test_packs_of_one_task_are_reported(tmp_path):
    rows = life(0, [1], contexts=("",))
    html = write(tmp_path, demo_summary((0.3,), (0.8,), (0.5,)), rows, [{"step": 1, "reward/0": 0.5}], pack_size=1)
    assert "On the only task in a world" in html


def test_runs_of_the_same_name_have_separate_figure_folders(tmp_path):
    folders = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        folders.append(make_run(tmp_path / place / "run", metrics=steps(3)))
    written = write_report(folders, tmp_path / "both.html", with_figures=True)
    assert len(set(written)) == len(written) > 20
    assert {path.parent.name for path in written[1:]} == {"figures", "run", "run-2"}


@pytest.mark.parametrize("wrong", [{"own": 3}, {"own": {"reward": "high"}}, []])
def test_an_invalid_evaluation_is_a_one_line_error(tmp_path, wrong):
    folder = make_run(tmp_path / "run")
    (folder / "eval.json").write_text(
        json.dumps(report([0.1] * 3, [0.1] * 3, model=f"{folder}/model") | {"arms": wrong})
    )
    with pytest.raises(ValueError, match=r"eval\.json is not an evaluation: ") as error:
        write_report([folder], folder / "report.html")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("out", ["nowhere/report.html"])
def test_a_page_in_a_missing_folder_is_refused(tmp_path, out):
    folder = make_run(tmp_path / "run", metrics=steps(3))
    with pytest.raises(ValueError, match="there is no folder"):
        write_report([folder], tmp_path / out)


def test_number_formats():
    assert [number(0.256), number(-0.5), number(None), number(math.nan)] == ["0.26", "\u22120.50", "\u2013", "\u2013"]
    assert [signed(0.2), signed(-0.2), signed(None)] == ["+0.20", "\u22120.20", "\u2013"]
    assert [span(12.34), span(400)] == ["12 s", "6.7 min"]
