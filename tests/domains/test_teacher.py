"""Teachers: the form alone, reading without writing, and a skilled policy whose noise is drawn per fact."""

import asyncio

import numpy as np
import pytest

from codots.context.rewrite import Rewrite
from codots.domains.bandit.notes import NOT, SURE, read_claims, write_claim
from codots.domains.base import Domain, Step
from codots.domains.frozen_lake.noisy import LakeNoise
from codots.domains.noise import Noise
from codots.domains.registry import get_domain, make_pack, register
from codots.domains.teacher import TEACHERS, make_teacher
from codots.model.alphabet import make_render
from codots.rollout.life import Job, rollouts
from codots.rollout.profile import Profile
from codots.rollout.steps import Given, Own
from codots.sampler.scripted import ScriptedSampler
from tests.toy import Guess

LAKE = get_domain("frozen-lake-v1")


def lives(teacher, *, style="compact", packs=40, size=4, context=None):
    drawn = [make_pack("frozen-lake-v1", "tiny", "train", i, size) for i in range(packs)]
    params, strategy = Profile(style=style).episode_params(), Rewrite()
    jobs = [
        Job(pack, Own(strategy) if context is None else Given(strategy, (context(pack),) * size), params, (i,), teacher)
        for i, pack in enumerate(drawn)
    ]
    render = make_render()
    found = asyncio.run(rollouts(jobs, ScriptedSampler(render, lambda names: str), render))
    assert [life.failure for life in found] == [None] * packs
    return list(zip(drawn, found, strict=True))


def rewards(lived):
    return np.mean([[episode.reward for episode in life.of("solve")] for _, life in lived], axis=0)


def facts(lived, position):
    return np.array([pack.domain.facts(pack.world, life.contexts[position]) for pack, life in lived])


@pytest.mark.parametrize("style", ["natural", "compact"])
@pytest.mark.parametrize("name", TEACHERS)
def test_every_teacher_keeps_to_the_form(name, style):
    for _, life in lives(make_teacher(name, LAKE), style=style, packs=10):
        assert {episode.stop for episode in life.of("update")} == {"ok"}
        assert "malformed" not in {episode.stop for episode in life.of("solve")}


def test_with_ending_a_natural_rewrite_first_says_in_one_line_how_the_task_ended():
    teacher = make_teacher("literate", LAKE, {"ending": 1})
    for style in ("natural", "compact"):
        for _, life in lives(teacher, style=style, packs=10):
            for solve, update in zip(life.of("solve"), life.of("update"), strict=False):
                thought = update.turns[-1].reply.partition("<context>")[0].strip()
                assert thought == (solve.outcome.strip() if style == "natural" else "")
                assert "\n" not in thought


@pytest.mark.parametrize("ending", ["", "a" * 81, "two\nlines"])
def test_an_ending_that_is_no_short_line_is_not_repeated(ending):
    task = make_pack("frozen-lake-v1", "tiny", "train", 0, 2).tasks[0]
    player = make_teacher("format", LAKE, {"ending": 1}).player(task, "", "natural", ())
    player.act(task.env(style="natural", memory=LAKE.make_memory(task.world)).view)
    player.end(Step(ending, 0.0, True, feedback="You fell in."))
    assert player.rewrite().startswith("You fell in.\n<context>")
    player.end(Step(ending, 0.0, True, feedback=ending))
    assert player.rewrite().startswith("<context>")


def test_the_literate_teacher_reads_but_does_not_write():
    literate = make_teacher("literate", LAKE)
    own = rewards(lives(literate, packs=200))
    null, oracle = (
        rewards(lives(literate, packs=200, context=given))
        for given in (lambda pack: "", lambda pack: pack.domain.oracle_context(pack.world, "compact"))
    )
    assert oracle.min() > 0.9
    assert abs(own[3] - null[3]) < 0.12
    assert null.max() < 0.5


def test_the_notes_of_the_literate_teacher_are_right_at_a_small_rate():
    found = facts(lives(make_teacher("literate", LAKE), packs=200), 3)
    right, wrong, _ = found.mean(0) / 4
    assert right == pytest.approx(0.15 + 0.45 * 5 / 23, abs=0.04)  # a twin agrees on 5 of 23 directions
    assert wrong == pytest.approx(0.45 * 18 / 23, abs=0.04)


@pytest.mark.parametrize("style", ["natural", "compact"])
def test_guesses_in_place_of_claims_tell_the_literate_teacher_nothing(style):
    """It reads them nevertheless: it takes what is said to pay and leaves what is said to be empty."""
    teacher = make_teacher("literate", get_domain("bandit-v1"), {"right": 0, "wrong": 0, "invent": 0.9})
    rewards, followed = [], []
    for i in range(600):
        one, two = make_pack("bandit-v1", "easy", "train", i, 2).tasks
        player, _ = taught(teacher, one, "", style, (i, 0))
        note = Rewrite().parse(player.rewrite(), "").context
        _, step = taught(teacher, two, note, style, (i, 1))
        rewards.append(step.reward)
        claims = read_claims(note, one.content)
        assert len(claims) <= 1
        followed += [(step.view.chosen == option) == (kind > 0) for option, kind in claims.items()]
    assert np.mean(rewards) == pytest.approx(0.25, abs=0.06)
    assert len(followed) == pytest.approx(540, abs=40)
    assert all(followed)


