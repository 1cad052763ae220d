"""The page says the numbers, claims no more than they hold, and shows a model's words as words."""

import base64
import gzip
import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser

import pytest

from codots.report.page import hashed, headline, number, safe_json, signed, span, write_report
from codots.report.run import read_run
from tests.report.made import EVIL, arm, full_run, life, make_run, mixed_run, report, steps, summary


class Reader(HTMLParser):
    """What a browser would see: the elements, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.seen, self.loads, self.within = [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href") or name.startswith("on")]
        self.within = tag

    def handle_endtag(self, tag):
        self.within = None

    def handle_data(self, data):
        if self.within not in ("script", "style"):
            self.seen.append(data)

    @property
    def text(self):
        return " ".join("".join(self.seen).split())


def write(tmp_path, told=None, rows=(), metrics=(), **more):
    folder = make_run(tmp_path / "run", told, rows, metrics, **more)
    write_report([folder], folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_first_sentence_says_before_after_and_what_nobody_can_beat(tmp_path):
    text = Reader(write(tmp_path, summary(), life(0, [0, 1, 1]), steps(3))).text
    assert "reward went from 0.35 before training to 0.81 after it." in text
    assert "Without a context nobody can expect more than 0.62." in text


def test_what_was_measured_elsewhere_says_where(tmp_path):
    folder = make_run(tmp_path / "run")
    hard = report([0.1] * 8, [0.1] * 8, model=f"{folder}/model", preset="hard", n_packs=10)
    (folder / "hard.json").write_text(json.dumps(hard))
    write_report([folder], folder / "report.html")
    text = Reader((folder / "report.html").read_text(encoding="utf-8")).text
    assert "measured on frozen-lake-v1 hard, 10 packs of dev, 8 tasks each" in text
    assert "Reward by position: hard 8 tasks" in text


def test_a_run_without_evaluations_is_judged_by_its_training_and_says_so(tmp_path):
    text = Reader(write(tmp_path, metrics=steps(30))).text
    assert "reward went from 0.32 in the first steps of training to 0.62 in the last." in text
    assert "only an evaluation with its controls tells" in text
    assert "What this shows" not in text


def test_a_run_over_several_worlds_is_judged_by_the_mean_of_its_entries(tmp_path):
    [page] = write_report([mixed_run(tmp_path / "run")], tmp_path / "report.html")
    text = Reader(page.read_text(encoding="utf-8")).text
    assert "frozen-lake-v1 easy, frozen-lake-v1 hard" in text
    assert "reward went from 0.20 in the first steps of training to 0.65 in the last." in text  # .2 and .1; .7 and .6
    assert "nobody can expect more" not in text


def test_a_run_without_any_step_has_a_page(tmp_path):
    text = Reader(write(tmp_path)).text
    assert "No reward was measured yet." in text


def test_a_domain_that_is_not_here_leaves_its_references_out(tmp_path):
    text = Reader(write(tmp_path, metrics=steps(3), domain="elsewhere-v1")).text
    assert "nobody can expect more" not in text
    assert "reward went from" in text


def test_the_page_needs_nothing_else_and_lets_nothing_else_run(tmp_path):
    html = write(tmp_path, summary(), life(0, [0, 1, 1]), steps(3))
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


def test_a_models_words_never_become_markup(tmp_path):
    rows = life(0, [0, 1, 1], contexts=("", EVIL, "2=left"), said="<script>x</script>")
    html = write(tmp_path, summary(), rows)
    assert EVIL not in html
    assert "<b>bold" not in html
    [piece] = re.findall(r'id="piece-0-0">(.*?)</script>', html)
    [story] = json.loads(gzip.decompress(base64.b64decode(piece)))
    assert story["tasks"][1]["context"] == EVIL
    assert story["tasks"][0]["moves"][0]["said"] == "<script>x</script>"


def test_names_that_would_end_a_script_stay_names(tmp_path):
    rows = life(0, [0, 1, 1], arm="</script><b>arm</b>", stop="<!--<script>")
    folder = make_run(tmp_path / "a&<b>", None, rows)
    write_report([folder], folder / "report.html")
    html = (folder / "report.html").read_text()
    assert "<b>arm" not in html
    assert "a&<b>" not in html
    [data] = re.findall(r'id="index">(.*?)</script>', html)
    assert json.loads(data)["runs"][0]["arm"] == ["</script><b>arm</b>"]


def test_json_in_a_script_holds_no_letter_that_html_knows():
    text = safe_json({"a": "</script> & \u2028 \ud800"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script> & \u2028 ?"}


def test_what_the_data_do_not_hold_is_not_claimed(tmp_path):
    sure = Reader(write(tmp_path, summary())).text
    assert "above that bound, beyond the noise" in sure
    assert "It shows that reinforcement learning" in sure
    flat = Reader(write(tmp_path, summary(after=(0.3, 0.31, 0.36), null=(0.3, 0.31, 0.36)))).text
    assert "not surely above that bound" in flat
    assert "It does not show what it set out to show" in flat
    assert "It shows that" not in flat
    unlifted = Reader(write(tmp_path, summary(null=(0.5, 0.7, 0.8)))).text
    assert "It does not show what it set out to show" in unlifted
    for text in (sure, flat, unlifted):
        assert "It does not show that the skill can come from nothing, nor that a large language model" in text


def test_what_is_said_of_the_shipped_base_is_said_of_no_other(tmp_path):
    text = Reader(write(tmp_path, summary(), model="mine")).text
    assert "We made that base" not in text
    assert "large language model" not in text
    assert "It shows that training raised the reward" in text


def test_a_report_without_lift_and_share_claims_nothing_of_them(tmp_path):
    told = summary(lift=None, lift_ci95=None, share=None, share_ci95=None)
    head = headline(read_run(make_run(tmp_path / "run", told)))
    assert (head.needs_contexts, head.worked) == (False, False)
    assert "lift, after" not in Reader(write(tmp_path, told)).text


def test_every_arm_stands_in_the_table_with_its_interval(tmp_path):
    told = summary()
    told["after"]["arms"]["oracle"] = asdict(arm([0.94, 0.95, 0.0], missing=3, right=None, wrong=None)) | {
        "reward": [0.94, 0.95, None],
        "ci95": [[0.9, 0.96], [0.9, 0.96], [None, None]],
    }
    text = Reader(write(tmp_path, told)).text
    for name in ("own, before", "null, before", "own, after", "null, after", "oracle, after", "bayes", "ceiling"):
        assert name in text
    assert "0.81 [0.78, 0.84]" in text.replace("0.81[", "0.81 [")
    assert "nan" not in text
    assert "None" not in text


def test_writers_and_readers_stand_crosswise(tmp_path):
    folder = full_run(tmp_path / "run")
    write_report([folder], folder / "report.html")
    text = Reader((folder / "report.html").read_text()).text
    assert "Who wrote, who read" in text
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
    assert page.tags.count("article") == 3  # one a run, and the life
    assert "first" in page.text
    assert "second" in page.text


def test_packs_of_one_task_are_reported(tmp_path):
    rows = life(0, [1], contexts=("",))
    html = write(tmp_path, summary((0.3,), (0.8,), (0.5,)), rows, [{"step": 1, "reward/0": 0.5}], pack_size=1)
    assert "On the only task in a world" in html


def test_runs_of_one_name_keep_their_figures_apart(tmp_path):
    folders = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        folders.append(make_run(tmp_path / place / "run", metrics=steps(3)))
    written = write_report(folders, tmp_path / "both.html", with_figures=True)
    assert len(set(written)) == len(written) > 20
    assert {path.parent.name for path in written[1:]} == {"figures", "run", "run-2"}


@pytest.mark.parametrize("wrong", [{"own": 3}, {"own": {"reward": "high"}}, []])
def test_numbers_that_are_none_are_one_line(tmp_path, wrong):
    folder = make_run(tmp_path / "run")
    (folder / "eval.json").write_text(
        json.dumps(report([0.1] * 3, [0.1] * 3, model=f"{folder}/model") | {"arms": wrong})
    )
    with pytest.raises(ValueError, match=r"eval\.json is no evaluation's: ") as error:
        write_report([folder], folder / "report.html")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("out", ["nowhere/report.html"])
def test_a_page_that_has_no_folder_is_refused(tmp_path, out):
    folder = make_run(tmp_path / "run", metrics=steps(3))
    with pytest.raises(ValueError, match="there is no folder"):
        write_report([folder], tmp_path / out)


def test_numbers_are_written_as_people_read_them():
    assert [number(0.256), number(-0.5), number(None), number(math.nan)] == ["0.26", "\u22120.50", "\u2013", "\u2013"]
    assert [signed(0.2), signed(-0.2), signed(None)] == ["+0.20", "\u22120.20", "\u2013"]
    assert [span(12.34), span(400)] == ["12 s", "6.7 min"]
