"""Tests of optimal control: safe parsing, exact runs, the optimal policy, and the gain from knowledge."""

import itertools
import math
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.rng import stream
from codots.domains.base import World
from codots.domains.optimal_control import EASY, REFERENCE, TINY, V0, V1, OptimalControl
from codots.domains.optimal_control.env import ControlEnv, Last, Memory, View, read_reply, write_reply
from codots.domains.optimal_control.law import DEPTH, LENGTH, LawError, push, read_law
from codots.domains.optimal_control.notes import CLOSE, Estimate, read_claims, read_estimate, write_claim
from codots.domains.optimal_control.point import STEER, Fit, Goal, Plant, constant_law, least_loss, loss, plan, run
from codots.domains.optimal_control.policies import CAUTIOUS, best_law
from codots.domains.registry import get_domain, make_pack
from tests.domains.reading import hostile_text, last_rewards, life, noted_life, play

DOCS = Path(__file__).parents[2] / "docs/domains/optimal_control.md"
IDS = ("optimal-control-v0", "optimal-control-v1")
both_versions = pytest.mark.parametrize("id", IDS)
STATE = {"x": 1.5, "v": -0.5, "t": 3.0, "x_target": 2.0, "v_target": 0.0, "horizon": 12.0, "remaining_steps": 9.0}
PLANT, GOAL = Plant(0.9, -1.1), Goal(0.5, 0.2, 2.0, 0.0, 4, 0.03)
NO_GUSTS = (0.0,) * 20
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def env(rules=V1, plant=PLANT, goal=GOAL, dials=EASY, gusts=NO_GUSTS, memory=None):
    return ControlEnv(plant, goal, rules, dials, gusts, memory)


def reply_with(law, rules=V1):
    return write_reply(law, "Hm.", rules.strict_reply)


def value_of(law, **changes):
    return push(read_law(law), {**STATE, **changes})


def sample_tasks(id, preset, packs, size=1, split="dev"):
    return [task for i in range(packs) for task in make_pack(id, preset, split, i, size).tasks]


def numbers(text):
    return {claim.name: claim.value for claim in read_claims(text)}


def curve(id, name, preset, packs, size=2):
    rewards = []
    for index in range(packs):
        pack = make_pack(id, preset, "dev", index, size)
        policy = pack.domain.policy(name, pack.world)
        rewards.append([])
        for task in pack.tasks:
            opened = task.env()
            step = opened.step(policy.act(opened.view))
            policy.end(step)
            rewards[-1].append(step.reward)
    return np.mean(rewards, axis=0)


# The law language.


@pytest.mark.parametrize(
    ("law", "value"),
    [
        ("1 + 2 * 3 - 8 / 4", 5),
        ("-2 ** 2", -4),
        ("2 ** -1", 0.5),
        ("2 ** 3 ** 2", 512),
        ("- -+3", 3),
        ("(1 + 2) * .5e1", 15),
        ("10 - 4 - 3", 3),
        ("x * v + t", 2.25),
        ("x_target - x", 0.5),
        ("1 if t < 2 else 2 if t < 4 else 3", 2),
        ("(1 if 0 < x < 2 else 0) + (1 if 2 > t == 3 else 0)", 1),
        ("1 if not v > 0 and x or 0 else 2", 1),
        ("0 or 7", 7),
        ("3 and 7", 7),
        ("ifelse(lt(t, 3), 1, ifelse(ge(t, 3), 2, 1 / 0))", 2),
        ("1 / 0 if 0 else 4", 4),
        ("max(1, x, 2) + min(v, 0) + abs(v) + pow(2, 3) + clip(9, -1, 1)", 11),
        ("(1 < 2) + (2 < 3)", 2),
        ("horizon - remaining_steps\n - t", 0),
        ("min(1e308 * 10, 1)", 1),
    ],
)
def test_law_value(law, value):
    assert value_of(law) == pytest.approx(value)


