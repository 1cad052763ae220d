"""Exported rows equal the tasks, with hidden parts in columns of their own."""

import json
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

from codots.domains.export import as_json, check_out, plain, task_rows, write_rows
from codots.domains.registry import domain_ids, first_preset, get_domain, make_pack


@pytest.mark.parametrize("id", domain_ids())
def test_a_row_equals_the_task_of_its_name(id):
    domain, preset = get_domain(id), first_preset(id)
    for style in domain.styles:
        rows = list(task_rows(id, preset=preset, split="dev", packs=2, size=2, style=style))
        names = [(row["domain"], row["preset"], row["split"], row["index"], row["position"]) for row in rows]
        assert names == [(id, preset, "dev", index, position) for index in (0, 1) for position in (0, 1)]
        for row in rows:
            pack = make_pack(id, preset, "dev", row["index"], 2)
            task = pack.tasks[row["position"]]
            env = task.env(style=style, memory=domain.make_memory(pack.world))
            assert (row["opening"], row["rules"]) == (env.observe(), domain.rules_text(task, style))
            assert (row["floor"], row["ceiling"]) == (domain.floor(task), domain.ceiling(task))
            assert row["oracle_context"] == domain.oracle_context(pack.world, style)
            assert json.loads(row["hidden"]) == plain(pack.world.hidden)
            assert json.loads(row["content"]) == plain(task.content)


def test_the_hidden_part_is_exported_in_full():
    row = next(task_rows("frozen-lake-v1", preset="tiny", packs=1))
    world = make_pack("frozen-lake-v1", "tiny", "train", 0, 1).world
    assert json.loads(row["hidden"]) == list(world.hidden)
    recipes = json.loads(next(task_rows("alchemy-v1", preset="tiny", packs=1))["hidden"])["recipes"]
    book = make_pack("alchemy-v1", "tiny", "train", 0, 1).world.hidden
    assert len(recipes) == len(book.recipes) > 0


def test_parquet_and_json_lines_have_equal_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = list(task_rows("terminal-v1", preset="tiny", packs=2, size=2))
    for name in ("rows.parquet", "rows.jsonl"):
        write_rows(rows, tmp_path / name)
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == rows
    assert list(map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())) == rows


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"rows\.jsonl could not be written: No space left"):
        write_rows([{"a": 1}], tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_folder_is_refused_as_output(tmp_path):
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(ValueError, match="it is a folder"):
        check_out(tmp_path / "x.jsonl")


class Pair(NamedTuple):
    one: int
    two: float


@dataclass(frozen=True)
class Record:
    inner: object


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Record({"a": (1, None, True)}), '{"inner": {"a": [1, null, true]}}'),
        (Pair(1, 2.5), '{"one": 1, "two": 2.5}'),
        ({(0, 1): "up", (0, 2): "é"}, '[[[0, 1], "up"], [[0, 2], "é"]]'),
        (frozenset({3, 1, 2}), "[1, 2, 3]"),
        (frozenset({(1, "b"), (1, "a")}), '[[1, "a"], [1, "b"]]'),
        (np.array([[1, 2]]), "[[1, 2]]"),
        (np.float64(0.5), "0.5"),
        (bytes([7, 255]), "[7, 255]"),
        (float("inf"), '"inf"'),
        (Pair, f'"{Pair}"'),
    ],
)
def test_hidden_parts_of_any_type_are_encoded(value, text):
    assert as_json(value) == text
