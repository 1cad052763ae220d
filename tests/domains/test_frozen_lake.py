"""Tests of FrozenLake-Obscure: moves, rewards, ends, hidden codes, splits, versions, and the exact optimum."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.rng import stream
from codots.domains.base import World
from codots.domains.frozen_lake import TINY, V0, V1, FrozenLake
from codots.domains.frozen_lake.board import DIRECTIONS, Board, distances, good_directions, name, quirky_reach
from codots.domains.frozen_lake.env import (
    CODES,
    DEFAULT,
    FEEDBACK,
    Dials,
    LakeEnv,
    View,
    compact_board,
    draw,
    read_code,
    write_code,
)
from codots.domains.frozen_lake.policies import Bayes
from codots.domains.registry import get_domain, make_pack

DOCS = Path(__file__).parents[2] / "docs/domains/frozen_lake.md"
both_styles = pytest.mark.parametrize("style", ["natural", "compact"])
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)

# a1 S _  _      The start, a hole below it, the goal in the opposite corner.
#    2 O  _
#    3 _  _  G
BOARD = Board(3, frozenset({(1, 0)}), (0, 0), (2, 2))
STANDARD = ("left", "down", "right", "up")


def make_env(board=BOARD, mapping=STANDARD, rules=V1, turns=6, style="compact"):
    return LakeEnv(board, mapping, rules, turns, style)


def walk(env, directions):
    """Move in these directions and return the last step."""
    for direction in directions:
        step = env.step(write_code(CODES[env.mapping.index(direction)], direction, env.style))
    return step


def worlds(domain, dials, mappings=None):
    return [World(mapping, dials, "dev", ("test", i)) for i, mapping in enumerate(mappings or dials.mappings)]


# Moves and rewards.


@both_styles
@pytest.mark.parametrize("turns", [4, 5, 8, 10])
def test_reaching_the_goal_at_turn_k_of_h_earns_one_minus_a_tenth_of_k_over_h(turns, style):
    direct = ["right", "right", "down", "down"]
    assert walk(make_env(turns=turns, style=style), direct).reward == pytest.approx(1 - 0.1 * 4 / turns)
    if turns > 5:
        late = walk(make_env(turns=turns, style=style), ["up", "left", *direct])
        assert late.reward == pytest.approx(1 - 0.1 * 6 / turns)


@both_styles
@pytest.mark.parametrize(
    ("directions", "stop"),
    [
        (["right", "right", "down", "down"], "goal"),
        (["down"], "hole"),
        (["up"] * 6, "late"),
        (["right", "left"] * 3, "late"),
    ],
)
def test_every_end_has_a_stop_reason_and_only_the_goal_is_rewarded(directions, stop, style):
    env = make_env(style=style)
    for direction in directions[:-1]:
        step = walk(env, [direction])
        assert (step.done, step.stop, step.reward, step.feedback) == (False, None, 0.0, "")
    last = walk(env, directions[-1:])
    assert (last.done, last.stop) == (True, stop)
    assert (last.reward > 0) == (stop == "goal")
    assert last.feedback == (stop if style == "compact" else FEEDBACK[stop])


@both_styles
def test_malformed_text_ends_the_episode_without_a_move(style):
    env = make_env(style=style)
    walk(env, ["right"])
    step = env.step("to the right")
    assert (step.done, step.stop, step.reward, step.observation) == (True, "malformed", 0.0, "")
    assert step.view.at == (0, 1)


def test_goal_and_hole_take_precedence_over_late_at_the_last_turn():
    assert walk(make_env(turns=4), ["right", "right", "down", "down"]).stop == "goal"
    assert walk(make_env(turns=1), ["down"]).stop == "hole"


def test_a_move_stays_in_place_at_the_edge_and_moves_one_cell_elsewhere():
    for cell, direction in itertools.product(itertools.product(range(3), repeat=2), DIRECTIONS):
        row, col = cell[0] + DIRECTIONS[direction][0], cell[1] + DIRECTIONS[direction][1]
        inside = 0 <= row <= 2 and 0 <= col <= 2
        assert BOARD.move(cell, direction) == ((row, col) if inside else cell)


@both_styles
def test_a_move_against_the_edge_costs_a_turn_and_is_reported(style):
    step = walk(make_env(style=style), ["up"])
    assert ("stays" if style == "compact" else "left you at a1: the edge") in step.observation
    assert (step.view.at, step.view.turn) == ((0, 0), 1)


@both_styles
@pytest.mark.parametrize("mapping", list(itertools.permutations(DEFAULT))[::5])
def test_a_code_moves_in_the_direction_of_the_hidden_mapping(mapping, style):
    board = Board(3, frozenset(), (1, 1), (0, 0))
    for code, direction in zip(CODES, mapping, strict=True):
        step = make_env(board, mapping, style=style).step(write_code(code, "anywhere", style))
        assert step.view.at == (1 + DIRECTIONS[direction][0], 1 + DIRECTIONS[direction][1])
        assert re.search(rf"\b{direction}\b", step.observation)


# Observations and rules.


def test_observations_show_the_board():
    assert draw(make_env().view) == "  a b c\n1 P _ _\n2 O _ _\n3 _ _ G"
    assert compact_board(make_env().view) == "_a1 _b1 _c1 Oa2 _b2 _c2 _a3 _b3 Gc3\na1"
    env = make_env(style="natural")
    assert env.observe().startswith("Move 1 of 6.\n")
    assert env.observe().endswith("You are at a1, the goal is at c3.")
    assert "Move 2 of 6." in walk(env, ["right"]).observation


@both_styles
def test_rules_and_opening_do_not_depend_on_the_mapping(style):
    domain, task = get_domain("frozen-lake-v1"), make_pack("frozen-lake-v1", "easy", "dev", 0, 1).tasks[0]
    seen = set()
    for world in worlds(domain, task.world.dials):
        other = replace(task, world=world)
        seen.add((domain.rules_text(other, style), other.env(style=style).observe()))
    assert len(seen) == 1


@both_styles
def test_only_the_natural_style_of_v0_advises_exploration(style):
    for id in ("frozen-lake-v0", "frozen-lake-v1"):
        task = make_pack(id, "easy", "dev", 0, 1).tasks[0]
        advised = "later tasks" in task.domain.rules_text(task, style)
        assert advised == (id == "frozen-lake-v0" and style == "natural")


@both_styles
def test_no_feedback_reveals_the_mapping(style):
    for stop, directions in {"goal": ["right", "right", "down", "down"], "hole": ["down"], "late": ["up"] * 6}.items():
        ends = {walk(make_env(mapping=m, style=style), directions).feedback for m in itertools.permutations(DEFAULT)}
        assert len(ends) == 1, stop
    assert len({make_env(mapping=m, style=style).step("").feedback for m in itertools.permutations(DEFAULT)}) == 1


# Parsing replies.


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("<action>1</action>", "1"),
        ("I think <action>\n 4 \n</action> is right", "4"),
        ("<action>5</action>", None),
        ("<action>12</action>", None),
        ("<action>1 2</action>", None),
        ("<action></action>", None),
        ("<action>1</action><action>1</action>", None),
        ("the <action> tag: <action>1</action>", None),
        ("<action>1</action></action>", None),
        ("</action><action>1", None),
        ("</action>1<action>", None),
        ("<ACTION>1</ACTION>", None),
        ("1", None),
        ("<action>²</action>", None),
        ("<action>\uff11</action>", None),
    ],
)
def test_natural_requires_exactly_one_code_in_exactly_one_pair_of_tags(reply, code):
    assert read_code(reply, "natural") == code


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("right 3", "3"),
        ("3", "3"),
        (" up 1 \n", "1"),
        ("3 right", None),
        ("right 5", None),
        ("right3", None),
        ("", None),
    ],
)
def test_compact_reads_the_last_word(reply, code):
    assert read_code(reply, "compact") == code


@both_styles
@given(before=text, code=st.sampled_from(CODES), after=text)
def test_a_written_code_is_read_back_from_any_surrounding_text(style, before, code, after):
    reply = f"{before} {write_code(code, 'up', style)}" + (f" {after}" if style == "natural" else "")
    if "action>" not in before + after:
        assert read_code(reply, style) == code


@both_styles
@given(reply=text | st.lists(st.sampled_from(["<action>", "</action>", "1", "5", " ", "\n", "up", "٣"])).map("".join))
def test_any_text_is_either_a_code_or_malformed(style, reply):
    code = read_code(reply, style)
    step = make_env(style=style).step(reply)
    assert code in (None, *CODES)
    assert (step.stop == "malformed") == (code is None)


# Worlds and boards.


@pytest.mark.parametrize(("hidden", "count"), [(0, 1), (2, 2), (3, 6), (4, 24)])
def test_the_hidden_dial_sets_the_number_of_mappings(hidden, count):
    dials = replace(TINY, hidden=hidden)
    assert len(set(dials.mappings)) == len(dials.mappings) == count
    for mapping in dials.mappings:
        assert sorted(mapping) == sorted(DEFAULT)
        assert mapping[hidden:] == DEFAULT[hidden:]


@both_styles
@pytest.mark.parametrize("hidden", [0, 2, 3, 4])
def test_the_rules_list_exactly_the_codes_that_are_not_secret(hidden, style):
    domain = FrozenLake("lake-of-this-test", V1, {"p": replace(TINY, hidden=hidden)})
    task = replace(make_pack("frozen-lake-v1", "tiny", "dev", 0, 1).tasks[0], domain=domain)
    world = World(domain.presets["p"].mappings[0], domain.presets["p"], "dev", ())
    rules = domain.rules_text(replace(task, world=world), style)
    for code, direction in zip(CODES, DEFAULT, strict=True):
        shown = re.search(rf"{code}(=| moves you ){direction}\b", rules)
        assert bool(shown) == (CODES.index(code) >= hidden)


def test_mappings_are_drawn_uniformly():
    domain = get_domain("frozen-lake-v1")
    drawn = [domain.make_world(stream("uniform", i), domain.presets["easy"]) for i in range(2400)]
    counts = np.array([drawn.count(mapping) for mapping in domain.presets["easy"].mappings])
    assert ((counts - 100) ** 2 / 100).sum() < 49.7  # the 0.1% point of chi-square with 23 degrees of freedom


def boards(id, preset, split, packs=40, size=4):
    return [task.content for i in range(packs) for task in make_pack(id, preset, split, i, size).tasks]


@pytest.mark.parametrize("preset", ["easy", "hard", "tiny"])
def test_every_board_of_v1_is_solvable_and_fits_its_dials(preset):
    dials = get_domain("frozen-lake-v1").presets[preset]
    for board in boards("frozen-lake-v1", preset, "test"):
        assert dials.side[0] <= board.side <= dials.side[1]
        assert 2 <= distances(board)[board.start] <= dials.path <= dials.turns
        assert not {board.start, board.goal} & board.holes
        assert board.start != board.goal


@pytest.mark.parametrize("preset", ["easy", "hard", "tiny"])
def test_train_and_held_out_boards_are_disjoint(preset):
    train = set(boards("frozen-lake-v1", preset, "train"))
    held_out = set(boards("frozen-lake-v1", preset, "dev")) | set(boards("frozen-lake-v1", preset, "test"))
    assert not train & held_out
    assert {board.split for board in train} == {"train"}
    assert {board.split for board in held_out} == {"held-out"}


def test_the_split_of_a_board_depends_only_on_its_content():
    scrambled = Board(3, frozenset(sorted(BOARD.holes, reverse=True)), BOARD.start, BOARD.goal)
    assert scrambled.split == BOARD.split
    changed = [replace(BOARD, holes=frozenset({cell})) for cell in itertools.product(range(3), repeat=2)]
    assert {board.split for board in changed} == {"train", "held-out"}


# Version differences, one switch at a time.


def draw_boards(rules, split="train", packs=60):
    domain = FrozenLake("lake-of-this-test", rules, {"easy": get_domain("frozen-lake-v1").presets["easy"]})
    world = World(DEFAULT, domain.presets["easy"], split, ())
    return [domain.make_task(world, 0, stream("switch", i)) for i in range(packs)]


def shortest(board):
    return distances(board)[board.start]


def test_v0_has_boards_with_one_step_paths_and_v1_has_none():
    assert min(map(shortest, draw_boards(V0))) == 1
    assert min(map(shortest, draw_boards(V1))) == 2
    assert min(map(shortest, draw_boards(replace(V1, shortest=3)))) == 3


def test_the_papers_filter_rejects_some_boards_that_a_shortest_path_search_accepts():
    # 1 O P _   Three steps: down, left, down. The depth-first search goes right first, reaches b2 from c2 at depth
    # 2 _ _ _   three, its maximum depth, and never visits b2 again.
    # 3 G _ _
    board, dials = Board(3, frozenset({(0, 0)}), (0, 1), (2, 0)), Dials(side=(3, 3), path=4, turns=8)
    assert distances(board)[board.start] == 3
    assert not quirky_reach(board, dials.path - 1)
    for quirky_filter in (True, False):
        domain = FrozenLake("lake-of-this-test", replace(V1, quirky_filter=quirky_filter), {})
        assert domain._accept(board, dials) != quirky_filter


def test_the_papers_filter_never_accepts_a_board_with_too_long_a_path():
    rng, kept = stream("filter"), 0
    for _ in range(500):
        board = get_domain("frozen-lake-v1")._draw_board(rng, 4, 0.65)
        if quirky_reach(board, 3):
            kept += 1
            assert distances(board)[board.start] <= 4
    assert kept > 100


def test_v0_does_not_split_boards_and_v1_does():
    assert {board.split for board in draw_boards(V0, "train")} == {"train", "held-out"}
    assert {board.split for board in draw_boards(V1, "train")} == {"train"}
    assert {board.split for board in draw_boards(replace(V1, split_boards=False), "dev")} == {"train", "held-out"}


def update_prompt(rules, style, directions):
    """Return the text of the update prompt after these moves."""
    env, turns = make_env(rules=rules, style=style), []
    observation = env.observe()
    for direction in directions:
        reply = write_code(CODES[env.mapping.index(direction)], direction, style)
        step = env.step(reply)
        turns.append(Turn(observation, reply))
        observation = step.observation
    trajectory = Trajectory("rules", tuple(turns), step.observation, step.reward, step.feedback)
    return Rewrite().prompt(trajectory, "", style).user


@both_styles
@pytest.mark.parametrize("directions", [["right", "down", "right", "down"], ["right", "left", "down"], ["up"] * 6])
def test_the_updater_sees_the_effect_of_the_last_move_only_in_v1(directions, style):
    env = make_env(style=style)
    effect = walk(env, directions).observation
    assert effect
    if style == "compact":
        assert effect.startswith(name(env.view.at))
    v1, v0 = (update_prompt(rules, style, directions) for rules in (V1, V0))
    assert f"\n{effect}\n" in v1
    assert v1.replace(effect, "").split()[-3:] == v0.split()[-3:]
    if directions[-1] != directions[0]:
        assert effect not in v0


# The scripted policies.


def expectimax(board, at, belief, turn, turns):
    """Return the highest expected reward by definition, without pruning or caching."""
    if turn == turns:
        return 0.0
    best = 0.0
    for i in range(len(CODES)):
        value = 0.0
        for to in {board.move(at, mapping[i]) for mapping in belief}:
            remaining = [mapping for mapping in belief if board.move(at, mapping[i]) == to]
            if to == board.goal:
                after = 1 - 0.1 * (turn + 1) / turns
            else:
                after = 0.0 if to in board.holes else expectimax(board, to, remaining, turn + 1, turns)
            value += len(remaining) / len(belief) * after
        best = max(best, value)
    return best


def play(policy, board, mapping, turns):
    """Play one episode and return its reward."""
    env = make_env(board, mapping, turns=turns)
    step = None
    while step is None or not step.done:
        step = env.step(policy.act(env.view))
    policy.end(step)
    return step.reward


@pytest.mark.parametrize(("hidden", "turns", "packs"), [(0, 5, 4), (2, 5, 4), (3, 4, 4), (4, 4, 4)])
def test_bayes_earns_exactly_the_reward_of_an_exhaustive_search(hidden, turns, packs):
    dials = replace(TINY, hidden=hidden, turns=turns)
    for board in boards("frozen-lake-v1", "tiny", "dev", packs=packs, size=1):
        slow = expectimax(board, board.start, dials.mappings, 0, turns)
        rewards = [play(Bayes(dials), board, mapping, turns) for mapping in dials.mappings]
        assert np.mean(rewards) == pytest.approx(slow, abs=1e-12)


def test_bayes_with_earlier_tasks_earns_the_reward_of_an_exhaustive_search_from_the_same_belief():
    dials = replace(TINY, turns=4)
    first, second = boards("frozen-lake-v1", "tiny", "dev", packs=2, size=1)
    groups = {}
    for mapping in dials.mappings:
        policy = Bayes(dials)
        play(policy, first, mapping, 4)
        groups.setdefault(tuple(policy.mappings), []).append(play(policy, second, mapping, 4))
    assert len(groups) > 1
    for belief, rewards in groups.items():
        assert len(rewards) == len(belief)
        assert np.mean(rewards) == pytest.approx(expectimax(second, second.start, belief, 0, 4), abs=1e-12)


def test_bayes_keeps_the_true_mapping_and_finally_identifies_it():
    for index in range(12):
        pack = make_pack("frozen-lake-v1", "easy", "dev", index, 6)
        policy = pack.domain.policy("bayes", pack.world)
        for task in pack.tasks:
            play(policy, task.content, pack.world.hidden, 8)
            assert pack.world.hidden in policy.mappings
        assert policy.mappings == [pack.world.hidden]


def test_the_floor_is_the_mean_reward_of_uniform_draws():
    task = make_pack("frozen-lake-v1", "tiny", "dev", 0, 1).tasks[0]
    world = task.world
    policy = task.domain.policy("random", world)
    rewards = np.array([play(policy, task.content, world.hidden, world.dials.turns) for _ in range(4000)])
    assert abs(rewards.mean() - task.domain.floor(task)) < 4 * rewards.std() / len(rewards) ** 0.5


def test_good_directions_lead_closer_to_the_goal():
    assert good_directions(BOARD, (0, 0)) == ["right"]
    assert good_directions(BOARD, (0, 1)) == ["down", "right"]
    assert good_directions(BOARD, (2, 0)) == ["right"]


# Claims in contexts.


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [
        ("", 0, 0),
        ("1 left 2 down", 2, 0),
        ("1=left 2=up 4=up", 2, 1),
        ("1 -> LEFT; 2 = up", 1, 1),
        ("- code 1 moves you left\n- code 3 moves you right", 2, 0),
        ("Code 1 surely goes left.", 1, 0),
        ("1 left 1 left 1 up", 2, 1),
        ("a1 is the start, b3 down", 0, 0),
        ("12 left, 5 up, 10 down", 0, 0),
        ("left right up down", 0, 0),
        ("1 2 up", 0, 1),
    ],
)
def test_facts_counts_each_claim_of_a_code_and_a_direction(context, right, wrong):
    world = World(STANDARD, TINY)
    assert get_domain("frozen-lake-v1").facts(world, context) == (right, wrong, 4)


words = st.lists(
    st.sampled_from(["1", "4", "5", "code", "up", "RIGHT", "moves", "->", ":", "\n", "b3", "\u0131", "\u212a"])
)


def test_the_life_in_the_docs_matches_a_real_run():
    pack = make_pack("frozen-lake-v1", "easy", "dev", 3, 3)
    policy, notes, lines = pack.domain.policy("bayes", pack.world), "", []
    for task in pack.tasks:
        env, step = task.env(style="compact"), None
        lines += [pack.domain.rules_text(task, "compact"), f"notes {notes}".strip(), env.observe()]
        while step is None or not step.done:
            reply = policy.act(env.view)
            step = env.step(reply)
            lines += [f"> {reply}", step.observation]
        policy.end(step)
        lines.append(f"{step.feedback}, reward {step.reward:.2f}")
        known = {code: {mapping[i] for mapping in policy.mappings} for i, code in enumerate(CODES)}
        notes = " ".join(f"{code}={min(found)}" for code, found in known.items() if len(found) == 1)
    assert "\n".join(lines) in DOCS.read_text()


def test_a_view_can_be_drawn():
    assert get_domain("frozen-lake-v1").draw(View(BOARD, (0, 1), 1, 6, "natural")) == draw(
        View(BOARD, (0, 1), 1, 6, "x")
    )
