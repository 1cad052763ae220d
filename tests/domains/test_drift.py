"""Tests of hidden parts that change: who sees the change, and where the claims follow it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from codots.core.rng import stream
from codots.domains.base import Step, World
from codots.domains.drift import Drift, holds
from codots.domains.export import task_rows
from codots.domains.frozen_lake.env import DEFAULT, View
from codots.domains.frozen_lake.policies import Bayes
from codots.domains.registry import domain_ids, get_domain, make_pack
from codots.domains.scripted import play_pack
from codots.rollout.arms import contexts_of

IDS = [id for id in domain_ids() if "drift" in get_domain(id).presets]
every_domain = pytest.mark.parametrize("id", IDS)


def packs(id, count=12, size=8):
    return [make_pack(id, "drift", "dev", i, size) for i in range(count)]


def test_the_domains_with_a_preset_that_changes():
    assert set(IDS) == {"alchemy-v1", "bandit-v1", "frozen-lake-v1"}


def test_a_world_at_a_position_has_the_hidden_part_of_that_position():
    world = World("always", None)
    assert world.at(3) is world
    changing = replace(world, hidden=Drift("before", "after", 3))
    assert [changing.at(j).hidden for j in range(5)] == ["before"] * 3 + ["after"] * 2
    assert [holds(hidden, 4) for hidden in (changing.hidden, "always")] == ["after", "always"]


@every_domain
def test_the_change_is_real_and_drawn_from_the_positions_of_the_dials(id):
    first, last = get_domain(id).presets["drift"].change
    drifts = [pack.world.hidden for pack in packs(id, 60, 1)]
    assert {drift.position for drift in drifts} == {*range(first, last + 1)}
    assert all(drift.before != drift.after for drift in drifts)


@every_domain
def test_an_environment_has_the_hidden_part_of_its_position(id):
    """Each task equals the task of a world in which its part always holds."""
    for pack in packs(id, 4):
        scripted = pack.domain.policy("informed", pack.world)
        for task in pack.tasks:
            always = replace(task, world=replace(pack.world, hidden=holds(pack.world.hidden, task.position)))
            here, there, step = task.env(), always.env(), None
            assert here.observe() == there.observe()
            while step is None or not step.done:
                text = scripted.act(here.view)
                step = here.step(text)
                assert step == there.step(text)
            scripted.end(step)


@every_domain
def test_the_informed_policy_earns_the_ceiling_before_and_after_the_change(id):
    for pack in packs(id):
        rewards = [played.reward for played in play_pack(pack, "informed")]
        assert rewards == pytest.approx([pack.domain.ceiling(task) for task in pack.tasks])


@pytest.mark.parametrize("id", ["bandit-v1", "frozen-lake-v1"])
def test_bayes_loses_by_the_change_and_recovers(id):
    early = [pack for pack in packs(id, 120) if pack.world.hidden.position == 3]
    rewards = np.mean([[played.reward for played in play_pack(pack, "bayes")] for pack in early], axis=0)
    assert rewards[2] > rewards[3] + 0.1
    assert rewards[7] > rewards[3] + 0.1


@every_domain
def test_the_twin_changes_too_and_hides_another_rule_at_every_position(id):
    for i, pack in enumerate(packs(id, 8, 1)):
        twin = pack.domain.twin(pack.world, stream("twin", i))
        assert isinstance(twin.hidden, Drift)
        assert twin.hidden.before != pack.world.hidden.before
        assert pack.domain.belongs(twin.hidden, "dev") == pack.domain.belongs(pack.world.hidden, "dev")


@every_domain
def test_the_oracle_arm_facts_and_exports_follow_the_change(id):
    pack = next(pack for pack in packs(id) if pack.world.hidden.position < 4)
    domain, change = pack.domain, pack.world.hidden.position
    given = contexts_of("oracle", 0, [pack], [], "natural")
    assert len({*given[:change]}) == len({*given[change:]}) == 1
    assert given[0] != given[change]
    assert given[0] == domain.oracle_context(pack.world, "natural")
    for position, context in enumerate(given):
        right, wrong, knowable = domain.facts(pack.world.at(position), context)
        assert (right, wrong) == (knowable, 0)
    assert domain.facts(pack.world.at(change), given[0])[1] > 0
    rows = list(task_rows(id, preset="drift", split="dev", packs=pack.index + 1, size=8))[-8:]
    assert [row["oracle_context"] for row in rows] == list(given)
    assert json.loads(rows[0]["hidden"])["position"] == change


def test_bayes_of_the_lake_forgets_only_what_a_change_contradicts():
    dials = get_domain("frozen-lake-v1").presets["drift"]
    board = make_pack("frozen-lake-v1", "tiny", "dev", 0, 1).tasks[0].content
    board = replace(board, side=3, start=(1, 1), goal=(0, 0), holes=frozenset())
    policy = Bayes(dials)
    policy.mappings = [DEFAULT]  # left, down, right, up
    policy.observe(View(board, (2, 1), 1, 8, "compact", "2", (1, 1)))
    assert policy.mappings == [DEFAULT]
    policy.observe(View(board, (2, 0), 2, 8, "compact", "3", (2, 1)))  # code 3 now moves left
    assert {mapping[1:3] for mapping in policy.mappings} == {("down", "left")}
    assert len(policy.mappings) == 2
    reader = Bayes(dials)
    reader.read("1=left 2=down")
    reader.observe(View(board, (0, 1), 1, 8, "compact", "1", (1, 1)))
    assert reader.claims == []
    assert Bayes(get_domain("frozen-lake-v1").presets["easy"]).dials.change is None


def test_bayes_of_alchemy_keeps_only_what_the_task_has_shown_when_a_known_pair_does_something_else():
    task = make_pack("alchemy-v1", "drift", "dev", 0, 1).tasks[0]
    view, policy = task.env().view, task.domain.policy("bayes", task.world)
    policy.products, policy.dead = {(0, 1): 5, (0, 0): 4}, {(1, 1)}
    policy.act(view._replace(pair=(0, 1), made=5))
    assert (policy.products, policy.dead) == ({(0, 1): 5, (0, 0): 4}, {(1, 1)})
    policy.act(view._replace(pair=(0, 0), made=None))
    assert (policy.products, policy.dead) == ({(0, 1): 5}, {(0, 0)})
    policy.end(Step("", 0.0, True, view=view._replace(pair=(0, 0), made=4)))
    assert (policy.products, policy.shown) == ({(0, 1): 5, (0, 0): 4}, {})


def test_only_presets_without_a_heuristic_count_as_exact():
    lake, bandit = get_domain("frozen-lake-v1"), get_domain("bandit-v1")
    assert [lake.is_exact(preset) for preset in ("easy", "drift")] == [True, False]
    assert bandit.is_exact("drift")