@pytest.mark.parametrize(
    "law",
    [
        "",
        "u = 1",
        "1 +",
        "2x",
        "1 2",
        "(1",
        "1)",
        "a",
        "penalty",
        "__import__('os')",
        "x.__class__",
        "x[0]",
        "lambda: 1",
        "[x for x in x]",
        "'text'",
        "True",
        "nan",
        "inf",
        "1e999",
        "1j",
        "0x10",
        "1_000",
        "\u0663 + \u00b2",
        "\uff58",
        "abs(1, 2)",
        "abs()",
        "clip(1, 2)",
        "ifelse(1, 2)",
        "max()",
        "abs",
        "abs(x=1)",
        "min(*x)",
        "x if 1",
        "not",
        "1 if 2 else",
        "1 ** ** 2",
        "5 % 2",
        "7 // 2",
        "1 & 2",
        "x := 2",
        "1; 2",
        "steer(1, 1)",
        "# hm",
        "(" * DEPTH + "1" + ")" * DEPTH,
        "-" * DEPTH + "1",
        "not " * DEPTH + "1",
        "2 ** " * DEPTH + "1",
        "1" * (LENGTH + 1),
    ],
)
def test_invalid_law_raises_a_short_error(law):
    with pytest.raises(LawError) as error:
        read_law(law)
    assert 0 < len(str(error.value)) < 200
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("law", ["1 / 0", "0 ** -1", "(-8) ** 0.5", "9.0 ** 999", "1 < 2", "1e308 * 10", "not x"])
def test_law_without_a_finite_value_fails(law):
    with pytest.raises((ArithmeticError, ValueError)):
        value_of(law)
    step = env().step(reply_with(law))
    assert (step.stop, step.reward) == ("failed", 0.0)


@pytest.mark.parametrize(
    "law",
    [
        "(" * (DEPTH - 2) + "1" + ")" * (DEPTH - 2),
        "1" + " + 1" * 400,
        "1 if 0 else " * 150 + "1",
        "0 or " * 300 + "1",
        "1 if 1" + " < 2" * 300 + " else 0",
        "9 ** 9 ** 9 ** 9 ** 9",
        "((1<2)+(1<2)) ** " * 20 + "2",
    ],
)
def test_long_deep_and_growing_laws_run_quickly(law):
    plan(PLANT, GOAL)  # import scipy before timing
    start = time.process_time()
    step = env().step(reply_with(law))
    assert step.stop in ("done", "failed")
    assert time.process_time() - start < 1


def compound(law):
    """Combine expressions into larger ones."""
    pair, triple = st.tuples(law, law), st.tuples(law, law, law)
    return (
        st.tuples(law, st.sampled_from("+-*/"), law).map(lambda p: f"({p[0]} {p[1]} {p[2]})")
        | triple.map(lambda p: f"{p[0]} - -{p[1]} * {p[2]}")
        | triple.map(lambda p: f"({p[0]} if {p[1]} < 1 != {p[2]} else {p[1]})")
        | triple.map(lambda p: f"max({p[0]}, min({p[1]}, 1), abs({p[2]}))")
        | pair.map(lambda p: f"({p[0]} and {p[1]} > 0 or not {p[0]}) + 0")
        | law.map(lambda p: f"(-{p} ** 2)")
    )


leaves = st.sampled_from(["x", "v", "t", "x_target", "horizon", "2.0", "0.5", "1e2"])
expressions = st.recursive(leaves, compound, max_leaves=8)


@settings(deadline=None, max_examples=60)
@given(expressions)
def test_laws_match_python_eval(law):
    """Compare with Python's unsafe `eval`, used only in this test."""
    read = read_law(law)  # none of these exceeds the length or depth limit
    try:
        expected = float(eval(law, {"__builtins__": {}, "max": max, "min": min, "abs": abs}, dict(STATE)))
    except ArithmeticError:
        with pytest.raises((ArithmeticError, ValueError)):
            push(read, STATE)
        return
    if math.isfinite(expected):
        assert push(read, STATE) == pytest.approx(expected, rel=1e-9)
    else:
        with pytest.raises((ArithmeticError, ValueError)):
            push(read, STATE)


words = ["x", "v", "t", "1", "0.5", "1e308", "+", "-", "*", "/", "**", "(", ")", ",", "<", "if", "else", "and", "not"]
words += [
    "ifelse(",
    "clip(",
    "steer(",
    "lt(",
    "max(",
    "__class__",
    ".",
    "\u0663",
    "&lt;",
    "&",
    "<law>",
    "</law>",
    "```",
]
words += ["<action>", "</action>", " ", "\n", "\x00"]
hostile = text | st.lists(st.sampled_from(words), max_size=40).map("".join)


@settings(deadline=None, max_examples=200)
@given(hostile, st.booleans(), st.booleans())
def test_any_text_ends_as_done_failed_or_malformed(inner, wrapped, strict):
    rules = V0 if strict else V1
    reply = (f"<action><law>{inner}</law></action>" if strict else f"<action>{inner}</action>") if wrapped else inner
    opened = env(rules)
    step = opened.step(reply)
    assert step.done
    assert step.stop in ("done", "failed", "malformed")
    assert rules.unreadable <= step.reward <= 1
    assert math.isfinite(step.reward)
    assert len(step.feedback) <= 600
    assert all(abs(number) < 1e3 for row in opened.view.rows for number in row)
    assert all(-1 <= row[2] <= 1 for row in opened.view.rows if len(row) > 2)


