"""A pack depends on its name alone."""

import pytest

from codots.domains.registry import make_pack


def test_a_pack_does_not_depend_on_the_packs_drawn_before():
    alone = make_pack("frozen-lake-v1", "easy", "train", 5, 3)
    for index in (0, 9, 5):
        make_pack("frozen-lake-v1", "easy", "train", index, 2)
    assert make_pack("frozen-lake-v1", "easy", "train", 5, 3) == alone


def test_a_longer_pack_begins_with_the_shorter_one():
    short, long = (make_pack("frozen-lake-v1", "hard", "test", 2, size) for size in (2, 6))
    assert long.tasks[:2] == short.tasks
    assert long.world == short.world


@pytest.mark.parametrize("change", [{"split": "test"}, {"index": 8}, {"preset": "hard"}, {"id": "frozen-lake-v0"}])
def test_every_part_of_a_packs_name_counts(change):
    name = {"id": "frozen-lake-v1", "preset": "easy", "split": "dev", "index": 7}
    boards = [task.content for task in make_pack(**name, size=4).tasks]
    assert boards != [task.content for task in make_pack(**name | change, size=4).tasks]


def test_equal_tasks_open_equal_environments():
    task = make_pack("frozen-lake-v1", "easy", "train", 0, 1).tasks[0]
    assert task.env().observe() == task.env().observe()
