"""The page says the numbers, claims no more than they hold, and shows a model's words as words."""

import json
import math
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest

from codots.domain import make_pack
from codots.evaluate import ArmReport, Report
from codots.records import Row, dump, missing_row
from codots.report.page import changes, headline, number, read_story, signed, span, write_report
from codots.rollout import Life

EVIL = "1=up </script><b>bold</b> <!-- & ]]> {{ 7 * 7 }} \u202egnol"


def arm(reward, half=0.03, **changed):
    ones = [1.0] * len(reward)
    around, sure = [[r - half, r + half] for r in reward], [[0.9, 1.0]] * len(reward)
    whole = ArmReport(reward, around, ones, sure, [0.0] * len(reward), 0.25, 0, ones, ones)
    return replace(whole, **changed)


def report(own, null, **changed):
    S = len(own)
    whole = Report(
        model="m",
        writer=None,
        domain="frozen-lake-v1",
        preset="easy",
        split="dev",
        n_packs=40,
        size=S,
        seed=0,
        temperature=1.0,
        arms={"own": arm(own), "null": arm(null)},
        floor=[0.1] * S,
        bayes=[0.62] + [0.93] * (S - 1),
        ceiling=[0.95] * S,
        lift=[a - b for a, b in zip(own, null, strict=True)],
        lift_ci95=[[a - b - 0.05, a - b + 0.05] for a, b in zip(own, null, strict=True)],
        share=[(a - 0.62) / 0.33 for a in own],
        share_ci95=[[(a - 0.62) / 0.33 - 0.1, (a - 0.62) / 0.33 + 0.1] for a in own],
        shuffled_lift=None,
        shuffled_lift_ci95=None,
        tokens=1,
    )
    return asdict(replace(whole, **changed))


def summary(before=(0.3, 0.31, 0.35), after=(0.5, 0.7, 0.81), null=(0.5, 0.5, 0.5), **changed):
    found = report(list(after), list(null), **changed)
    return {
        "preset": "easy",
        "domain": "frozen-lake-v1",
        "seed": 0,
        "steps": 2,
        "before": report(list(before), list(before)),
        "after": found,
        **{name: found[name] for name in ("floor", "bayes", "ceiling")},
        "seconds": {"evaluate before": 12.3, "train": 400.0},
        "tokens": 1234567,
    }


def life(index, won, *, contexts=("", "1=up", "1=up 2=left"), arm="own", said="right"):
    """Record a life: the tasks won are crossed, in the others the player says a word that is no code."""
    pack = make_pack("frozen-lake-v1", "easy", "dev", index, len(won))
    rows = []
    for task, wins, context in zip(pack.tasks, won, contexts, strict=False):
        env, policy = task.env(style="compact"), pack.domain.policy("informed", pack.world)
        turns, seen, done = [], env.observe(), False
        while not done:
            reply = f"{said} {policy.act(env.view)}" if wins else said
            turns.append([seen, reply])
            step = env.step(reply)
            seen, done = step.observation, step.done
        name, j = list(pack.names), task.position
        rows.append(Row(name, arm, 0, j, "solve", step.reward, step.stop, context, None, turns, seen, 3))
        if j + 1 < len(won):
            rows.append(Row(name, arm, 0, j, "update", 0.0, "ok", context, contexts[j + 1], [["", ""]], "", 3))
    return rows