@pytest.mark.parametrize("filler", ["(", "-", "1", "x+", "abs(", "<action>", "&", "<", "1 if 1 else ", "\u0663"])
def test_huge_reply_is_parsed_quickly(filler):
    start = time.process_time()
    for rules in (V0, V1):
        for inner in (filler * 100_000, f"<law>{filler * 100_000}</law>"):
            assert env(rules).step(f"<action>{inner}</action>").stop == "malformed"
    assert time.process_time() - start < 2


# Replies.


@pytest.mark.parametrize(
    ("reply", "v0", "v1"),
    [
        ("<action><law>-v</law></action>", "-v", "<law>-v</law>"),
        ("so <action> <law>\n-v </law>\n</action>\n", "-v", "<law>\n-v </law>"),
        ("<action><law>1 if t &lt; 2 else 0</law></action>", "1 if t < 2 else 0", "<law>1 if t &lt; 2 else 0</law>"),
        ("<action>-v</action>", None, "-v"),
        ("<action>-v</action> so be it", None, "-v"),
        ("```<action>1 if t < 2 else 0</action>```", None, "1 if t < 2 else 0"),
        ("<action><law>1 if t < 2 else 0</law></action>", None, "<law>1 if t < 2 else 0</law>"),
        ("<action><law>-v</law></action> so be it", None, "<law>-v</law>"),
        ("```<action><law>-v</law></action>", None, "<law>-v</law>"),
        ("<action><law a='1'>-v</law></action>", None, "<law a='1'>-v</law>"),
        ("<action><law>&#45;v</law></action>", None, "<law>&#45;v</law>"),
        ("<action>1</action><action>1</action>", None, None),
        ("</action>1<action>", None, None),
        ("the <action> tag: <action>1</action>", None, None),
        ("-v", None, None),
    ],
)
def test_v0_reads_an_xml_element_at_the_end_and_v1_a_plain_law(reply, v0, v1):
    for strict, law in ((True, v0), (False, v1)):
        if law is None:
            with pytest.raises(LawError):
                read_reply(reply, strict)
        else:
            assert read_reply(reply, strict) == law


@given(st.sampled_from(["x < 1 and v > 2", "-v", "ifelse(lt(t, 2), 1, 0)"]), st.booleans())
def test_written_law_round_trips(law, strict):
    assert read_reply(write_reply(law, "Hm.", strict), strict) == law


# Dynamics and planning.


def test_position_uses_the_new_velocity_and_pushes_are_clipped():
    done = run(Plant(0.5, 2.0), Goal(1.0, 0.4, 0.0, 0.0, 2, 0.03), read_law("5 - 10 * t"), (0.0, 0.1))
    assert done.u == (1.0, -1.0)
    assert done.v == pytest.approx((0.4, 2.2, -0.8))
    assert done.x == pytest.approx((1.0, 3.2, 2.4))
    assert loss(Goal(1.0, 0.4, 0.0, 0.0, 2, 0.03), done) == pytest.approx(2.4**2 + 2 * 0.8**2 + 0.06)


def test_remaining_steps_count_down_to_one():
    done = run(PLANT, GOAL, read_law("remaining_steps / 10"), NO_GUSTS)
    assert done.u == pytest.approx((0.4, 0.3, 0.2, 0.1))


def cost_of(plant, goal, pushes, gusts=NO_GUSTS):
    return loss(goal, run(plant, goal, lambda state: pushes[int(state["t"])], gusts))


def brute_force_plan(plant, goal):
    """Return the best pushes by trying every set of pushes at a bound and solving least squares for the rest."""
    steps = goal.horizon

    def residuals(pushes):  # square root of each loss term, linear in the pushes
        x, v = goal.x0, goal.v0
        for push_ in pushes:
            v = plant.a * v + plant.b * push_
            x = x + v
        return np.array([x - goal.x_target, 2**0.5 * (v - goal.v_target), *(goal.penalty**0.5 * np.array(pushes))])

    slopes = np.stack([residuals(unit) - residuals(np.zeros(steps)) for unit in np.eye(steps)], axis=1)
    best = None
    for bounds in itertools.product((None, -1.0, 1.0), repeat=steps):
        free = [i for i, end in enumerate(bounds) if end is None]
        pushes = np.array([end or 0.0 for end in bounds])
        if free:
            pushes[free] = np.linalg.lstsq(slopes[:, free], -residuals(pushes), rcond=None)[0]
        if np.abs(pushes).max() <= 1 + 1e-12 and (best is None or cost_of(plant, goal, pushes) < best[0]):
            best = cost_of(plant, goal, pushes), pushes
    return best


