"""Errors for unknown names: one line, with the nearest known name."""

import pytest

from codots.core.suggest import check_known, closest, nearest


def test_the_error_has_the_nearest_name_if_one_is_close():
    assert nearest("eazy", ["hard", "easy"], "preset") == (
        "unknown preset 'eazy'; expected one of easy, hard; the nearest is 'easy'"
    )
    assert nearest("zzz", ["easy"], "preset") == "unknown preset 'zzz'; expected one of easy"


def test_the_nearest_name_is_found_in_any_case():
    assert nearest("RED", ["none", "red"], "balance").endswith("the nearest is 'red'")
    assert nearest("taxi", ["Taxi-v4", "Ant"], "environment").endswith("the nearest is 'Taxi-v4'")


def test_more_than_40_names_are_counted_and_not_listed():
    message = nearest("x7", [f"x{i:02}" for i in range(41)], "key")
    assert message.startswith("unknown key 'x7'; expected one of 41 names, from x00 to x40; the nearest is")


@pytest.mark.parametrize("wrong", ["b", None, 3, ["a"]])
def test_only_known_names_pass(wrong):
    check_known("a", ["a"], "letter")
    with pytest.raises(ValueError, match="unknown letter") as error:
        check_known(wrong, {"a": 1}, "letter")
    assert repr(wrong) in str(error.value)


def test_a_missing_path_suggests_the_nearest_sibling(tmp_path):
    (tmp_path / "lake.yaml").touch()
    assert closest(tmp_path / "lakes.yaml") == f"; the nearest is '{tmp_path / 'lake.yaml'}'"
    assert closest(tmp_path / "zzz") == ""
    assert closest(tmp_path / "bases", "base") == "; the nearest is 'base'"
    assert closest(tmp_path / "nowhere" / "x") == ""