@pytest.mark.parametrize("style", ["natural", "compact"])
def test_what_a_task_showed_is_written_at_the_rate_of_seen(style):
    teacher = make_teacher("literate", get_domain("bandit-v1"), {"right": 0, "wrong": 0, "seen": 0.4})
    written = 0
    for i in range(500):
        [task] = make_pack("bandit-v1", "easy", "train", i, 1).tasks
        player, step = taught(teacher, task, "", style, (i, 0))
        claims = read_claims(Rewrite().parse(player.rewrite(), "").context, task.content)
        assert claims in ({}, {step.view.chosen: SURE if step.view.paid else NOT})
        written += bool(claims)
    assert written == pytest.approx(200, abs=35)


@pytest.mark.parametrize("style", ["natural", "compact"])
def test_kept_notes_follow_the_new_ones_and_give_way_to_them(style):
    noise = {"right": 0, "wrong": 0, "seen": 1, "keep": 1}
    teacher = make_teacher("literate", get_domain("bandit-v1"), noise)
    [task] = make_pack("bandit-v1", "easy", "train", 0, 1).tasks
    old = [write_claim([option], NOT, style) for option in task.content]
    separator = " " if style == "compact" else "\n"
    player, step = taught(teacher, task, separator.join(old), style, ("keep",))
    new = write_claim([step.view.chosen], SURE if step.view.paid else NOT, style)
    kept = [line for line, option in zip(old, task.content, strict=True) if option != step.view.chosen]
    assert Rewrite().parse(player.rewrite(), "").context == separator.join([new, *kept])


@pytest.mark.parametrize(("name", "domain"), [("literate", "frozen-lake-v1"), ("skilled", "bandit-v1")])
def test_a_teacher_that_cannot_say_what_a_task_showed_is_refused(name, domain):
    [task] = make_pack(domain, "easy", "train", 0, 1).tasks
    with pytest.raises(ValueError, match=f"{name} cannot say what a task of {domain} showed"):
        make_teacher(name, task.domain, {"right": 0.1, "seen": 0.2}).player(task, "", "compact", ())


def taught(teacher, task, context, style, names):
    """Play one task of one turn. Return the player and the step."""
    player = teacher.player(task, context, style, names)
    env = task.env(style=style, memory=task.domain.make_memory(task.world))
    step = env.step(player.act(env.view))
    player.end(step)
    return player, step


def test_the_form_alone_knows_nothing():
    form = make_teacher("format", LAKE)
    right, wrong, _ = facts(lives(form, packs=200), 3).mean(0)
    assert right / (right + wrong) == pytest.approx(0.25, abs=0.05)
    told = rewards(lives(form, packs=100, context=lambda pack: pack.domain.oracle_context(pack.world, "compact")))
    assert told.max() < 0.5


def test_the_skilled_teacher_carries_what_it_knows_by_its_notes_alone():
    skilled = rewards(lives(make_teacher("skilled", LAKE), packs=200))
    alone = rewards(lives(make_teacher("skilled", LAKE), packs=200, context=lambda pack: ""))
    assert skilled[3] > alone[3] + 0.05
    assert facts(lives(make_teacher("skilled", LAKE), packs=50), 3)[:, 1].sum() == 0


def test_noise_is_drawn_for_each_fact():
    noise = {"right": 0.5, "wrong": 0.2, "invent": 0.0}
    known = facts(lives(make_teacher("skilled", LAKE), packs=300), 1).mean(0)[0]
    right, wrong, _ = facts(lives(make_teacher("skilled", LAKE, noise), packs=300), 1).mean(0)
    assert right == pytest.approx(known * (0.5 + 0.2 / 4), abs=0.15)
    assert wrong == pytest.approx(known * 0.2 * 3 / 4, abs=0.1)


def test_lives_of_one_pack_differ_and_equal_names_give_equal_lives():
    pack, teacher = make_pack("frozen-lake-v1", "tiny", "train", 0, 4), make_teacher("literate", LAKE)
    render, params = make_render(), Profile(style="compact").episode_params()
    jobs = [Job(pack, Own(Rewrite()), params, (name,), teacher) for name in (1, 2, 1)]
    one, other, again = asyncio.run(rollouts(jobs, ScriptedSampler(render, lambda names: str), render))
    assert one.episodes != other.episodes
    assert one.episodes == again.episodes


@pytest.mark.parametrize(
    ("name", "noise", "line"),
    [
        ("skiled", {}, "unknown teacher 'skiled'; expected one of .*; the nearest is 'skilled'"),
        ("skilled", {"wrongs": 0.1}, "unknown noise of skilled 'wrongs'; .* the nearest is 'wrong'"),
        ("literate", {"thought": 0.1}, "unknown noise of literate 'thought'"),
        ("skilled", {"right": 2}, "right is 2; expected a probability from 0 to 1"),
        ("skilled", {"habit": True}, "habit is True; expected a probability from 0 to 1"),
        ("skilled", {"right": 0.8, "wrong": 0.3}, r"right \+ wrong is 1.1; expected at most 1"),
    ],
)
def test_invalid_noise_is_one_line(name, noise, line):
    with pytest.raises(ValueError, match=line) as error:
        make_teacher(name, LAKE, noise)
    assert len(str(error.value).splitlines()) == 1


def test_the_lake_has_noise_on_its_actions():
    assert isinstance(make_teacher("skilled", LAKE).noise, LakeNoise)
    assert type(make_teacher("literate", LAKE).noise) is Noise


def test_a_domain_without_readers_has_only_the_form(registry):
    domain: Domain = register(Guess())
    task = make_pack(domain.id, next(iter(domain.presets)), "train", 0, 1).tasks[0]
    make_teacher("format", domain).player(task, "", "natural", ())
    with pytest.raises(ValueError, match=r"the policies of guess-v0 cannot read a context; expected teacher: format"):
        make_teacher("literate", domain).player(task, "", "natural", ())