@pytest.mark.parametrize("index", range(6))
def test_plan_matches_brute_force(index):
    rng = stream("slow plan", index)
    plant = get_domain("optimal-control-v1").make_world(rng, EASY)
    goal = Goal(*(rng.uniform(-1, 1, 4) * (1, 1, 4, 1)).tolist(), 3 + index % 3, 0.03)
    cost, pushes = brute_force_plan(plant, goal)
    assert least_loss(plant, goal) == pytest.approx(cost, abs=1e-9)
    assert plan(plant, goal) == pytest.approx(pushes, abs=1e-6)


def test_small_changes_never_improve_a_plan():
    rng = stream("first order")
    for task in sample_tasks("optimal-control-v1", "hard", 12):
        plant, goal, gusts = task.world.hidden, task.content, tuple(rng.normal(0, 0.1, 14).tolist())
        pushes = np.array(plan(plant, goal, gusts))
        best = cost_of(plant, goal, pushes, gusts)
        for change in rng.normal(0, 0.01, (30, len(pushes))):
            assert cost_of(plant, goal, np.clip(pushes + change, -1, 1), gusts) >= best - 1e-10


def test_steer_at_each_step_matches_the_full_plan():
    for task in sample_tasks("optimal-control-v1", "hard", 5):
        plant, goal = task.world.hidden, task.content
        done = run(plant, goal, read_law(f"steer({plant.a!r}, {plant.b!r})", STEER), NO_GUSTS)
        assert loss(goal, done) == pytest.approx(least_loss(plant, goal), abs=1e-9)


@pytest.mark.parametrize(
    "law", ["steer(1e308 * 10, 1)", "steer(1, 0)", "steer(1e300, -1e300)", "steer(0, 0)", "steer(1 < 2, v)"]
)
def test_steer_survives_extreme_arguments(law):
    assert env().step(reply_with(law)).stop in ("done", "failed")


def test_steer_calls_are_limited():
    assert env().step(reply_with(" + ".join(["steer(1, 1)"] * 4))).stop == "done"
    assert env().step(reply_with(" + ".join(["steer(1, 1)"] * 5))).stop == "malformed"
    assert env(dials=replace(EASY, aid=False)).step(reply_with("steer(1, 1)")).stop == "malformed"


def test_one_table_of_three_decimals_determines_a_and_b():
    missed = []
    for task in sample_tasks("optimal-control-v0", "hard", 60):
        opened = task.env()
        opened.step(reply_with(CAUTIOUS.format(sign=""), V0))
        fit = Fit().add([row[1] for row in opened.view.rows], [row[2] for row in opened.view.rows[:-1]]).solve()
        if fit is not None:
            missed.append((abs(fit.a - task.world.hidden.a), abs(fit.b - task.world.hidden.b)))
    assert len(missed) > 57  # few runs push too little to determine a and b
    assert np.median(missed, axis=0) == pytest.approx([1e-4, 3e-4], abs=3e-4)


def test_a_run_without_pushes_does_not_determine_a_and_b():
    assert Fit().add([1.0, 0.9, 0.81], [0.0, 0.0]).solve() is None
    assert Fit().add([], []).solve() is None
    assert "do not tell a and b apart" in env().step(reply_with("0")).observation


# Worlds and tasks.


def test_a_and_b_are_uniform_and_b_is_never_small():
    domain = get_domain("optimal-control-v0")
    worlds = [domain.make_world(stream("drawn", i), REFERENCE["hard"]) for i in range(2000)]
    a, b = np.array([(world.a, world.b) for world in worlds]).T
    assert 0.55 <= a.min() < 0.56 < 1.19 < a.max() <= 1.2
    assert 0.35 <= abs(b).min() < 0.36 < 1.49 < abs(b).max() <= 1.5
    assert (a > 1).mean() == pytest.approx(0.31, abs=0.04)
    assert (b > 0).mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("b", "sign"), [((-1.5, -0.2), "b is negative"), ((0.5, 1.5), "b is positive"), ((-1, 1), "")])
def test_rules_state_the_sign_of_b_if_its_range_has_only_one(b, sign):
    domain, dials = get_domain("optimal-control-v1"), replace(EASY, b=b)
    drawn_b = [domain.make_world(stream("one side", i), dials).b for i in range(50)]
    assert all(max(b[0], -9) <= value <= b[1] and abs(value) >= 0.35 for value in drawn_b)
    task = make_pack(domain.id, "easy", "dev", 0, 1).tasks[0]
    rules = domain.rules_text(replace(task, world=World(PLANT, dials)), "natural")
    assert [line for line in ("b is negative", "b is positive") if line in rules] == ([sign] if sign else [])


def contents(id, split, packs=40):
    return {task.content for task in sample_tasks(id, "easy", packs, 3, split)}


