"""Tests of the prepared lives: replays and drawings, flags, index and compressed pieces."""

import base64
import gzip
import json
from dataclasses import replace

import pytest

from codots.domains.registry import get_domain, make_pack
from codots.report.lives import (
    FAILED,
    HURT,
    LOST,
    MALFORMED,
    PIECE_SIZE,
    choose_life,
    flags,
    index,
    packed,
    read_lives,
    story,
)
from codots.rollout.life import Life
from codots.rollout.records import dump, missing_row
from tests.report.runs import INJECTION, life


def life_list(tmp_path, *lives, **how):
    path = tmp_path / "after.jsonl"
    path.write_text(dump(row for rows in lives for row in rows), encoding="utf-8")
    return read_lives([("after", path)], **how)


def test_a_life_is_drawn_from_its_replay():
    shown = story(life(0, [0, 1, 1]))
    pack = make_pack("frozen-lake-v1", "easy", "dev", 0, 3)
    lost, won, _ = shown.tasks
    assert [move.said for move in lost.moves] == ["right"]
    assert lost.stop == "malformed"
    assert won.moves[0].board == pack.domain.draw(pack.tasks[1].env(style="compact").view)
    assert won.moves[-1].answer.endswith("goal")
    assert "G" not in won.last
    assert shown.hidden == pack.domain.oracle_context(pack.world, "compact")
    assert [task.context for task in shown.tasks] == ["", "1=up", "1=up 2=left"]
    assert won.facts == pack.domain.facts(pack.world, "1=up")


def test_the_style_is_found_by_the_first_observation():
    assert story(life(0, [1, 1, 1], style="natural")).style == "natural"
    assert story(life(0, [1, 1, 1])).style == "compact"


def test_a_task_that_does_not_replay_is_shown_as_text():
    rows = life(0, [0, 1, 1])
    rows[2] = replace(rows[2], turns=[["another board", "up 1"], *rows[2].turns[1:]])
    task = story(rows).tasks[1]
    assert (task.moves[0].board, task.moves[0].seen, task.last) == (None, "another board", None)


def test_a_life_of_a_missing_domain_is_shown_as_text():
    rows = [replace(row, pack=["elsewhere-v1", "easy", "dev", 0]) for row in life(0, [0, 1, 1])]
    shown = story(rows)
    assert (shown.hidden, shown.tasks[1].facts, shown.tasks[1].moves[0].board) == ("", None, None)
    assert shown.tasks[1].moves[0].seen == rows[2].turns[0][0]


def test_a_blocking_domain_is_not_replayed(monkeypatch):
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
        ([missing_row(make_pack("frozen-lake-v1", "easy", "dev", 0, 3), Life((), (), "gone"), arm="own")], None, LOST),
    ],
)
def test_flags(rows, null, expected):
    assert flags(rows, null) == expected


def test_a_context_hurts_if_the_same_pack_did_better_with_empty_contexts(tmp_path):
    found = life_list(tmp_path, life(0, [0, 0, 1]), life(1, [0, 0, 1]), life(0, [0, 1, 1], arm="null")).lives
    assert [bool(one.flags & HURT) for one in found] == [True, False, False]


def test_the_first_life_with_a_rising_reward_is_chosen(tmp_path):
    lives = life(0, [1, 1, 0]), life(1, [0, 1, 1], arm="null"), life(2, [0, 0, 1]), life(3, [0, 1, 1])
    first, why = choose_life(life_list(tmp_path, *lives).lives)
    assert first == 2
    assert "(rose in 2 of 3 lives, fell in 1, equal in 0)" in why
    assert "the reward rose in no life" in choose_life(life_list(tmp_path, life(0, [1, 1, 0])).lives)[1]
    assert choose_life([]) == (-1, "")


def test_a_missing_life_has_its_error(tmp_path):
    lost = missing_row(make_pack("frozen-lake-v1", "easy", "dev", 0, 3), Life((), (), "no answer"), arm="own")
    found = life_list(tmp_path, [lost], life(1, [0, 1, 1])).lives
    assert [one.story.gone for one in found] == ["no answer", ""]
    assert choose_life(found)[0] == 1


def test_a_large_run_is_thinned_by_whole_packs(tmp_path):
    lives = [life(i, [1, 1, 1], arm=arm) for i in range(6) for arm in ("own", "null")]
    found = life_list(tmp_path, *lives, max_episodes=20)
    assert found.every == 3
    assert [(one.pack[-1], one.arm) for one in found.lives] == [
        ("0", "own"),
        ("0", "null"),
        ("3", "own"),
        ("3", "null"),
    ]


def test_the_index_and_the_pieces_have_the_same_lives(tmp_path):
    found = life_list(tmp_path, *(life(i, [0, 1, 1], text=INJECTION) for i in range(PIECE_SIZE + 1))).lives
    listed, pieces = index(found), packed(found)
    assert [len(json.loads(gzip.decompress(base64.b64decode(piece)))) for piece in pieces] == [PIECE_SIZE, 1]
    where, arm, pack, number, flag, *rewards = listed["lives"][3]
    assert (listed["where"][where], listed["arm"][arm], listed["pack"][pack]) == (
        "after",
        "own",
        "frozen-lake-v1 easy dev 3",
    )
    assert (number, flag) == (0, FAILED | MALFORMED)
    assert rewards == [round(r, 4) for r in found[3].rewards]
    last = json.loads(gzip.decompress(base64.b64decode(pieces[1])))[0]
    assert last["tasks"][0]["moves"][0]["said"] == INJECTION
