"""Tests of grid navigation: rook moves, mean costs, ends, hidden maps, splits, versions, and the exact optimum."""

import itertools
import re
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.rng import stream
from codots.domains.base import World
from codots.domains.grid_navigation import TINY, V0, V1, GridNavigation
from codots.domains.grid_navigation.env import Dials, GridEnv, View, draw, read_move, write_move
from codots.domains.grid_navigation.ground import (
    TOP,
    UNKNOWN,
    Ground,
    Trip,
    around,
    draw_ground,
    draw_trip,
    entered_cells,
    name,
    read_name,
)
from codots.domains.grid_navigation.notes import read_costs, write_claim
from codots.domains.grid_navigation.policies import AdaptivePolicy, Random
from codots.domains.grid_navigation.route import Paid, best_route, in_reach, moves, random_mean, reference_costs
from codots.domains.registry import get_domain, make_pack
from tests.domains.reading import life, noted_life

DOCS = Path(__file__).parents[2] / "docs/domains/grid_navigation.md"
both_styles = pytest.mark.parametrize("style", ["natural", "compact"])
both_versions = pytest.mark.parametrize("id", ["grid-navigation-v0", "grid-navigation-v1"])
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)

#    a  b  c  d
# 1  S 10 20 30    From a1 to d4 in three moves, for instance along the top, down the side, or with a step between.
# 2  1  2  3  4
# 3 50 60 70 80
# 4  5  6  7  8
GROUND = Ground(4, bytes([0, 10, 20, 30, 1, 2, 3, 4, 50, 60, 70, 80, 5, 6, 7, 8]))
TRIP = Trip(4, 0, 15, 3)
DIALS = Dials(side=(4, 4), hills=2, rounds=(3, 3))


def make_env(rules=V0, ground=GROUND, content=TRIP, dials=DIALS, style="compact", known=None):
    return GridEnv(ground, content, rules, dials, style, bytearray([UNKNOWN]) * 16 if known is None else known)


def move_to(env, *stops):
    """Move to the named cells and return the last step."""
    for stop in stops:
        step = env.step(write_move(read_name(stop, env.trip.side), env.trip.side, env.style))
    return step


def play(policy, task, style="compact", memory=None):
    """Play one task and return its last step."""
    env, step = task.env(style=style, memory=memory), None
    while step is None or not step.done:
        step = env.step(policy.act(env.view))
    policy.end(step)
    return step


# Moves, costs and rewards.


@both_styles
def test_the_reward_of_v0_is_one_minus_the_mean_cost_over_a_hundred(style):
    last = move_to(make_env(style=style), "a2", "d2", "d4")  # 1, then 2 3 4, then 80 8
    assert (last.done, last.stop, last.view.paid) == (True, "goal", Paid(98, 6))
    assert last.reward == pytest.approx(1 - 98 / 600)


@both_styles
def test_a_cell_counts_each_time_it_is_entered_and_the_start_only_on_return(style):
    last = move_to(make_env(content=Trip(4, 0, 2, 3), style=style), "b1", "a1", "c1")
    assert last.view.paid == Paid(10 + 0 + 10 + 20, 4)


@both_styles
def test_the_reward_of_v1_is_one_at_the_optimum_and_a_half_at_random_moves(style):
    reference = reference_costs(GROUND, TRIP)
    least = best_route(4, GROUND.array, 0, 15, 3)
    last = move_to(make_env(V1, style=style), *[name(stop, 4) for stop in least.stops])
    assert last.reward == pytest.approx(1.0)
    assert V1.reward(GROUND, TRIP, reference.random) == pytest.approx(0.5)
    assert V1.reward(GROUND, TRIP, (reference.random + reference.least) / 2) == pytest.approx(0.75)
    assert V1.reward(GROUND, TRIP, 2 * reference.random - reference.least) == pytest.approx(0.0)
    assert V1.reward(GROUND, TRIP, 99.0) == 0.0


@both_styles
@pytest.mark.parametrize("rules", [V0, V1])
def test_only_the_last_move_must_end_on_the_goal(rules, style):
    early = move_to(make_env(rules, content=replace(TRIP, rounds=4), style=style), "a4", "d4", "d1")
    assert not early.done
    env = make_env(rules, style=style)
    assert not move_to(env, "a4", "d4").done
    missed = move_to(env, "d1")
    assert (missed.done, missed.stop, missed.reward) == (True, "missed", 0.0)