def test_train_and_held_out_tasks_are_disjoint_in_v1():
    train, held_out = contents(IDS[1], "train"), contents(IDS[1], "dev") | contents(IDS[1], "test")
    assert not train & held_out
    assert {goal.split for goal in train} == {"train"}
    assert {goal.split for goal in held_out} == {"held-out"}
    assert {goal.split for goal in contents(IDS[0], "train")} == {"train", "held-out"}


def test_v1_shows_exact_numbers_and_distant_targets():
    for goal in contents(IDS[1], "train"):
        assert abs(goal.x_target - goal.x0) >= 1
        assert all(number == round(number, 3) for number in (goal.x0, goal.v0, goal.x_target))
    assert min(abs(goal.x_target - goal.x0) for goal in contents(IDS[0], "train")) < 1


@both_versions
def test_twins_look_the_same_until_a_push(id):
    for index in range(5):
        pack = make_pack(id, "easy", "dev", index, 1)
        twin = pack.domain.twin(pack.world, stream("twin", index))
        task, other = pack.tasks[0], replace(pack.tasks[0], world=twin)
        assert task.env().observe() == other.env().observe()
        law = reply_with("0.5 if t else -0.5", pack.domain.rules)
        assert task.env().step(law).observation != other.env().step(law).observation


# Version switches, one at a time.


def test_reward_of_each_outcome():
    assert env(V0).step("hm").reward == -0.1
    assert env(V1).step("hm").reward == 0
    assert env(V0).step(reply_with("1 / 0", V0)).reward == env(V1).step(reply_with("1 / 0")).reward == 0
    assert [V0.reward(cost, 0.5) for cost in (0, 1, 9)] == [1, 0.5, 0.1]
    assert V1.reward(0.5, 0.5) == V1.reward(0.4, 0.5) == 1
    assert V1.reward(1.5, 0.5) == pytest.approx(0.1 + 0.9 / (1 + math.log(2)))
    assert V1.reward(1e4, 0.0) - V1.reward(1e5, 0.0) > 0.02 > V0.reward(1e4, 0.0)
    assert V1.reward(1e30, 0.0) > 0.1


def test_only_v1_shows_the_steps_before_a_failure():
    law = "1 / (2 - t)"
    assert env(V0).step(reply_with(law, V0)).observation == ""
    step = env(V1).step(reply_with(law))
    assert step.observation.startswith("t x v u\n0 0.500 0.200 0.500\n1 ")
    assert "at t = 2" in step.feedback


@pytest.mark.parametrize("rules", [V0, V1])
def test_updater_sees_the_run(rules):
    opened = env(rules)
    reply = reply_with("-v", rules)
    step = opened.step(reply)
    trajectory = Trajectory("rules", (Turn(opened.observe(), reply),), step.observation, step.reward, step.feedback)
    read = Rewrite().prompt(trajectory, "", "natural").user
    assert "\n0 0.500 0.200 -0.200\n" in read
    assert "\n4 " in read
    assert step.feedback in read


def test_environment_fits_a_and_b_only_with_aid():
    found = numbers(env().step(reply_with("0.5 if t else -0.5")).observation)
    assert found["a"] == pytest.approx(0.9, abs=0.002)
    assert found["b"] == pytest.approx(-1.1, abs=0.002)
    assert "fits" not in env(dials=replace(EASY, aid=False)).step(reply_with("-v")).observation


def test_environment_memory_is_optional_and_keeps_only_completed_runs():
    memory = Memory()
    for law in ("-v", "1 / 0", "u"):
        env(memory=memory).step(reply_with(law))
    assert memory.last == Last("-v", GOAL, memory.last.reward, memory.last.x_missed, memory.last.v_missed)
    assert "-v" in env(memory=memory).observe()
    assert env(memory=memory).observe() != env().observe() == env(memory=Memory()).observe()
    for id, preset, kept in ((IDS[0], "hard", True), (IDS[1], "easy", False), (IDS[1], "remembered", True)):
        pack = make_pack(id, preset, "dev", 0, 1)
        assert (pack.domain.make_memory(pack.world) is not None) == kept


def test_noise_depends_only_on_the_task():
    task = make_pack("optimal-control-v1", "gusts", "dev", 0, 1).tasks[0]
    first, second = task.env(), task.env()
    assert first.gusts == second.gusts
    assert np.std([g for i in range(30) for g in make_pack(IDS[1], "gusts", "dev", i, 1).tasks[0].env().gusts]) > 0.05


# Reference policies.


@both_versions
def test_informed_policy_reaches_the_ceiling_and_no_law_exceeds_it(id):
    for index in range(8):
        pack = make_pack(id, "hard", "dev", index, 2)
        for task in pack.tasks:
            ceiling, opened = pack.domain.ceiling(task), task.env()
            best = opened.step(pack.domain.policy("informed", pack.world).act(opened.view)).reward
            assert best == pytest.approx(ceiling, abs=1e-3)
            for law in (
                "0",
                "-v",
                CAUTIOUS.format(sign=""),
                CAUTIOUS.format(sign="-"),
                best_law(Plant(0.9, 1), opened.view),
            ):
                assert task.env().step(reply_with(law, pack.domain.rules)).reward <= ceiling + 1e-9


