"""A dry run has the prompts of a rollout and never exceeds the model's maximum length."""

import asyncio

import pytest

from codots.domains.registry import get_domain, make_pack, register
from codots.model.load import load_render
from codots.rollout.fit import dry_run, grouped
from codots.rollout.life import Job, rollouts
from codots.rollout.profile import Profile
from codots.rollout.steps import Own
from codots.sampler.scripted import ScriptedSampler
from tests.random_model import make_random_model
from tests.toy import Talk


def packs_of(id, preset, size=2):
    return [make_pack(id, preset, "train", i, size) for i in range(4)]


def test_a_dry_run_has_the_prompts_of_a_rollout(tmp_path):
    """Apart from the replies, the text equals that of lives rolled out with a sampler."""
    profile, render = Profile("compact", 4, 14, 200), load_render(make_random_model(tmp_path / "model"))
    packs = packs_of("frozen-lake-v1", "easy")
    lives = dry_run(packs, profile, render, 0.5)
    jobs = [Job(pack, Own(profile.strategy()), profile.episode_params(), ("x", i)) for i, pack in enumerate(packs)]
    sampler = ScriptedSampler(render, lambda names: lambda text: "1")
    rolled_out = asyncio.run(rollouts(jobs, sampler, render))
    for life, expected in zip(lives, rolled_out, strict=True):
        assert len(life.samples) == len(expected.episodes) == 3
        opening = life.samples[0].mask.index(True)
        assert life.samples[0].ids[:opening] == expected.episodes[0].transcript.ids[:opening]
        assert life.passes == sum(sum(sample.mask) for sample in life.samples) > 3


def test_without_rewrites_a_dry_run_has_only_solves(render):
    packs, profile = packs_of("frozen-lake-v1", "easy", size=3), Profile("compact", 4, 14, 200)
    assert [len(life.samples) for life in dry_run(packs, profile, render, 0.5)] == [5] * 4
    assert [len(life.samples) for life in dry_run(packs, profile, render, 0.5, rewrites=False)] == [3] * 4


def test_no_episode_of_a_dry_run_is_longer_than_the_maximum_length(qwen, registry):
    register(Talk())
    for length in (160, 200, 400):
        profile = Profile(solve_tokens=50_000, update_tokens=50_000, max_model_len=length)
        lives = dry_run(packs_of("talk-v0", "few"), profile, load_render(qwen), 1.0)
        assert max(life.longest for life in lives) == length
    with pytest.raises(
        ValueError, match=r"the first prompt of talk-v0 has \d+ ids, and the model may read 3; raise max_model_len"
    ):
        dry_run(packs_of("talk-v0", "few"), Profile(max_model_len=3), load_render(qwen), 1.0)


def test_every_domain_has_a_dry_run(qwen):
    render = load_render(qwen)
    for id in ("frozen-lake-v1", "alchemy-v1", "terminal-v0", "grid-navigation-v1", "optimal-control-v1"):
        lives = dry_run(packs_of(id, next(iter(get_domain(id).presets))), Profile(), render, 0.5)
        assert all(len(life.samples) == 3 for life in lives)


def test_a_group_shares_the_prompt_up_to_its_first_reply(render):
    lives = dry_run(packs_of("frozen-lake-v1", "easy"), Profile("compact", 4, 14, 200), render, 0.5)
    one, other, *_ = grouped(lives, 2)
    opening = one.mask.index(True)
    assert one.ids[:opening] == other.ids[:opening]
    assert one.ids[opening] != other.ids[opening]
