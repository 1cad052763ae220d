"""Ralph packs attempt one task again and again, and what remains after a success costs nothing."""

import asyncio
import pickle

import pytest

from codots.config.schema import TrainConfig
from codots.context.rewrite import Rewrite
from codots.domains.check import check_domain
from codots.domains.registry import domain_ids, find_domain, get_domain, make_pack, register
from codots.domains.scripted import play_pack
from codots.evaluation.curves import arm_report
from codots.evaluation.rescore import rescore
from codots.report.page import write_report
from codots.rollout.life import Job, rollout
from codots.rollout.profile import Profile
from codots.rollout.records import Row, load_rollouts
from codots.rollout.steps import STOPPED, Own
from codots.sampler.scripted import ScriptedSampler
from codots.training.train import train
from tests.evaluating import measured
from tests.toy import Guess

IDS = ("frozen-lake-v1", "bandit-v1", "gymnasium:FrozenLake-v1")


def scripted_life(id, replies, render):
    """Roll out a life of the toy domain that gives these replies to its attempts, and writes `note`."""
    pack = make_pack(id, "few", "dev", 0, len(replies))
    said = [str(pack.world.hidden if hit else (pack.world.hidden + 1) % 4) for hit in replies]
    player = ScriptedSampler(
        render, lambda names: lambda text: "<context>note</context>" if names[-1] == "update" else said[names[-2]]
    )
    return asyncio.run(rollout(Job(pack, Own(Rewrite()), Profile().episode_params(), ("life",)), player, render))


@pytest.fixture
def guess(registry):
    return register(Guess())


@pytest.mark.parametrize("id", IDS)
def test_attempts_share_world_and_content_and_have_a_random_stream_each(id):
    pack = make_pack(f"ralph:{id}", "easy", "dev", 3, 5)
    assert {task.position for task in pack.tasks} == set(range(5))
    assert all(task.content == pack.tasks[0].content and task.world is pack.world for task in pack.tasks)
    assert len({task.names for task in pack.tasks}) == 5
    assert len({task.env(style=task.domain.styles[0]).observe() for task in pack.tasks}) == 1


@pytest.mark.parametrize("kind", ["ralph", "ralph-stop"])
def test_a_ralph_domain_is_found_and_pickled_by_its_id(kind, guess):
    for id in (*IDS, guess.id):
        domain = get_domain(f"{kind}:{id}")
        assert domain is find_domain(domain.id) is pickle.loads(pickle.dumps(domain))
        assert (domain.id, domain.presets) == (f"{kind}:{id}", get_domain(id).presets)
        assert get_domain(id).repeats is False


@pytest.mark.parametrize(("id", "nearest"), [("ralph:frozen-lake-v2", "frozen-lake-v1"), ("ralf:bandit-v1", "bandit")])
def test_an_unknown_ralph_domain_names_the_nearest_one(id, nearest):
    with pytest.raises(ValueError, match=f"unknown .*the nearest is '.*{nearest}") as error:
        get_domain(id)
    assert "\n" not in str(error.value)


def test_attempts_at_attempts_are_refused_in_one_line():
    with pytest.raises(
        ValueError, match="ralph:ralph-stop:bandit-v1 repeats tasks twice; expected ralph: before the id"
    ):
        get_domain("ralph:ralph-stop:bandit-v1")


@pytest.mark.parametrize(
    "id", [*IDS[:2], *(pytest.param(id, marks=pytest.mark.slow) for id in domain_ids() if id not in IDS)]
)
def test_every_domain_keeps_its_contract_with_attempts_in_place_of_tasks(id):
    assert check_domain(f"ralph:{id}", packs=20)


def test_a_success_ends_a_life_and_counts_for_the_attempts_that_are_left(guess, render):
    life = scripted_life("ralph-stop:guess-v0", [False, True, False, False], render)
    assert [(e.kind, e.position, e.stop == STOPPED) for e in life.episodes] == [
        ("solve", 0, False),
        ("update", 0, False),
        ("solve", 1, False),
        ("solve", 2, True),
        ("solve", 3, True),
    ]
    assert [episode.reward for episode in life.of("solve")] == [0, 1, 1, 1]
    assert [episode.transcript.tokens > 0 for episode in life.of("solve")] == [True, True, False, False]


def test_without_the_stop_every_attempt_is_made(guess, render):
    life = scripted_life("ralph:guess-v0", [False, True, False, True], render)
    assert [episode.reward for episode in life.of("solve")] == [0, 1, 0, 1]
    assert len(life.episodes) == 7


def test_a_scripted_policy_stops_as_a_model_does():
    for index in range(20):
        goes_on = [
            played.reward for played in play_pack(make_pack("ralph:bandit-v1", "noisy", "dev", index, 6), "bayes")
        ]
        stopping = make_pack("ralph-stop:bandit-v1", "noisy", "dev", index, 6)
        stops = [played.reward for played in play_pack(stopping, "bayes")]
        assert stops == sorted(stops), (index, goes_on)


@pytest.mark.usefixtures("guess")
def test_solved_by_and_tokens_per_success_are_those_of_a_slow_count():
    packs = [make_pack("ralph:guess-v0", "few", "dev", i, 3) for i in range(3)]

    def row(pack, position, kind, reward, tokens):
        return Row(list(pack.names), "own", 0, position, kind, reward, "", "", None, [], "", tokens)

    rewards = [[0, 1, 0], [0, 0, 0], [1, 0, 1]]
    lives = [
        [
            row(pack, j, kind, reward, 10 if kind == "solve" else 3)
            for j, reward in enumerate(rs)
            for kind in ("solve", "update")
        ]
        for pack, rs in zip(packs, rewards, strict=True)
    ]
    report = arm_report(packs, lives)
    assert report.solved_by == [0.3333, 0.6667, 0.6667]
    assert report.tokens_per_success == ((10 + 3 + 10) + 3 * 13 + 10) / 2


def test_an_evaluation_with_stops_is_measured_re_scored_and_shown(tmp_path):
    rows = tmp_path / "eval.jsonl"
    settings = {"packs": 8, "pack_size": 3, "workers": 1, "arms": ["own", "null"], "rows": rows}
    report = measured("base", domain="ralph-stop:frozen-lake-v1", **settings)
    for arm in report.arms.values():
        assert arm.solved_by == arm.success == sorted(arm.success)
    assert any(row.stop == STOPPED for row in load_rollouts(rows))
    assert all(change.changed == change.diverged == change.missing == 0 for change in rescore(rows).changes.values())
    [page] = write_report([tmp_path], tmp_path / "report.html")
    assert page.is_file()


@pytest.mark.parametrize("kind", ["ralph", "ralph-stop"])
def test_a_model_trains_on_attempts(kind, tmp_path):
    world = {"domain": f"{kind}:bandit-v1", "preset": "tiny", "pack_size": 3, "packs_per_step": 2}
    config = TrainConfig(
        worlds=[world], run=str(tmp_path / kind), steps=2, group_size=2, workers=1, eval_every=2, eval_packs=2
    )
    assert [report.step for report in train(config)] == [1, 2]