def test_random_policy_earns_the_floor_on_average():
    task = make_pack("optimal-control-v1", "tiny", "dev", 0, 1).tasks[0]
    policy = task.domain.policy("random", task.world)
    rewards = np.array([task.env().step(policy.act(task.env().view)).reward for _ in range(1000)])
    assert abs(rewards.mean() - task.domain.floor(task)) < 4 * rewards.std() / len(rewards) ** 0.5


def mean_reward(law, signed=0):
    """Return a law's mean reward on `hard` of v0; `signed` is 1 for the right sign of b, -1 for the wrong one."""
    rewards = []
    for task in sample_tasks("optimal-control-v0", "hard", 250):
        sign = "-" if signed * task.world.hidden.b < 0 else ""
        rewards.append(task.env().step(reply_with(law.format(sign=sign), V0)).reward)
    return np.mean(rewards)


def test_v0_matches_the_papers_figures():
    """Optimum 0.977; no push 0.12; cautious law 0.89 with the right sign, near 0 with the wrong one, 0.44 guessed."""
    ceilings = [task.domain.ceiling(task) for task in sample_tasks("optimal-control-v0", "hard", 250)]
    assert np.mean(ceilings) == pytest.approx(0.977, abs=0.015)
    assert np.quantile(ceilings, 0.05) == pytest.approx(0.91, abs=0.03)
    assert mean_reward("0") == pytest.approx(0.12, abs=0.04)
    right, wrong = mean_reward(CAUTIOUS, 1), mean_reward(CAUTIOUS, -1)
    assert (right, wrong) == (pytest.approx(0.89, abs=0.03), pytest.approx(0.001, abs=0.005))
    learned = curve("optimal-control-v0", "bayes", "hard", 60)
    assert learned == pytest.approx([0.44, 0.97], abs=0.2)
    assert learned[1] > 0.93


def test_learning_pays_in_v1():
    learned = curve("optimal-control-v1", "bayes", "easy", 30)
    assert learned[1] - learned[0] > 0.2
    assert curve("optimal-control-v1", "random", "easy", 30).mean() < 0.5


# Contexts and their claims.


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [
        ("", 0, 0),
        ("a = 0.9, b = -1.1", 2, 0),
        ("a is about 0.91; b: -1.2", 1, 1),
        ("A=0.9", 1, 0),
        ("b is negative", 1, 0),
        ("b > 0", 0, 1),
        ("b<0, a ~ 0.9", 2, 0),
        ("a * v + b * u", 0, 0),
        ("use a = 0.9 twice: a = 0.9", 2, 0),
        ("a = 0.9.1", 0, 0),
        ("a = 0.9. So b = -1.1.", 2, 0),
        ("b > 0.5", 0, 0),
    ],
)
def test_facts_count_claims_about_a_and_b(context, right, wrong):
    assert get_domain(IDS[1]).facts(World(PLANT, TINY), context) == (right, wrong, 2)


def read_view(rules, opening, law="", outcome=""):
    """Rebuild a view from the texts that a model reads and the law that it wrote."""
    numbers = map(float, re.findall(r"-?\d+(?:\.\d+)?", opening.splitlines()[0]))
    x0, v0, steps, x_target, v_target, penalty = numbers
    goal = Goal(x0, v0, x_target, v_target, int(steps), penalty)
    rows = [row.split()[1:] for row in outcome.splitlines() if re.match(r"\d+ ", row)]
    return View(goal, "XML" in rules, "steer(" in rules, law, tuple(tuple(map(float, row)) for row in rows))


@pytest.mark.parametrize("name", ["random", "bayes"])
@pytest.mark.parametrize(("id", "preset"), [(id, preset) for id in IDS for preset in get_domain(id).presets])
def test_policies_can_play_from_the_texts_alone(id, preset, name):
    """A view holds only what the texts show, in the same digits."""
    pack = make_pack(id, preset, "dev", 2, 3)
    memory = pack.domain.make_memory(pack.world)
    policy, reader = (pack.domain.policy(name, pack.world) for _ in range(2))
    for task in pack.tasks:
        rules, opened = pack.domain.rules_text(task, "natural"), task.env(memory=memory)
        seen = read_view(rules, opened.observe())
        assert seen == opened.view
        reply = policy.act(opened.view)
        assert reader.act(seen) == reply
        step = opened.step(reply)
        seen = read_view(rules, opened.observe(), read_reply(reply, pack.domain.rules.strict_reply), step.observation)
        assert seen == step.view
        policy.end(step)
        reader.end(replace(step, view=seen))


