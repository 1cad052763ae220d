"""Profiles survive saving and loading, and an invalid one raises a one-line error."""

import json

import pytest

from codots import register
from codots.rollout.profile import PROFILE, Profile, load_profile
from tests.toy import Guess


def test_a_saved_profile_is_loaded_unchanged(tmp_path):
    profile = Profile("compact", 3, 5, 77, 0.5)
    profile.save(tmp_path)
    assert load_profile(tmp_path) == profile
    params, strategy = profile.episode_params(), profile.strategy("wipe")
    assert (params.style, params.solve.max_tokens, params.update.max_tokens) == ("compact", 3, 5)
    assert (params.solve.temperature, params.update.temperature) == (0.5, 0.5)
    assert (strategy.cap, strategy.on_parse_failure) == (77, "wipe")
    assert profile.at(0).episode_params().solve.temperature == 0


def test_a_folder_without_a_profile_has_the_default_one(tmp_path):
    assert load_profile(tmp_path) == Profile()
    assert load_profile(tmp_path).style == "natural"


def test_a_style_that_a_domain_lacks_is_a_one_line_error(registry):
    register(Guess())
    assert Profile("compact").fits("frozen-lake-v1") == Profile("compact")
    with pytest.raises(ValueError, match="uses prompt style 'compact'; guess-v0 has natural"):
        Profile("compact").fits("guess-v0")


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"stile": "compact"}', "\x00", '{"solve_tokens": 4, "solve_tokens": 8}']
)
def test_an_unreadable_profile_is_a_one_line_error(tmp_path, content):
    (tmp_path / PROFILE).write_text(content)
    with pytest.raises(ValueError, match=r"codots\.json is not a profile") as error:
        load_profile(tmp_path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"style": "loud"},
        {"style": 3},
        {"solve_tokens": 0},
        {"update_tokens": "many"},
        {"temperature": -1},
        {"temperature": float("inf")},
    ],
)
def test_an_invalid_profile_is_a_one_line_error(tmp_path, wrong):
    (tmp_path / PROFILE).write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match=r"codots\.json is not a profile") as error:
        load_profile(tmp_path)
    assert len(str(error.value).splitlines()) == 1