def write(folder, told, rows=(), steps=()):
    (folder / "after.jsonl").write_text(dump(rows), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return write_report(folder, told).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """What a browser would see: the elements, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.seen, self.loads = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data):
        self.seen.append(data)

    @property
    def text(self):
        return " ".join("".join(self.seen).split())


STEPS = [{"step": t, "reward/0": 0.3, "reward/1": 0.4, "reward/2": math.nan, "other": 1.0} for t in (1, 2)]


def test_the_first_sentence_says_before_after_and_what_nobody_can_beat(tmp_path):
    text = Reader(write(tmp_path, summary(), life(0, [0, 1, 1]), STEPS)).text
    assert "reward went from 0.35 before training to 0.81 after it." in text
    assert "Perfect play without a context reaches 0.62; nobody can expect more." in text


def test_page_and_figure_are_written_whole_and_need_nothing_else(tmp_path):
    html = write(tmp_path, summary(), life(0, [0, 1, 1]), STEPS)
    page = Reader(html)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["after.jsonl", "curves.svg", "metrics.jsonl", "report.html"]
    assert page.loads == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "default-src 'none'" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert (tmp_path / "curves.svg").read_text() in html


def test_a_models_words_are_shown_as_words(tmp_path):
    rows = life(0, [0, 1, 1], contexts=("", EVIL, "2=left"), said="<script>x</script>")
    page = Reader(write(tmp_path, summary(), rows))
    assert "</script><b>bold</b> <!-- & ]]> {{ 7 * 7 }}" in page.text
    assert "<script>x</script>" in page.text
    assert "script" not in page.tags


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


def test_a_report_without_lift_and_share_claims_nothing_of_them(tmp_path):
    told = summary(lift=None, lift_ci95=None, share=None, share_ci95=None)
    assert not headline(told).needs_contexts
    assert not headline(told).worked
    assert "lift, after" not in Reader(write(tmp_path, told)).text


def test_every_arm_stands_in_the_table_with_its_interval(tmp_path):
    told = summary()
    told["after"]["arms"]["oracle"] = asdict(arm([0.94, 0.95, math.nan], missing=3, right=None, wrong=None))
    text = Reader(write(tmp_path, told)).text
    for name in ("own, before", "null, before", "own, after", "null, after", "oracle, after", "bayes", "ceiling"):
        assert name in text
    assert "0.81 [0.78, 0.84]" in text.replace("0.81[", "0.81 [")
    assert "nan" not in text


def test_the_first_life_that_got_better_is_chosen_and_its_choice_is_told(tmp_path):
    rows = [*life(0, [1, 1, 0]), *life(1, [0, 1, 1], arm="null"), *life(2, [0, 0, 1]), *life(3, [0, 1, 1])]
    (tmp_path / "after.jsonl").write_text(dump(rows))
    story = read_story(tmp_path / "after.jsonl")
    assert story.pack == "frozen-lake-v1 easy dev 2"
    assert "of 3 lives 2 got better, 1 worse, 0 neither" in story.chosen
    (tmp_path / "after.jsonl").write_text(dump(life(0, [1, 1, 0])))
    assert "none got better" in read_story(tmp_path / "after.jsonl").chosen


def test_a_life_that_is_missing_is_not_told(tmp_path):
    gone = missing_row(make_pack("frozen-lake-v1", "easy", "dev", 0, 3), Life((), (), "gone"), arm="own")
    (tmp_path / "after.jsonl").write_text(dump([gone]))
    assert read_story(tmp_path / "after.jsonl") is None
    (tmp_path / "after.jsonl").write_text(dump([gone, *life(1, [0, 1, 1])]))
    assert "of 1 lives 1 got better" in read_story(tmp_path / "after.jsonl").chosen


def test_a_life_is_drawn_as_it_was_lived(tmp_path):
    (tmp_path / "after.jsonl").write_text(dump(life(0, [0, 1, 1])))
    story = read_story(tmp_path / "after.jsonl")
    pack = make_pack("frozen-lake-v1", "easy", "dev", 0, 3)
    lost, won, _ = story.chapters
    assert [move.said for move in lost.moves] == ["right"]
    assert lost.stop == "malformed"
    env = pack.tasks[1].env(style="compact")
    assert won.moves[0].board == pack.domain.draw(env.view)
    assert won.moves[-1].answer.endswith("goal")
    assert "G" not in won.last_board
    assert story.hidden == pack.domain.oracle_context(pack.world, "compact")


def test_what_cannot_be_replayed_is_shown_as_it_was_read_never_drawn_wrong(tmp_path):
    rows = life(0, [0, 1, 1])
    rows[2] = replace(rows[2], turns=[["another board", "up 1"], *rows[2].turns[1:]])
    (tmp_path / "after.jsonl").write_text(dump(rows))
    chapter = read_story(tmp_path / "after.jsonl").chapters[1]
    assert chapter.moves[0].board == "another board"
    assert chapter.last_board == ""


def test_a_context_shows_what_was_added_and_what_was_dropped(tmp_path):
    html = write(tmp_path, summary(), life(0, [0, 1, 1], contexts=("", "1=up 2=left", "1=up 3=left")))
    assert "<ins>1=up 2=left</ins>" in html
    assert "<del>2=left</del><ins>3=left</ins>" in html


def test_a_rewrite_that_could_not_be_read_is_told(tmp_path):
    rows = life(0, [0, 1, 1])
    rows[1] = replace(rows[1], stop="malformed", outcome="expected exactly one <context>")
    assert (
        "The rewrite could not be read: expected exactly one <context>" in Reader(write(tmp_path, summary(), rows)).text
    )


@pytest.mark.parametrize(
    ("before", "after", "pieces"),
    [
        ("", "", []),
        ("a b", "a b", [("same", "a b")]),
        ("", "a b", [("new", "a b")]),
        ("a b", "", [("gone", "a b")]),
        ("a b c", "a d c", [("same", "a "), ("gone", "b"), ("new", "d"), ("same", " c")]),
    ],
)
def test_changes_are_told_word_by_word(before, after, pieces):
    assert changes(before, after) == pieces


def test_what_a_folder_lacks_the_page_leaves_out(tmp_path):
    page = Reader(write_report(tmp_path, summary()).read_text())
    assert "One life to read" not in page.text
    assert "Reward while training" not in page.text


def test_a_cut_off_last_line_of_metrics_does_not_count(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(STEPS[0]) + '\n{"step": 2, "rew')
    assert "Reward while training" in write_report(tmp_path, summary()).read_text()


def test_packs_of_one_task_are_reported(tmp_path):
    html = write(
        tmp_path, summary((0.3,), (0.8,), (0.5,)), life(0, [1], contexts=("",)), [{"step": 1, "reward/0": 0.5}]
    )
    assert "On the only task in a world" in html
    assert "Task 1 of 1" in html


def test_numbers_are_written_as_people_read_them():
    assert [number(0.256), number(-0.5), number(None), number(math.nan)] == ["0.26", "\u22120.50", "\u2013", "\u2013"]
    assert [signed(0.2), signed(-0.2), signed(None)] == ["+0.20", "\u22120.20", "\u2013"]
    assert [span(12.34), span(400)] == ["12 s", "6.7 min"]