@pytest.mark.parametrize("rules", [V0, V1])
@pytest.mark.parametrize("law", ["1 / (2 - t)", "1 / 0", "-v"])
def test_view_of_a_failed_law_holds_only_the_shown_steps(rules, law):
    opened = env(rules)
    step = opened.step(reply_with(law, rules))
    rules_text = "steer( XML" if rules.strict_reply else "steer("
    assert step.view == read_view(rules_text, opened.observe(), law, step.observation)


def roll_out(pack, contexts=None):
    """Roll out a life from text alone: steer by the noted numbers or guess, then note the fit in the outcome."""
    rewards, lines, z = [], [], ""
    for j, task in enumerate(pack.tasks):
        opened, z = task.env(), z if contexts is None else contexts[j]
        claims = numbers(z)
        law = f"steer({claims['a']}, {claims['b']})" if len(claims) == 2 else CAUTIOUS.format(sign="")
        step = opened.step(f"<action>{law}</action>")
        lines += [f"notes: {z}", opened.observe(), f"> <action>{law}</action>", step.observation, step.feedback]
        rewards.append(step.reward)
        found = numbers(step.observation)
        z = f"a = {found['a']:.4f}, b = {found['b']:.4f}" if len(found) == 2 else z
    return rewards, "\n".join(line.strip() for line in lines)


def test_docs_life_is_reproducible():
    assert roll_out(make_pack("optimal-control-v1", "tiny", "dev", 0, 2))[1] in DOCS.read_text()


def test_perfect_context_and_own_notes_both_raise_reward():
    packs = [make_pack("optimal-control-v1", "easy", "dev", i, 2) for i in range(30)]
    null, own = (np.mean([roll_out(pack, given)[0] for pack in packs], axis=0) for given in (["", ""], None))
    oracle = np.mean([roll_out(p, [p.domain.oracle_context(p.world, "natural")] * 2)[0] for p in packs], axis=0)
    assert oracle == pytest.approx([1, 1], abs=0.01)
    assert np.all(oracle - null > 0.15)
    assert own[0] == null[0]
    assert own[1] - null[1] > 0.15


def test_draw_view():
    opened = env()
    assert get_domain(IDS[1]).draw(opened.view) == ""
    opened.step(reply_with("-v"))
    assert get_domain(IDS[1]).draw(opened.view).startswith("t x v u\n0 0.500 0.200 -0.200\n")


def test_custom_rules():
    domain = OptimalControl("test-control", replace(V1, apart=2.0), {"tiny": TINY})
    goals = [domain.make_task(World(PLANT, TINY), 0, stream("apart", i)) for i in range(20)]
    assert min(abs(goal.x_target - goal.x0) for goal in goals) >= 2
    assert loss(GOAL, run(PLANT, GOAL, constant_law(0.0), NO_GUSTS)) > least_loss(PLANT, GOAL)


# Reading and notes.


@pytest.mark.parametrize(
    ("context", "a", "b"),
    [
        ("a = 0.98, b = 0.12", 0.98, 0.12),
        ("a = 0.98 and b = 0.12", 0.98, 0.12),
        ("I measured it: **a** = .98; b is -1.2.", 0.98, -1.2),
        ("a=0.98\nb=\u22121.2", 0.98, -1.2),
        ("a = 0.5, b = 1. Later a = 0.98 +- 0.05.", 0.98, 1.0),
        ("a = 999999999, b = -999", 2.0, -5.0),
    ],
)
def test_a_and_b_are_read_from_the_sentences_of_a_model(context, a, b):
    assert read_estimate(context).plant == Plant(a, b)


@given(st.floats(0.55, 1.2), st.floats(-1.5, 1.5))
def test_the_claim_of_a_world_is_read_back(a, b):
    claim = get_domain(IDS[1]).claims(World(Plant(a, b), TINY), "natural")["law"]
    assert read_estimate(claim).plant == Plant(round(a, 4), round(b, 4) + 0.0)


def test_a_stated_error_makes_an_estimate_that_counts_neither_as_right_nor_as_wrong():
    assert get_domain(IDS[1]).facts(World(PLANT, TINY), "a = 0.5 +- 0.3, b = -1.1 +- 0.02") == (1, 0, 2)
    estimate = read_estimate("a = 0.5 +- 0.3, b = -1.1")
    assert estimate == Estimate(Plant(0.5, -1.1), (0.3, CLOSE))
    assert write_claim(estimate) == "a = 0.5000 +- 0.30, b = -1.1000"


