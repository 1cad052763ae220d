"""The registry finds domains by id, and a pack depends on its name alone."""

import pickle

import pytest

from codots.core.rng import stream
from codots.domains.registry import domain_ids, find_domain, get_domain, make_pack, register
from tests.toy import Guess


def test_installed_domains_are_found_by_their_versioned_id():
    assert {"frozen-lake-v0", "frozen-lake-v1"} <= set(domain_ids())
    assert get_domain("frozen-lake-v1").id == "frozen-lake-v1"


@pytest.mark.parametrize("wrong", ["frozen-lake-v9", "frozenlake-v1", "frozen-lake", "no-such-thing-at-all", ""])
def test_an_unknown_domain_is_a_one_line_error_that_lists_the_known_ones(wrong):
    with pytest.raises(ValueError, match=f"unknown domain '{wrong}'; expected one of .*frozen-lake-v1") as error:
        get_domain(wrong)
    assert "\n" not in str(error.value)


def test_a_near_miss_names_the_nearest_domain_or_preset():
    with pytest.raises(ValueError, match="the nearest is 'frozen-lake-v1'"):
        get_domain("frozen-lake-v11")
    with pytest.raises(ValueError, match=r"unknown preset of frozen-lake-v1 'eazy'.*the nearest is 'easy'"):
        make_pack("frozen-lake-v1", "eazy", "train", 0, 2)


@pytest.mark.parametrize("size", [0, -1])
def test_a_pack_has_at_least_one_task(size):
    with pytest.raises(ValueError, match=f"a pack of {size} tasks; expected at least 1"):
        make_pack("frozen-lake-v1", "easy", "train", 0, size)


def test_a_domain_is_pickled_by_its_id():
    domain = get_domain("frozen-lake-v1")
    assert pickle.loads(pickle.dumps(domain)) is domain
    pack = make_pack("frozen-lake-v1", "easy", "train", 0, 2)
    loaded = pickle.loads(pickle.dumps(pack))
    assert loaded == pack
    assert loaded.domain is domain


def test_a_registered_domain_is_found_and_draws_packs(registry):
    domain = register(Guess())
    assert get_domain("guess-v0") is domain
    assert "guess-v0" in domain_ids()
    assert len(make_pack("guess-v0", "few", "train", 0, 3).tasks) == 3


def test_positions_count_from_zero_and_task_names_differ():
    pack = make_pack("frozen-lake-v1", "easy", "dev", 4, 5)
    assert [task.position for task in pack.tasks] == [0, 1, 2, 3, 4]
    assert len({task.names for task in pack.tasks}) == 5
    assert pack.names == pack.world.names == ("frozen-lake-v1", "easy", "dev", 4)


def test_a_world_that_does_not_belong_to_a_split_is_drawn_again(registry):
    class Parity(Guess):
        id = "parity-v0"

        def belongs(self, hidden, split):
            return (hidden % 2 == 0) == (split == "train")

    domain = register(Parity())
    for split, parity in (("train", 0), ("dev", 1), ("test", 1)):
        worlds = [make_pack("parity-v0", "many", split, i, 1).world for i in range(20)]
        twins = [domain.twin(world, stream("twin", i)) for i, world in enumerate(worlds)]
        assert {world.hidden % 2 for world in worlds + twins} == {parity}


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
def test_every_part_of_a_packs_name_changes_the_tasks(change):
    name = {"id": "frozen-lake-v1", "preset": "easy", "split": "dev", "index": 7}
    boards = [task.content for task in make_pack(**name, size=4).tasks]
    assert boards != [task.content for task in make_pack(**name | change, size=4).tasks]


@pytest.mark.parametrize("find", [get_domain, find_domain])
def test_a_benchmark_without_a_bridge_says_why_in_one_line(find):
    with pytest.raises(ValueError, match=r"^verifiers:gsm8k has no bridge: a taskset has no world .* write a domain"):
        find("verifiers:gsm8k")
