"""Tests of recorded rollouts: rows, their JSONL files, and cut-off or invalid lines."""

import json
from dataclasses import replace

import pytest

from codots.context.rewrite import Turn
from codots.core.transcript import Sampled, StopReason, Transcript
from codots.domains.registry import make_pack
from codots.rollout.life import Life
from codots.rollout.records import Row, contexts, dump, life_rows, load_rollouts, missing_row, names_of, read_rows
from codots.rollout.steps import Episode


@pytest.fixture
def pack():
    return make_pack("frozen-lake-v1", "tiny", "dev", 3, 2)


def episode(kind, position, reward, tokens, *, context="", written=None):
    transcript = Transcript()
    transcript.read([1, 2, 3])
    transcript.wrote(Sampled([4] * tokens, [-0.5] * tokens, StopReason.STOP, [0] * tokens))
    turns = (Turn("a1\nb2", "go \u2028 1"), Turn("é \ud7ff", ""))
    return Episode(kind, position, reward, context, written, "goal", turns, "the end", transcript)


@pytest.fixture
def life():
    return Life(
        ("a", 1),
        (
            episode("solve", 0, 0.5, 7),
            episode("update", 0, -0.1, 3, written="note"),
            episode("solve", 1, 1.0, 2, context="note"),
        ),
    )


def test_every_episode_is_one_row(pack, life):
    rows = life_rows(
        pack, life, arm="own", index=4, step=9, credit=lambda kind, j: {"solve": 1, "update": -1}[kind] * (j + 2)
    )
    assert [(row.kind, row.position, row.reward, row.tokens, row.advantage) for row in rows] == [
        ("solve", 0, 0.5, 7, 2.0),
        ("update", 0, -0.1, 3, -2.0),
        ("solve", 1, 1.0, 2, 3.0),
    ]
    assert {(row.arm, row.life, row.step, row.outcome, row.stop) for row in rows} == {("own", 4, 9, "the end", "goal")}
    assert [(row.context, row.written) for row in rows] == [("", None), ("", "note"), ("note", None)]
    assert rows[0].turns == [["a1\nb2", "go \u2028 1"], ["é \ud7ff", ""]]
    assert names_of(rows[0]) == pack.names == ("frozen-lake-v1", "tiny", "dev", 3)


def test_a_missing_life_has_no_episode_rows(pack):
    assert life_rows(pack, Life(("a",), (), "the endpoint is gone")) == []


def test_a_missing_life_is_one_row_with_its_error(pack, tmp_path):
    row = missing_row(pack, Life(("a",), (), "the endpoint is gone"), arm="null")
    path = tmp_path / "rows.jsonl"
    path.write_text(dump([row]))
    assert load_rollouts(path) == [row]
    assert (row.arm, row.kind, row.outcome, row.tokens) == ("null", "missing", "the endpoint is gone", 0)
    assert contexts([row]) == ()


def test_a_cut_off_last_line_is_ignored(pack, life, tmp_path):
    """The cut may even split a character."""
    rows, path = life_rows(pack, life), tmp_path / "rows.jsonl"
    whole = dump(rows).encode()
    last = whole[:-1].rindex(b"\n") + 1
    for cut in range(last, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert load_rollouts(path) == rows[:2]
    path.write_bytes(whole[:-1])
    assert load_rollouts(path) == rows


def test_rows_survive_a_round_trip(pack, life, tmp_path):
    rows = life_rows(pack, life)
    path = tmp_path / "rows.jsonl"
    path.write_text(dump(rows), encoding="utf-8")
    assert path.read_bytes().count(b"\n") == len(rows)
    assert [json.loads(line)["kind"] for line in path.read_bytes().split(b"\n")[:-1]] == ["solve", "update", "solve"]
    assert list(read_rows(path)) == load_rollouts(path) == rows


def test_load_rollouts_reads_a_run_its_rollouts_folder_or_one_file(pack, life, tmp_path):
    rollouts = tmp_path / "run" / "rollouts"
    rollouts.mkdir(parents=True)
    for step in (10, 1, 2):
        (rollouts / f"step-{step:06d}.jsonl").write_text(dump(life_rows(pack, life, step=step)), encoding="utf-8")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    whole = load_rollouts(tmp_path / "run")
    assert [row.step for row in whole] == [1] * 3 + [2] * 3 + [10] * 3
    assert load_rollouts(str(rollouts)) == whole
    assert load_rollouts(rollouts / "step-000002.jsonl") == whole[3:6]


def test_unknown_fields_of_a_row_are_ignored(pack, life, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(dump(life_rows(pack, life)).replace('"arm"', '"mood": "good", "arm"'), encoding="utf-8")
    assert load_rollouts(path) == life_rows(pack, life)


@pytest.mark.parametrize("line", ["{", "3", "[]", "null", '{"arm": "own"}', "\x00", ""])
def test_the_error_names_an_invalid_line(pack, life, tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(dump(life_rows(pack, life)[:2]) + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 3: not a row of a rollout") as error:
        load_rollouts(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_no_rollouts_is_a_one_line_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"no rollouts at .*{name}; expected a run folder or a .jsonl file"):
        load_rollouts(tmp_path / name)


def test_the_json_of_a_row_has_all_its_fields(pack, life):
    row = life_rows(pack, life)[0]
    assert replace(row, reward=0.0) != row
    assert set(json.loads(dump([row]))) == set(Row.__dataclass_fields__)