@both_styles
@pytest.mark.parametrize("stop", ["a1", "b2", "d4"])
def test_a_move_that_is_not_a_rooks_move_ends_the_episode(stop, style):
    step = move_to(make_env(style=style), stop)
    assert (step.done, step.stop, step.reward, step.observation) == (True, "illegal", 0.0, "")
    assert step.view.at == 0


@both_styles
@pytest.mark.parametrize("reply", ["", "north", "e1", "a5", "<action>e5</action>", "<action>a9</action>"])
def test_a_reply_without_a_cell_of_the_grid_is_malformed(reply, style):
    step = make_env(style=style).step(reply)
    assert (step.done, step.stop, step.reward, step.observation) == (True, "malformed", 0.0, "")


def test_a_rook_enters_every_cell_of_its_path_except_the_start():
    assert list(entered_cells(4, 0, 3)) == [1, 2, 3]
    assert list(entered_cells(4, 3, 0)) == [2, 1, 0]
    assert list(entered_cells(4, 1, 13)) == [5, 9, 13]
    assert list(entered_cells(4, 13, 5)) == [9, 5]
    for start, end in itertools.product(range(16), repeat=2):
        entered = entered_cells(4, start, end)
        straight = (start // 4 == end // 4) != (start % 4 == end % 4)
        assert (entered is not None) == straight
        assert not straight or (entered[-1] == end and start not in entered)


# Visibility and observations.


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_exactly_the_cells_around_entered_cells_become_visible(radius):
    for start, end in itertools.product(range(25), repeat=2):
        entered = entered_cells(5, start, end)
        if entered is not None:
            near = [
                cell
                for cell in range(25)
                if any(max(abs(cell // 5 - e // 5), abs(cell % 5 - e % 5)) <= radius for e in entered)
            ]
            assert around(5, entered, radius) == near


def test_known_costs_start_empty_only_grow_and_are_true():
    for index in range(8):
        task = make_pack("grid-navigation-v1", "easy", "dev", index, 1).tasks[0]
        env, policy = task.env(style="compact"), task.domain.policy("random", task.world)
        assert set(env.view.known) == {UNKNOWN}
        before, step = env.view.known, None
        while step is None or not step.done:
            step = env.step(policy.act(env.view))
            for cell, cost in enumerate(step.view.known):
                assert cost in (UNKNOWN, task.world.hidden.costs[cell])
                assert before[cell] in (UNKNOWN, cost)
            before = step.view.known


def test_observations_show_the_grid():
    env = make_env(style="natural")
    assert draw(env.view).splitlines()[:2] == ["    a  b  c  d", " 1  ?  ?  ?  ?"]
    assert env.observe().endswith("You are at a1, the goal is d4.\nMove 1 of 3: where to?")
    step = move_to(env, "a2")
    assert draw(env.view) == "    a  b  c  d\n 1  0 10  ?  ?\n 2  1  2  ?  ?\n 3 50 60  ?  ?\n 4  ?  ?  ?  ?"
    assert "Move 1 of 3 took you to a2 through 1 cell: a2. So far" in step.observation
    assert "cost 1.0 on average" in step.observation
    assert draw(env.view) in step.observation


def test_compact_shows_each_cost_once():
    env = make_env()
    assert env.observe() == "at a1 goal d4"
    assert move_to(env, "a2").observation == "a2 1/3 mean 1 a1=0 b1=10 a2=1 b2=2 a3=50 b3=60"
    assert move_to(env, "b2").observation == "b2 2/3 mean 2 c1=20 c2=3 c3=70"


@both_styles
def test_both_styles_reveal_the_same_costs(style):
    env = make_env(style=style)
    move_to(env, "a2", "d2", "d4")
    assert bytes(env.known) == bytes([*GROUND.costs[:12], UNKNOWN, UNKNOWN, 7, 8])


# The map is carried by the context, or by the environment's memory.


@pytest.mark.parametrize(
    ("id", "preset", "carried"),
    [
        ("grid-navigation-v0", "easy", True),
        ("grid-navigation-v0", "hard", True),
        ("grid-navigation-v1", "easy", False),
        ("grid-navigation-v1", "hard", False),
        ("grid-navigation-v1", "remembered", True),
    ],
)
def test_the_environment_remembers_the_map_only_with_environment_memory(id, preset, carried):
    pack = make_pack(id, preset, "dev", 0, 2)
    memory, policy = pack.domain.make_memory(pack.world), pack.domain.policy("random", pack.world)
    assert (memory is not None) == carried
    seen = play(policy, pack.tasks[0], memory=memory).view.known
    opened = pack.tasks[1].env(style="compact", memory=memory)
    assert opened.view.known == (seen if carried else bytes([UNKNOWN]) * len(seen))
    assert ("=" in opened.observe()) == carried
    assert ("earlier tasks are shown" in pack.domain.rules_text(pack.tasks[1], "natural")) == carried


def test_two_lives_of_a_pack_share_no_memory():
    pack = make_pack("grid-navigation-v0", "easy", "dev", 0, 2)
    first, second = (pack.domain.make_memory(pack.world) for _ in range(2))
    play(pack.domain.policy("random", pack.world), pack.tasks[0], memory=first)
    assert set(second) == {UNKNOWN}


@both_styles
def test_worlds_that_differ_only_in_unseen_cells_have_equal_transcripts(style):
    other = Ground(4, GROUND.costs[:12] + b"\x63" + GROUND.costs[13:])  # another a4
    lines = []
    for ground in (GROUND, other):
        env = make_env(ground=ground, style=style)
        lines.append([env.observe(), *(move_to(env, stop) for stop in ("a2", "d2", "d4"))])
    assert lines[0] == lines[1]


@both_styles
@pytest.mark.parametrize("rules", [V0, V1])
def test_the_updater_sees_the_costs_revealed_by_the_last_move(rules, style):
    env, turns = make_env(rules, style=style), []
    observation = env.observe()
    for stop in ("a2", "d2", "d4"):
        reply = write_move(read_name(stop, 4), 4, style)
        step = env.step(reply)
        turns.append(Turn(observation, reply))
        observation = step.observation
    shown = Rewrite().prompt(Trajectory("rules", tuple(turns), observation, step.reward, step.feedback), "", style).user
    assert observation in shown
    assert step.feedback in shown
    assert ("d4=8" if style == "compact" else " 4  ?  ?  7  8") in shown


# Rules.


def test_only_v0_advises_when_to_explore():
    for id, given_ in (("grid-navigation-v0", True), ("grid-navigation-v1", False)):
        task = make_pack(id, "easy", "dev", 0, 1).tasks[0]
        rules = task.domain.rules_text(task, "natural")
        assert ("early tasks" in rules.replace("earlier tasks", "")) == given_
        assert f"exactly {task.content.rounds} moves" in rules


@both_styles
def test_rules_state_the_size_and_the_number_of_moves_and_no_cost(style):
    for index in range(5):
        task = make_pack("grid-navigation-v1", "hard", "dev", index, 1).tasks[0]
        twin = replace(task, world=task.domain.twin(task.world, stream("twin", index)))
        rules = task.domain.rules_text(task, style)
        assert rules == task.domain.rules_text(twin, style)
        assert {str(task.content.side), str(task.content.rounds)} <= set(re.findall(r"\d+", rules))


# Parsing replies.


@pytest.mark.parametrize(
    ("reply", "cell"),
    [
        ("<action>a1</action>", "a1"),
        ("cheap there. <action>\n B3 \n</action> good", "b3"),
        ("<action>a1 a2</action>", None),
        ("<action></action>", None),
        ("<action>a1</action><action>a1</action>", None),
        ("the <action> tag: <action>a1</action>", None),
        ("</action><action>a1", None),
        ("<ACTION>a1</ACTION>", None),
        ("a1", None),
        ("<action>0,1</action>", None),
        ("<action>a01</action>", None),
        ("<action>a0</action>", None),
        ("<action>a-1</action>", None),
        ("<action>a\uff11</action>", None),
        ("<action>\u0430\u0031</action>", None),  # the Cyrillic a
        ("<action>l12</action>", "l12"),
        ("<action>m12</action>", None),
        ("<action>l13</action>", None),
    ],
)
def test_natural_requires_exactly_one_cell_in_exactly_one_pair_of_tags(reply, cell):
    read = read_move(reply, 12, "natural")
    assert read == (None if cell is None else read_name(cell, 12))


@pytest.mark.parametrize(
    ("reply", "cell"), [("to c5", "c5"), ("c5", "c5"), (" C5 \n", "c5"), ("c5 then", None), ("toc5", None), ("", None)]
)
def test_compact_reads_the_last_word(reply, cell):
    assert read_move(reply, 12, "compact") == (None if cell is None else read_name(cell, 12))


@pytest.mark.parametrize("side", [3, 9, 16])
def test_every_cell_name_is_parsed_back_to_its_cell(side):
    assert [read_name(name(cell, side), side) for cell in range(side**2)] == list(range(side**2))
    assert name(0, side) == "a1"


hostile_text = text | st.lists(
    st.sampled_from(["<action>", "</action>", "a1", "d4", "p16", "z", " ", "\n", "b2", "٣", "=7", "\u212a", "\x00"])
).map("".join)
replies = hostile_text | st.sampled_from(
    [write_move(cell, 4, style) for cell in range(16) for style in ("natural", "compact")]
)


@both_styles
@given(lines=st.lists(replies, min_size=1, max_size=4), v1=st.booleans())
def test_any_text_keeps_the_environment_within_its_bounds(style, lines, v1):
    env = make_env(V1 if v1 else V0, style=style)
    for line in lines:
        step = env.step(line)
        assert 0.0 <= step.reward <= 1.0
        assert step.done or step.reward == 0.0
        assert step.stop in (None, "goal", "missed", "illegal", "malformed")
        assert 0 <= step.view.at < 16
        assert all(cost in (UNKNOWN, true) for cost, true in zip(step.view.known, GROUND.costs, strict=True))
        assert (step.stop == "malformed") == (read_move(line, 4, style) is None)
        if step.done:
            break


# Worlds and trips.


@pytest.mark.parametrize("side", [3, 8, 14])
def test_costs_span_zero_to_the_maximum(side):
    for i in range(20):
        ground = draw_ground(stream("hills", side, i), side, 4, (0.15, 0.45))
        assert (min(ground.costs), max(ground.costs), len(ground.costs)) == (0, TOP, side**2)


def test_a_map_without_hills_has_zero_costs():
    assert set(draw_ground(stream("flat"), 8, 0, (0.15, 0.45)).costs) == {0}


@pytest.mark.parametrize("rounds", [1, 2, 3, 6])
def test_every_trip_has_a_route_of_exactly_its_rounds(rounds):
    for i in range(30):
        content = draw_trip(stream("wander", rounds, i), 5, rounds)
        assert content.start != content.goal
        route = best_route(5, np.ones(25, dtype=np.int64), content.start, content.goal, rounds)
        assert len(route.stops) == rounds
        assert route.stops[-1] == content.goal


@both_versions
def test_worlds_and_trips_fit_their_dials(id):
    domain = get_domain(id)
    for preset, dials in domain.presets.items():
        for index in range(10):
            pack = make_pack(id, preset, "train", index, 2)
            assert dials.side[0] <= pack.world.hidden.side <= dials.side[1]
            for task in pack.tasks:
                assert task.content.side == pack.world.hidden.side
                assert dials.rounds[0] <= task.content.rounds <= dials.rounds[1]


def contents(id, preset, split, packs=40):
    return {task.content for i in range(packs) for task in make_pack(id, preset, split, i, 4).tasks}


@pytest.mark.parametrize("preset", ["easy", "tiny"])
def test_train_and_held_out_trips_are_disjoint_in_v1(preset):
    train, dev = contents("grid-navigation-v1", preset, "train"), contents("grid-navigation-v1", preset, "dev")
    test = contents("grid-navigation-v1", preset, "test")
    assert not train & (dev | test)
    assert {content.split for content in train} == {"train"}
    assert {content.split for content in dev | test} == {"held-out"}


def test_v0_does_not_split_trips():
    assert {content.split for content in contents("grid-navigation-v0", "easy", "train")} == {"train", "held-out"}


def test_maps_of_different_packs_and_splits_differ():
    worlds = [
        make_pack("grid-navigation-v1", "easy", s, i, 1).world.hidden for s in ("train", "dev") for i in range(30)
    ]
    assert len(set(worlds)) == 60


def test_only_v1_excludes_trips_where_random_moves_are_nearly_optimal():
    def spreads(id):
        tasks = [task for i in range(60) for task in make_pack(id, "easy", "train", i, 4).tasks]
        references = [reference_costs(task.world.hidden, task.content) for task in tasks]
        return [reference.random - reference.least for reference in references]

    assert min(spreads("grid-navigation-v1")) >= V1.spread
    assert min(spreads("grid-navigation-v0")) < V1.spread


# The exact optimum, and the exact expected cost of random moves.


def all_routes(side, at, goal, rounds):
    """Return every route of this many rounds to the goal, as the cells it enters and the cells it stops on."""
    if rounds == 0:
        return [([], [])] if at == goal else []
    found = []
    for to in range(side * side):
        entered = entered_cells(side, at, to)
        if entered is not None:
            rest = all_routes(side, to, goal, rounds - 1)
            found += [([*entered, *cells], [to, *stops]) for cells, stops in rest]
    return found


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_the_best_route_is_the_best_of_all_routes_on_a_small_grid(rounds):
    for i in range(6):
        rng = stream("brute", rounds, i)
        costs = rng.integers(0, 100, 16) if i % 2 else draw_ground(rng, 4, 2, (0.15, 0.45)).array
        content = draw_trip(rng, 4, rounds)
        for paid in (Paid(), Paid(200, 3), Paid(1, 9)):
            means = [
                Fraction(paid.total + int(sum(costs[cells])), paid.count + len(cells))
                for cells, _ in all_routes(4, content.start, content.goal, rounds)
            ]
            route = best_route(4, costs, content.start, content.goal, rounds, paid)
            assert Fraction(route.paid.total, route.paid.count) == min(means)
            entered = [c for a, b in itertools.pairwise((content.start, *route.stops)) for c in entered_cells(4, a, b)]
            assert route.paid == Paid(paid.total + int(sum(costs[entered])), paid.count + len(entered))


def test_best_route_returns_none_without_a_route():
    assert best_route(4, GROUND.array, 0, 5, 1) is None
    assert best_route(4, GROUND.array, 0, 0, 1) is None


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_the_goal_is_in_reach_exactly_from_cells_with_a_route_to_it(rounds):
    for start, goal in itertools.product(range(16), repeat=2):
        assert in_reach(4, goal, rounds)[start] == bool(rounds > 3 or all_routes(4, start, goal, rounds))


def expected_mean(costs, side, at, goal, rounds, total, count):
    """Return the expected mean cost of random moves by definition."""
    if rounds == 0:
        return total / count
    paths = [entered_cells(side, at, to) for to in range(side * side)]
    paths = [p for p in paths if p is not None and has_route(side, p[-1], goal, rounds - 1)]
    means = [
        expected_mean(costs, side, p[-1], goal, rounds - 1, total + sum(costs[c] for c in p), count + len(p))
        for p in paths
    ]
    return sum(means) / len(paths)


def has_route(side, at, goal, rounds):
    straight = (at // side == goal // side) != (at % side == goal % side)
    return at == goal if rounds == 0 else straight if rounds == 1 else True


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_the_expected_cost_of_random_moves_matches_an_exhaustive_enumeration(rounds):
    for i in range(4):
        rng = stream("aimless", rounds, i)
        ground, content = draw_ground(rng, 4, 2, (0.15, 0.45)), draw_trip(rng, 4, rounds)
        slow = expected_mean(ground.costs, 4, content.start, content.goal, rounds, 0, 0)
        assert random_mean(ground, content) == pytest.approx(slow, abs=1e-9)


def test_move_costs_are_the_summed_costs_of_the_entered_cells():
    table, costs = moves(5), np.arange(25) ** 2 % 97
    move_costs = table.move_costs(costs)
    for at, move in itertools.product(range(25), range(8)):
        entered = entered_cells(5, at, int(table.to[at, move]))
        assert move_costs[at, move] == sum(costs[cell] for cell in entered)
        assert table.length[at, move] == len(entered)


# The scripted policies.


@both_versions
def test_the_informed_policy_earns_the_ceiling_on_every_task(id):
    for index in range(10):
        pack = make_pack(id, "hard", "dev", index, 3)
        for task in pack.tasks:
            reward = play(pack.domain.policy("informed", pack.world), task).reward
            assert reward == pytest.approx(pack.domain.ceiling(task), abs=1e-12)
            assert id.endswith("v0") or reward == pytest.approx(1.0)


def test_the_random_policy_earns_slightly_more_than_the_floor_of_v1():
    """The excess comes from clipping rewards at 0."""
    floor = get_domain("grid-navigation-v1").floor(make_pack("grid-navigation-v1", "easy", "dev", 0, 1).tasks[0])
    assert floor == pytest.approx(0.5)
    assert floor - 0.01 < curve("grid-navigation-v1", "random").mean() < floor + 0.06


def test_the_random_policy_always_arrives_and_earns_the_floor_of_v0_on_average():
    task = make_pack("grid-navigation-v0", "easy", "dev", 0, 1).tasks[0]
    policy = task.domain.policy("random", task.world)
    steps = [play(policy, task) for _ in range(1500)]
    rewards = np.array([step.reward for step in steps])
    assert {step.stop for step in steps} == {"goal"}
    assert abs(rewards.mean() - task.domain.floor(task)) < 4 * rewards.std() / len(rewards) ** 0.5


def test_the_random_policy_moves_even_if_the_goal_is_out_of_reach():
    view = View(Trip(4, 0, 5, 1), 0, 0, Paid(), bytes([UNKNOWN]) * 16, "compact")
    assert make_env(content=view.trip).step(Random(stream("lost")).act(view)).stop == "missed"


def curve(id, policy_name, packs=60, size=4, preset="easy"):
    """Return a policy's mean reward by position."""
    rewards = []
    for index in range(packs):
        pack = make_pack(id, preset, "dev", index, size)
        policy, memory = pack.domain.policy(policy_name, pack.world), pack.domain.make_memory(pack.world)
        rewards.append([play(policy, task, memory=memory).reward for task in pack.tasks])
    return np.mean(rewards, axis=0)


def test_v0_reproduces_the_papers_figures():
    """Within the noise of 60 packs: optimum 0.925, random moves 0.69, adaptive policy from 0.79 to 0.91."""
    assert curve("grid-navigation-v0", "informed").mean() == pytest.approx(0.925, abs=0.02)
    assert curve("grid-navigation-v0", "random").mean() == pytest.approx(0.69, abs=0.03)
    assert curve("grid-navigation-v0", "bayes") == pytest.approx([0.79, 0.86, 0.90, 0.91], abs=0.04)
    assert curve("grid-navigation-v0", "informed", 30, preset="sight").mean() == pytest.approx(0.97, abs=0.02)


def test_the_adaptive_policy_improves_over_a_life_in_v1():
    learned = curve("grid-navigation-v1", "bayes")
    assert learned[-1] - learned[0] > 0.2
    assert learned[-1] > 0.85


# Contexts: their claims, and their worth to a policy that reads only text.


class TextPolicy:
    """Acts on the text of the prompt and the observations alone, as a model does."""

    def __init__(self, prompt, rng):
        side, rounds = map(int, re.search(r"grid (\d+) rounds (\d+)", prompt.system).groups())
        start, goal = (read_name(word, side) for word in re.search(r"at (\S+) goal (\S+)", prompt.user).groups())
        self.policy = AdaptivePolicy(side, Random(rng))
        self.policy.read(prompt.system + "\n" + prompt.user)
        self.view = View(Trip(side, start, goal, rounds), start, 0, Paid(), bytes([UNKNOWN]) * side**2, "compact")

    def act(self):
        return self.policy.act(self.view)

    def observe(self, observation):
        side, known = self.view.trip.side, self.policy.known
        known.update(read_costs(observation, side))
        at = read_name(observation.split()[0], side)
        entered = [known[cell] for cell in entered_cells(side, self.view.at, at)]
        paid = Paid(self.view.paid.total + sum(entered), self.view.paid.count + len(entered))
        self.view = replace(self.view, at=at, turn=self.view.turn + 1, paid=paid)


def rollout(pack, contexts, log=lambda line: None):
    """Roll out a life by text alone and return its rewards; if `contexts` is None, note every cost that was read."""
    rewards, context = [], ""
    for j, task in enumerate(pack.tasks):
        context = context if contexts is None else contexts[j]
        env, side = task.env(style="compact"), task.content.side
        prompt = Rewrite().solve(task.domain.rules_text(task, "compact"), context, env.observe(), "compact")
        policy, step, read = TextPolicy(prompt, stream("reader", j)), None, f"{prompt.system}\n{prompt.user}"
        log(read)
        while step is None or not step.done:
            reply = policy.act()
            step = env.step(reply)
            policy.observe(step.observation)
            read += f"\n{step.observation}"
            log(f"> {reply}\n{step.observation}")
        log(f"{step.feedback}, reward {step.reward:.2f}")
        rewards.append(step.reward)
        context = " ".join(f"{name(cell, side)}={cost}" for cell, cost in sorted(read_costs(read, side).items()))
        assert len(context) <= Rewrite().cap
    return rewards


def test_the_life_in_the_docs_matches_a_real_run():
    lines = []
    rollout(make_pack("grid-navigation-v1", "tiny", "dev", 8, 2), None, lines.append)
    assert "\n".join(lines) in DOCS.read_text()


@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_the_true_map_and_the_policys_own_notes_both_raise_the_reward(preset):
    packs = [make_pack("grid-navigation-v1", preset, "dev", i, 4) for i in range(25)]
    null = np.mean([rollout(pack, [""] * 4) for pack in packs], axis=0)
    oracle = np.mean([rollout(pack, [pack.domain.oracle_context(pack.world, "compact")] * 4) for pack in packs], axis=0)
    own = np.mean([rollout(pack, None) for pack in packs], axis=0)
    assert oracle == pytest.approx(np.ones(4))
    assert np.all(oracle - null > 0.15)
    assert own[0] == null[0]
    assert own[-1] - null[-1] > 0.15


@pytest.mark.parametrize("style", ["natural", "compact"])
def test_the_oracle_context_of_the_largest_grid_fits_the_cap(style):
    ground = Ground(16, bytes([99]) * 256)
    assert len(get_domain("grid-navigation-v0").oracle_context(World(ground, TINY), style)) < Rewrite().cap


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [
        ("", 0, 0),
        ("b1=10 c1=20", 2, 0),
        ("b1=15 c1=26", 1, 1),
        ("b1: 10, B2 costs 2; c2 is 3", 3, 0),
        ("cell d3 = 80", 1, 0),
        ("b1=10 b1=10 b1=90", 2, 1),
        ("e1=5 a5=5", 0, 2),
        ("b1=100", 0, 0),
        ("go to b1 and c1, 10 moves", 0, 0),
        ("the top row is dear", 0, 0),
        ("b1 10", 0, 0),
    ],
)
def test_facts_counts_each_claim_of_a_cell_and_a_cost(context, right, wrong):
    assert get_domain("grid-navigation-v1").facts(World(GROUND, TINY), context) == (right, wrong, 16)


words = st.lists(
    st.sampled_from(["a1", "=", "7", "99", "p16", " ", "costs ", "is ", ":", "\n", "٣", "\u212a", "\u0131"])
)


@given(text | words.map("".join))
def test_facts_accepts_any_context(context):
    right, wrong, knowable = get_domain("grid-navigation-v1").facts(World(GROUND, TINY), context)
    assert right >= 0
    assert wrong >= 0
    assert knowable == 16
    assert all(0 <= cell < 16 and 0 <= cost <= 99 for cell, cost in read_costs(context, 4).items())


@both_styles
@given(costs=st.dictionaries(st.integers(0, 15), st.integers(0, 99)))
def test_written_costs_are_read_back(style, costs):
    domain = get_domain("grid-navigation-v1")
    written = domain.note((write_claim(cell, cost, 4) for cell, cost in sorted(costs.items())), style)
    assert read_costs(written, 4) == costs
    assert len(written.splitlines()) == (bool(costs) if style == "compact" else 0 if not costs else 1 + rows(costs))


def rows(cells):
    return len({cell // 4 for cell in cells})


@both_styles
@pytest.mark.parametrize("name", ["random", "bayes"])
def test_readers_of_the_true_map_reach_informed(name, style):
    for pack in [make_pack("grid-navigation-v1", "easy", "dev", index, 3) for index in range(3)]:
        context = pack.domain.oracle_context(pack.world, style)
        assert life(pack, name, context, style) == pytest.approx([1.0] * 3)


@both_styles
@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_notes_carry_all_that_bayes_knows_to_a_new_bayes(preset, style):
    pack = make_pack("grid-navigation-v1", preset, "dev", 2, 4)
    assert noted_life(pack, style=style) == life(pack, "bayes", style=style)


def test_a_reader_assumes_the_mean_of_the_claims_elsewhere():
    policy = get_domain("grid-navigation-v1").policy("random", World(GROUND, TINY))
    policy.read("b1=10, c2 costs 21; p9=50 (off the grid)")
    assert policy.costs(make_env().view).tolist() == [16, 10, *[16] * 4, 21, *[16] * 9]


def test_bayes_trusts_what_it_sees_over_what_it_reads():
    env, policy = make_env(), get_domain("grid-navigation-v1").policy("bayes", World(GROUND, TINY))
    policy.read("a2=77 d4=5 b2=77")
    env.step("to a2")
    policy.act(env.view)
    notes = policy.notes("compact")
    assert (notes["a2"], notes["b2"], notes["d4"]) == ("a2=1", "b2=2", "d4=5")


def test_a_guess_is_a_cost_of_its_cell_and_rarely_right():
    domain, world, rng = get_domain("grid-navigation-v1"), World(GROUND, TINY), stream("guess")
    guesses = [domain.guess(world, "c3", "compact", rng) for _ in range(300)]
    costs = [cost for guess in guesses for cell, cost in read_costs(guess, 4).items() if cell == read_name("c3", 4)]
    assert len(costs) == 300
    assert 0 <= min(costs) < 5
    assert 95 < max(costs) <= 99
    assert np.mean([domain.facts(world, guess)[0] for guess in guesses]) < 0.25


@both_styles
@given(context=text | words.map("".join))
def test_any_context_can_be_read_and_played_from(style, context):
    for kind in ("random", "bayes"):
        policy, env = get_domain("grid-navigation-v1").policy(kind, World(GROUND, TINY)), make_env(style=style)
        policy.read(context)
        assert env.step(policy.act(env.view)).stop is None


@pytest.mark.parametrize("filler", ["a1=7 ", "a", "1", "a1 ", "a1 costs ", "= ", "\n"])
def test_a_huge_context_is_read_in_linear_time(filler):
    start = time.process_time()
    get_domain("grid-navigation-v1").policy("bayes", World(GROUND, TINY)).read(filler * (200_000 // len(filler)))
    assert time.process_time() - start < 2


def test_a_view_can_be_drawn():
    env = make_env()
    assert get_domain("grid-navigation-v1").draw(env.view) == draw(env.view)


# Version differences, one switch at a time.


def domain_with(rules):
    return GridNavigation("grid-of-this-test", rules, {"tiny": TINY})


def test_each_switch_of_the_rules_has_its_own_effect():
    world = World(GROUND, TINY, "train")
    drawn = {
        rules: {domain_with(rules).make_task(world, 0, stream("switch", i)) for i in range(60)}
        for rules in (V0, replace(V0, split_trips=True), replace(V0, spread=5.0))
    }
    assert {t.split for t in drawn[V0]} == {"train", "held-out"}
    assert {t.split for t in drawn[replace(V0, split_trips=True)]} == {"train"}
    references = {rules: [reference_costs(GROUND, t) for t in drawn[rules]] for rules in drawn}
    lowest = {rules: min(r.random - r.least for r in references[rules]) for rules in drawn}
    assert lowest[V0] < 5 <= lowest[replace(V0, spread=5.0)]
    assert V0.reward(GROUND, TRIP, 40.0) == pytest.approx(0.6)
    assert replace(V0, random_reward=0.2).reward(GROUND, TRIP, reference_costs(GROUND, TRIP).random) == pytest.approx(
        0.2
    )
