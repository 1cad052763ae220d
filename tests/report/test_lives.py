"""Lives are shown as they were lived, drawn only where the drawing is true, and flagged for what they are."""

import base64
import gzip
import json
from dataclasses import replace

import pytest

from codots.domains.registry import get_domain, make_pack
from codots.report.lives import FAILED, GONE, HURT, MALFORMED, TOGETHER, chosen, flags, index, packed, read_lives, story
from codots.rollout.life import Life
from codots.rollout.records import dump, missing_row
from tests.report.made import EVIL, life


def shelf(tmp_path, *lives, **how):
    path = tmp_path / "after.jsonl"
    path.write_text(dump(row for rows in lives for row in rows), encoding="utf-8")
    return read_lives([("after", path)], **how)


def test_a_life_is_drawn_as_it_was_lived():
    told = story(life(0, [0, 1, 1]))
    pack = make_pack("frozen-lake-v1", "easy", "dev", 0, 3)
    lost, won, _ = told.tasks
    assert [move.said for move in lost.moves] == ["right"]
    assert lost.stop == "malformed"
    assert won.moves[0].board == pack.domain.draw(pack.tasks[1].env(style="compact").view)
    assert won.moves[-1].answer.endswith("goal")
    assert "G" not in won.last
    assert told.hidden == pack.domain.oracle_context(pack.world, "compact")
    assert [task.context for task in told.tasks] == ["", "1=up", "1=up 2=left"]
    assert won.facts == pack.domain.facts(pack.world, "1=up")


def test_the_style_of_a_life_is_found_in_its_first_words():
    assert story(life(0, [1, 1, 1], style="natural")).style == "natural"
    assert story(life(0, [1, 1, 1])).style == "compact"


def test_what_cannot_be_replayed_is_shown_as_it_was_read_never_drawn_wrong():
    rows = life(0, [0, 1, 1])
    rows[2] = replace(rows[2], turns=[["another board", "up 1"], *rows[2].turns[1:]])
    task = story(rows).tasks[1]
    assert (task.moves[0].board, task.moves[0].seen, task.last) == (None, "another board", None)


def test_a_life_of_a_domain_that_is_not_here_is_still_read():
    rows = [replace(row, pack=["elsewhere-v1", "easy", "dev", 0]) for row in life(0, [0, 1, 1])]
    told = story(rows)
    assert (told.hidden, told.tasks[1].facts, told.tasks[1].moves[0].board) == ("", None, None)
    assert told.tasks[1].moves[0].seen == rows[2].turns[0][0]


def test_a_domain_that_waits_for_the_world_is_not_played_again(monkeypatch):
    monkeypatch.setattr(get_domain("frozen-lake-v1"), "blocking", True, raising=False)
    assert all(move.board is None for task in story(life(0, [0, 1, 1])).tasks for move in task.moves)


def test_rewrite_and_advantage_are_kept():
    rows = life(0, [0, 1, 1], advantage=0.5)
    rows[1] = replace(rows[1], stop="malformed", outcome="expected exactly one <context>")
    task = story(rows).tasks[0]
    assert task.advantage == task.rewrite.advantage == 0.5
    assert (task.rewrite.stop, task.rewrite.why) == ("malformed", "expected exactly one <context>")
    assert story(rows).tasks[-1].rewrite is None


@pytest.mark.parametrize(
    ("rows", "null", "expected"),
    [
        (life(0, [1, 1, 1]), [1.0, 0.0, 0.0], HURT),
        (life(0, [1, 1, 1]), [0.0, 0.0, 0.0], 0),
        (life(0, [1, 1, 1]), None, 0),
        (life(0, [1, 1, 1], arm="null"), [1.0, 1.0, 1.0], 0),
        (life(0, [1, 0, 1]), None, FAILED | MALFORMED),
        (life(0, [1, 0, 1], stop="hole"), None, FAILED),
        ([missing_row(make_pack("frozen-lake-v1", "easy", "dev", 0, 3), Life((), (), "gone"), arm="own")], None, GONE),
    ],
)
def test_lives_are_flagged_for_what_they_are(rows, null, expected):
    assert flags(rows, null) == expected


def test_a_context_hurts_where_the_same_pack_did_better_without(tmp_path):
    found = shelf(tmp_path, life(0, [0, 0, 1]), life(1, [0, 0, 1]), life(0, [0, 1, 1], arm="null")).lives
    assert [bool(one.flags & HURT) for one in found] == [True, False, False]


def test_the_first_life_that_got_better_is_chosen_and_its_choice_is_told(tmp_path):
    lives = life(0, [1, 1, 0]), life(1, [0, 1, 1], arm="null"), life(2, [0, 0, 1]), life(3, [0, 1, 1])
    first, why = chosen(shelf(tmp_path, *lives).lives)
    assert first == 2
    assert "of 3 lives 2 got better, 1 worse, 0 neither" in why
    assert "none got better" in chosen(shelf(tmp_path, life(0, [1, 1, 0])).lives)[1]
    assert chosen([]) == (-1, "")


def test_a_life_that_is_missing_says_why(tmp_path):
    gone = missing_row(make_pack("frozen-lake-v1", "easy", "dev", 0, 3), Life((), (), "no answer"), arm="own")
    found = shelf(tmp_path, [gone], life(1, [0, 1, 1])).lives
    assert [one.story.gone for one in found] == ["no answer", ""]
    assert chosen(found)[0] == 1


def test_more_than_a_page_holds_is_thinned_by_whole_packs(tmp_path):
    lives = [life(i, [1, 1, 1], arm=arm) for i in range(6) for arm in ("own", "null")]
    found = shelf(tmp_path, *lives, most=20)
    assert found.shown == 3
    assert [(one.pack[-1], one.arm) for one in found.lives] == [
        ("0", "own"),
        ("0", "null"),
        ("3", "own"),
        ("3", "null"),
    ]


def test_the_index_and_the_pieces_hold_the_same_lives(tmp_path):
    found = shelf(tmp_path, *(life(i, [0, 1, 1], said=EVIL) for i in range(TOGETHER + 1))).lives
    listed, pieces = index(found), packed(found)
    assert [len(json.loads(gzip.decompress(base64.b64decode(piece)))) for piece in pieces] == [TOGETHER, 1]
    where, arm, pack, number, flag, *rewards = listed["lives"][3]
    assert (listed["where"][where], listed["arm"][arm], listed["pack"][pack]) == (
        "after",
        "own",
        "frozen-lake-v1 easy dev 3",
    )
    assert (number, flag) == (0, FAILED | MALFORMED)
    assert rewards == [round(r, 4) for r in found[3].rewards]
    last = json.loads(gzip.decompress(base64.b64decode(pieces[1])))[0]
    assert last["tasks"][0]["moves"][0]["said"] == EVIL