@pytest.mark.parametrize("context", ["b is negative", "so b = -1.3 and nothing else"])
def test_readers_of_the_sign_alone_push_gently_in_its_direction(context):
    for name in ("random", "bayes"):
        policy = get_domain(IDS[1]).policy(name, World(PLANT, TINY, names=("sign",)))
        policy.read(context)
        assert f"<action>{CAUTIOUS.format(sign='-')}</action>" in policy.act(env().view)


def test_random_draws_the_same_pushes_whether_or_not_it_has_read_an_empty_context():
    world = World(PLANT, TINY, names=("silent",))
    policies = [get_domain(IDS[1]).policy("random", world) for _ in range(2)]
    policies[1].read("nothing is known")
    assert len({tuple(policy.act(env().view) for _ in range(20)) for policy in policies}) == 1


@pytest.mark.parametrize(("id", "preset"), [("optimal-control-v0", "easy"), ("optimal-control-v1", "hard")])
def test_readers_of_the_oracles_context_play_like_the_informed_policy(id, preset):
    for i in range(3):
        pack = make_pack(id, preset, "dev", i, 3)
        context = pack.domain.oracle_context(pack.world, "natural")
        for name in ("random", "bayes"):
            assert life(pack, name, context) == pytest.approx(life(pack, "informed"), abs=0.01)


@pytest.mark.parametrize("preset", ["easy", "by-hand", "gusts"])
def test_notes_carry_what_a_whole_life_knows(preset):
    noted, whole = last_rewards("optimal-control-v1", preset, 12)
    assert noted == pytest.approx(whole, abs=0.05)


def test_notes_state_errors_that_hold_the_truth():
    """With noise one run determines a and b only roughly. The notes say how roughly, and get better."""
    widths = []
    for i in range(30):
        pack, contexts = make_pack("optimal-control-v1", "gusts", "dev", i, 4), []
        noted_life(pack, contexts)
        for context in contexts:
            found = read_estimate(context)
            assert abs(found.plant.a - pack.world.hidden.a) <= found.errors[0] + 0.01
            assert abs(found.plant.b - pack.world.hidden.b) <= found.errors[1] + 0.01
        widths.append([read_estimate(context).errors[0] for context in contexts])
    assert np.mean(widths, axis=0)[3] < 0.7 * np.mean(widths, axis=0)[0]


def test_own_steps_overrule_a_wrong_claim():
    pack = make_pack("optimal-control-v1", "easy", "dev", 0, 2)
    policy = pack.domain.policy("bayes", pack.world)
    policy.read("a = 0.60, b = 0.90" if pack.world.hidden.b < 0 else "a = 0.60, b = -0.90")
    wrong, right = (play(policy, task).reward for task in pack.tasks)
    assert wrong < 0.6
    assert right > 0.98
    assert pack.domain.facts(pack.world, policy.notes("natural")["law"]) == (2, 0, 2)


def test_an_estimate_weighs_as_much_as_steps_that_are_equally_good():
    read = Fit(least=0.0).add_estimate(PLANT, (0.3, 0.06), 0.1)
    assert (read.solve().a, read.solve().b) == pytest.approx((PLANT.a, PLANT.b))
    assert read.errors(0.1) == pytest.approx((0.3, 0.06))
    steps, seen = Fit(), stream("steps")
    rows = seen.normal(size=(40, 2))
    for v, u in rows:
        steps.add([v, 0.7 * v + 0.4 * u], [u])
    slow = 3 * 0.1 * np.sqrt(np.diag(np.linalg.inv(sum(np.outer(row, row) for row in rows))))
    assert steps.errors(0.1) == pytest.approx(tuple(slow))
    assert read.contradicts(steps, 0.1)
    assert not Fit(least=0.0).add_estimate(Plant(0.75, 0.35), (0.3, 0.3), 0.1).contradicts(steps, 0.1)


@pytest.mark.parametrize("preset", ["easy", "by-hand"])
@settings(max_examples=60, deadline=None)
@given(context=hostile_text("a = ", "b = ", "=", "+-", "1e9", ".", "b is positive", "a = 999999999, b = 0"))
def test_any_context_is_read_and_leads_to_a_law(preset, context):
    pack = make_pack("optimal-control-v1", preset, "dev", 0, 1)
    for name in ("random", "bayes"):
        policy = pack.domain.policy(name, pack.world)
        policy.read(context)
        assert play(policy, pack.tasks[0]).stop == "done"


@pytest.mark.parametrize("filler", ["a = ", "a = 0.9 ", "b is ", " ", "9", "a = 1 +- 1 "])
def test_huge_contexts_are_read_quickly(filler):
    start = time.perf_counter()
    read_estimate(filler * 50_000)
    get_domain(IDS[1]).facts(World(PLANT, TINY), filler * 50_000)
    assert time.perf_counter() - start < 2
