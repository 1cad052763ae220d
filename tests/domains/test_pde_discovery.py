"""Tests of PDE discovery: equation parsing, the solver, the regression tool, endings, splits and versions."""

import re
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.rng import stream
from codots.domains.base import World
from codots.domains.pde_discovery import CLOSE, EASY, TRAINED, V0, V1
from codots.domains.pde_discovery.actions import read_action, write_answer, write_regress, write_sample
from codots.domains.pde_discovery.env import Archive, FitReport, PdeEnv, Point, View
from codots.domains.pde_discovery.equation import LARGEST, LIBRARY, TERMS, columns, equation, read_equation, read_term
from codots.domains.pde_discovery.families import SIZES, draw_equation, templates
from codots.domains.pde_discovery.field import CELLS, LIMIT, STEPS, TOP, Field, Start
from codots.domains.pde_discovery.notes import read_equation_of, read_points, write_claim
from codots.domains.pde_discovery.posterior import fit_in_box
from codots.domains.pde_discovery.regression import Scored, fit, kappa, ranked, supports
from codots.domains.pde_discovery.rules import formula_reward, likeness
from codots.domains.registry import get_domain, make_pack
from tests.domains.reading import hostile_text, last_rewards, life, noted_life

TRUTH = read_equation("1.2*u - 0.7*u**3")
START = Start(2.0, (1.0, 0.4))
ALL = tuple(range(len(TERMS)))
DOCS = Path(__file__).parents[2] / "docs/domains/pde_discovery.md"
PRESETS = [(id, p) for id in ("pde-discovery-v0", "pde-discovery-v1") for p in get_domain(id).presets]
both_versions = pytest.mark.parametrize("id", ["pde-discovery-v0", "pde-discovery-v1"])
both_rules = pytest.mark.parametrize(("rules", "dials"), [(V0, TRAINED), (V1, EASY)])
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def make_env(rules=V1, dials=EASY, archive=None, truth=TRUTH, start=START):
    return PdeEnv(truth, start, rules, dials, archive or Archive(), stream("noise"))


def wrap(inside):
    return f"<action>{inside}</action>"


def play(policy, task, memory=None):
    """Play one task and return its last step."""
    env, step = task.env(memory=memory), None
    while step is None or not step.done:
        step = env.step(policy.act(env.view))
    policy.end(step)
    return step


def curve(id, name, packs, size=4, preset="easy"):
    rewards = []
    for index in range(packs):
        pack = make_pack(id, preset, "dev", index, size)
        policy, memory = pack.domain.policy(name, pack.world), pack.domain.make_memory(pack.world)
        rewards.append([play(policy, task, memory).reward for task in pack.tasks])
    return np.mean(rewards, axis=0)


# Equations.


@pytest.mark.parametrize("term", TERMS)
def test_term_is_parsed_by_name_and_is_zero_at_zero(term):
    i = TERMS.index(term)
    assert read_term(term) == read_term(f" ({term}) ") == i
    assert read_equation(f"2*({term})") == equation({i: 2.0})
    assert LIBRARY[term](np.zeros(1)) == 0
    assert np.isfinite(LIBRARY[term](np.linspace(-4, 4, 99))).all()


SOME_U = np.linspace(-1.5, 2.7, 9)


def python_value(text):
    """Evaluate text with Python's unsafe `eval`, used only in these tests."""
    names = {"sin": np.sin, "exp": np.exp, "log": np.log, "tanh": np.tanh, "u": SOME_U}
    return eval(text, {"__builtins__": {}}, names)


@pytest.mark.parametrize("term", TERMS)
def test_term_value_matches_its_name(term):
    assert LIBRARY[term](SOME_U) == pytest.approx(python_value(term))


three_digits = st.tuples(st.integers(1, 999), st.integers(-3, 3)).map(lambda p: float(f"{p[0]}e{p[1]}"))
coefficients = st.dictionaries(
    st.sampled_from(ALL), three_digits.flatmap(lambda c: st.sampled_from([c, -c])), min_size=1
)


@given(coefficients)
def test_printed_equation_round_trips(found):
    assert read_equation(str(equation(found))) == equation(found)


spelled = [f"({term})" for term in TERMS] + [term for term in TERMS if term != "exp(u)-1"]
numbers = st.sampled_from(["", "2*", "0.5*", ".25 * ", "1e-1*", "1.5e+2 *", "007*"])
signs = st.sampled_from(["+", "-", " - ", " +  "])


@given(st.lists(st.tuples(signs, numbers, st.sampled_from(spelled)), min_size=1, max_size=6))
def test_sums_match_python_eval(summands):
    text = "".join(map("".join, summands))
    read = read_equation(text)
    expected = python_value(text.strip().replace("007", "7"))
    if read is None:  # all terms cancelled
        assert expected == pytest.approx(0, abs=1e-9)
    else:
        assert read(SOME_U) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("family", ["known", "new"])
def test_equations_of_a_family_round_trip(family):
    for template in templates(family):
        assert read_equation(str(template)) == template


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("f(u) = 1.2 * u - 0.7 * u**3", "1.2*u - 0.7*u**3"),
        ("u+u", "2*u"),
        ("-u**2/(1+u**2)", "-1*(u**2/(1+u**2))"),
        ("1.5*u/(1+u+u**2)", "1.5*(u/(1+u+u**2))"),
        (".5*(exp(u)-1)+1e-1*sin(2*u)", "0.5*(exp(u)-1) + 0.1*sin(2*u)"),
        ("2*(u**4/(1+u**4))", "2*u**4/(1+u**4)"),
    ],
)
def test_equivalent_spellings_parse_to_the_same_equation(text, same):
    assert read_equation(text) is not None
    assert read_equation(text) == read_equation(same)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f(u)=",
        "0*u",
        "u-u",
        "a*u",
        "c1*u",
        "u**6",
        "u**22",
        "u u",
        "2u",
        "exp(u)-1",
        "1*exp(u)-1",
        "u*u",
        "2**u",
        "sin(3*u)",
        "-",
        "+",
        "1e99*u",
        "9999999*u",
        "nan*u",
        "inf*u",
        "1*u)",
        "(u",
        "u/(1+u**3)",
        "u;import os",
        "__import__('os')",
        "\u0661*u",
        "u\u00b2",
        "1*\u03c5",
        "1_0*u",
        "0x1*u",
        "1*u" * 2,
        "+".join(["u"] * 400),
    ],
)
def test_invalid_equation_is_rejected(text):
    assert read_equation(text) is None


pieces = st.sampled_from([*TERMS, *"+-*/()=.0129 eu", "**", "f(u)=", "1.5*", " - ", "e9", "__import__", "\u0663", "\n"])


@settings(max_examples=400)
@given(text | st.lists(pieces, max_size=25).map("".join))
def test_any_text_is_a_bounded_equation_or_none(text):
    read = read_equation(text)
    assert read is None or (read.support and max(map(abs, read.coefficients)) <= LARGEST)
    assert read is None or read_equation(str(read)).support == read.support


@pytest.mark.parametrize("filler", ["(", "u+", "1", "u**2/(1+", " ", "+", "1.", "sin("])
def test_huge_equations_and_replies_are_parsed_quickly(filler):
    start = time.process_time()
    read_equation(filler * 100_000)
    for inside in (filler * 2000, filler * 100_000, f"<answer>{filler * 4000}</answer>", "<a>" * 6000):
        make_env().step(wrap(inside))
    get_domain("pde-discovery-v1").facts(World(TRUTH, EASY), filler * 20_000)
    assert time.process_time() - start < 2


# The field.


def test_y_is_the_source_of_the_numerical_scheme():
    field = Field(TRUTH, START, 1.0)
    field.until(300)
    for step in (0, 1, 50, 299):
        now, then = field.rows[step], field.rows[step + 1]
        rate = (then - now) * STEPS
        curvature = (then[2:] - 2 * then[1:-1] + then[:-2]) * CELLS**2
        source = rate[1:-1] - curvature
        assert source == pytest.approx(TRUTH(now)[1:-1], abs=1e-6)
        for cell in (1, 77, 200):
            assert field.at(cell / CELLS, step / STEPS) == pytest.approx((now[cell], source[cell - 1]), abs=1e-6)


def test_solver_matches_a_dense_solution_of_one_step():
    field = Field(TRUTH, START, 0.3)
    field.until(1)
    r = 0.3 * CELLS**2 / STEPS
    eye = np.eye(CELLS - 1)
    matrix = (1 + 2 * r) * eye - r * (
        np.roll(eye, 1, 0) * (np.tri(CELLS - 1, k=-1)) + np.roll(eye, -1, 0) * (1 - np.tri(CELLS - 1))
    )
    inner = field.rows[0][1:-1]
    assert field.rows[1][1:-1] == pytest.approx(np.linalg.solve(matrix, inner + TRUTH(inner) / STEPS), abs=1e-10)


def test_values_between_grid_points_are_bilinear():
    field = Field(TRUTH, START, 1.0)
    field.until(3)
    x, t = (10 + 0.25) / CELLS, (2 + 0.5) / STEPS
    rows = np.array(field.rows)
    expected = np.mean([0.75 * rows[s, 10] + 0.25 * rows[s, 11] for s in (2, 3)])
    assert field.at(x, t)[0] == pytest.approx(expected)


def test_start_is_a_hump_of_its_amplitude():
    for seed in range(20):
        state = Start(1.7, tuple(stream("hump", seed).standard_normal(1 + seed % 2))).state()
        assert state[0] == state[-1] == 0
        assert state.min() >= 0
        assert state.max() == pytest.approx(1.7)


@pytest.mark.parametrize("family", ["known", "new"])
def test_no_equation_exceeds_the_limit_from_the_maximum_amplitude(family):
    start = Start(TOP, (1.0,))
    for template in templates(family):
        for sizes in product(SIZES, repeat=len(template.support)):
            corner = equation({i: template.coefficients[i] * s for i, s in zip(template.support, sizes, strict=True)})
            field = Field(corner, start, 1.0)
            field.until(20)
            assert max(np.abs(row).max() for row in field.rows) < LIMIT


def test_full_solution_of_a_pack_takes_under_a_fifth_of_a_second():
    seconds = []
    for _ in range(3):  # take the fastest, because other processes may slow some runs
        fields = [Field(TRUTH, replace(START, amplitude=a), 1.0) for a in (0.5, 1.0, 2.0, 2.7)]
        start = time.process_time()
        for field in fields:
            field.at(0.5, 1.0)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.2


def test_families_match_the_paper():
    sizes = {f: [len(t.support) for t in templates(f)] for f in ("known", "new")}
    assert [sizes["known"].count(n) for n in (1, 2, 3)] == [5, 35, 0]
    assert [sizes["new"].count(n) for n in (1, 2, 3)] == [0, 17, 8]
    known, new = ({t.support for t in templates(f)} for f in ("known", "new"))
    assert not known & new
    assert {i for s in known for i in s} == set(ALL) >= {i for s in new for i in s}


# The regression tool.


def reference_fit(u, y, support, threshold=0.05):
    table = columns(u)[:, list(support)]
    found = np.linalg.solve(table.T @ table + 1e-8 * np.eye(len(support)), table.T @ y)
    kept = tuple(i for i, c in zip(support, found, strict=True) if abs(c) >= threshold)
    return dict(zip(support, found, strict=True)) if kept == support else reference_fit(u, y, kept) if kept else {}


def test_batched_fits_match_single_fits():
    rng = stream("fit")
    u = rng.uniform(0, 2, 8)
    y = TRUTH(u) + rng.normal(0, 0.01, 8)
    wanted = supports(tuple(range(6)), 3)
    assert len(wanted) == 6 + 15 + 20
    slow = {}
    for support in wanted:
        found = {i: float(f"{round(c, 3):.3g}") for i, c in reference_fit(u, y, support).items()}
        slow[tuple(found)] = found
    fast = fit(u, y, wanted)
    assert {s.equation.support for s in fast} == set(slow) - {()}
    for scored in fast:
        found = {i: scored.equation.coefficients[i] for i in scored.equation.support}
        assert found == pytest.approx(slow[scored.equation.support], rel=0.02, abs=0.002)
        assert scored.worst == pytest.approx(np.abs(scored.equation(u) - y).max())


def test_tool_prefers_many_terms_only_in_v0():
    rng = stream("prefer")
    u = rng.uniform(0, 2, 12)
    scored = fit(u, TRUTH(u) + rng.normal(0, 0.02, 12), supports(ALL, 3))
    by_worst, spare = ranked(scored, None, 12)[0].equation, ranked(scored, 0.02, 12)[0].equation
    assert len(by_worst.support) == 3
    assert len(spare.support) == 2


def test_kappa_is_one_for_one_term_and_capped_for_too_few_points():
    u = np.array([0.5, 1.0, 1.5])
    assert kappa(u, [0]) == pytest.approx(1)
    assert kappa(u, ALL) == 1e12
    assert 1 < kappa(u, [0, 2]) < kappa(u, [0, 6])


def test_fit_in_box_matches_a_fine_grid():
    for seed in range(10):
        rng = stream("box", seed)
        table, y = rng.standard_normal((5, 2)), rng.standard_normal(5)
        sizes, squares = fit_in_box(table.T @ table, table.T @ y, float(y @ y), SIZES)
        grid = np.array(list(product(np.linspace(*SIZES, 151), repeat=2)))
        errors = ((table @ grid.T - y[:, None]) ** 2).sum(0)
        assert squares == pytest.approx(((table @ sizes - y) ** 2).sum(), abs=1e-6)
        assert errors.min() - 0.02 <= squares <= errors.min() + 1e-6


# Turns, tools and ends.


@both_rules
def test_measure_fit_and_answer(rules, dials):
    env = make_env(rules, dials)
    assert "Turn 1 of 6" in env.observe()
    step = env.step(write_sample([(0.3, 0.0), (0.6, 0.0)]))
    assert "data set t1.1" in step.observation
    assert f"{dials.points - 2} of {dials.points} points left" in step.observation
    step = env.step(write_regress(terms=[0, 2, 6]))
    assert "Scored" in step.observation
    assert step.observation.count("| greatest error") == rules.shown
    step = env.step(write_answer(env.view.report.best.equation))
    assert (step.done, step.stop) == (True, "answered")
    assert step.reward > 0


def test_only_the_truth_earns_one_in_both_versions():
    for other in (None, "2*u - 0.7*u**3", "-1*u"):
        answer = read_equation(other) if other else TRUTH
        assert (formula_reward(answer, TRUTH) == 1.0) == (other is None)
        assert (V1.reward(answer, TRUTH) == pytest.approx(1.0)) == (other is None)


def test_v0_reward_compares_coefficients_and_counts_surplus_terms():
    assert formula_reward(read_equation("1.2*u"), TRUTH) == pytest.approx(1 / (1 + 0.7 / 1.9))
    assert formula_reward(read_equation("1*u - 0.7*u**3 + 0.1*u**2"), TRUTH) == pytest.approx(1 / (1 + 0.3 / 1.9 + 1))


def test_v1_reward_compares_values_and_not_names():
    alike, sine = read_equation("1*u - 0.16*u**3 + 0.007*u**5"), read_equation("1*sin(u)")
    assert V1.reward(alike, sine) > 0.95 > 0.4 > V0.reward(alike, sine)
    assert V1.reward(equation({0: 3.0}), equation({0: 1.0})) == pytest.approx(0)
    assert V1.reward(equation({0: 1.0}), equation({0: -1.0})) == 0
    assert likeness(np.array([1.0, 2.0]), np.array([[1.0, 2.0], [3.0, 2.0]])) == pytest.approx([1.0, 0.5])


@both_rules
@pytest.mark.parametrize(
    "inside",
    [
        "<sample/>",
        '<sample><point x="0" t="0"/></sample>',
        '<sample><point x="0.5" t="1.1"/></sample>',
        '<sample><point x="nan" t="0"/></sample>',
        '<sample><point x="0.5"/></sample>',
        "<sample>" + '<point x="0.5" t="0"/>' * 7 + "</sample>",
        "<sample><dot/></sample>",
        "<regress/>",
        "<regress><term>u</term></regress>",
        '<regress data="t9"><term>u</term></regress>',
        "<regress><term>u**6</term></regress>",
        "<regress><term>u</term><equation>u</equation></regress>",
        "<regress><equation>u+u**2+u**3+u**4</equation></regress>",
        "<regress>" + "<equation>u</equation>" * 9 + "</regress>",
        '<regress alpha="-1"><term>u</term></regress>',
        "<answer>c1*u</answer>",
        "<answer/>",
        '<summary all="1"/>',
    ],
)
def test_refused_call_costs_only_a_turn(rules, dials, inside):
    env = make_env(rules, dials)
    step = env.step(wrap(inside))
    assert (step.done, step.view.turn, step.view.left) == (False, 1, dials.points)
    assert step.observation.splitlines()[0].endswith(".")


@both_rules
@pytest.mark.parametrize(
    "reply",
    [
        "",
        "u",
        "<action></action>",
        wrap("u"),
        wrap("<answer>u</answer>") * 2,
        wrap("<think/>"),
        wrap("<answer>u"),
        wrap("<sample>now<point x='0.5' t='0'/></sample>"),
        wrap("<answer><answer>u</answer></answer>x"),
        wrap('<!DOCTYPE a [<!ENTITY b "u">]><answer>&b;</answer>'),
        wrap("<answer>u &amp; u</answer>"),
        wrap("<?x?><summary/>"),
        wrap("<regress><term><term>u</term></term></regress>"),
        wrap("<answer>u</answer>" + " " * 30_000),
        "</action><action>",
        wrap("<answer>\ud800</answer>"),
    ],
)
def test_reply_without_one_plain_tool_is_malformed(rules, dials, reply):
    step = make_env(rules, dials).step(reply)
    assert (step.done, step.stop, step.reward, step.observation) == (True, "malformed", 0.0, "")


def test_task_is_lost_when_turns_run_out():
    env = make_env()
    for turn in range(EASY.turns):
        step = env.step(wrap("<summary/>"))
        assert step.done == (turn == EASY.turns - 1)
    assert (step.stop, step.reward) == ("late", 0.0)


def test_v0_accepts_only_equations_scored_in_this_task():
    archive = Archive()
    first = make_env(V0, TRAINED, archive)
    assert "Measure and fit" in first.step(write_answer(TRUTH)).observation
    first.step(write_sample([(0.2, 0.0), (0.4, 0.0), (0.5, 0.0)]))
    first.step(write_regress([TRUTH]))
    assert "none of the equations" in first.step(write_answer(read_equation("1.23*u"))).observation
    assert first.step(write_answer(first.view.report.best.equation)).done
    second = make_env(V0, TRAINED, archive)
    second.step(write_regress([TRUTH]))
    assert "Measure and fit" in second.step(write_answer(second.view.report.best.equation)).observation


def test_v1_accepts_any_equation_at_once():
    step = make_env().step(write_answer(TRUTH))
    assert (step.done, step.reward) == (True, pytest.approx(1.0))


def test_noted_points_are_fitted_only_in_v1():
    noted = [(float(u), float(TRUTH(np.array(u)))) for u in np.linspace(0.2, 2, 8)]
    env = make_env()
    step = env.step(write_regress([TRUTH], noted))
    assert "0 measured and 8 known points" in step.observation
    assert env.view.report.best.equation.coefficients == pytest.approx(TRUTH.coefficients, abs=0.01)
    assert "does not know" in make_env(V0, TRAINED).step(write_regress([TRUTH], noted)).observation
    assert "64 known points at most" in make_env().step(write_regress([TRUTH], noted * 9)).observation


def test_alpha_has_no_effect_in_v0_and_is_gone_in_v1():
    found = []
    for alpha in ("0", "50"):
        env = make_env(V0, TRAINED)
        env.step(write_sample([(0.2, 0.0), (0.4, 0.0), (0.5, 0.0)]))
        found.append(env.step(wrap(f'<regress alpha="{alpha}"><term>u</term><term>u**3</term></regress>')).observation)
    assert found[0] == found[1]
    assert "does not know" in make_env().step(wrap('<regress alpha="1"><term>u</term></regress>')).observation


hostile_xml = st.lists(
    st.sampled_from(
        [
            "<sample>",
            "</sample>",
            '<point x="0.5" t="0"/>',
            '<point x="1e9" t="-1"/>',
            "<regress>",
            "</regress>",
            "<term>u</term>",
            "<term>exp(u)-1</term>",
            "<equation>u - 2*u**2</equation>",
            '<known u="1" y="2"/>',
            '<known u="1e5" y="inf"/>',
            "<answer>",
            "</answer>",
            "<answer>2*u</answer>",
            "1*u",
            "<summary/>",
            "<",
            "&",
            "\x00",
            '<regress data="t1+t1.1">',
            "<sample><point x='0.3' t='1'/></sample>",
            "<regress><term>u</term></regress>",
        ]
    ),
    max_size=6,
).map("".join)
replies = (
    text
    | hostile_xml.map(wrap)
    | st.sampled_from([write_answer(TRUTH), write_regress([TRUTH]), write_regress(terms=ALL)])
)


@both_rules
@settings(max_examples=60)
@given(lines=st.lists(replies, min_size=1, max_size=7))
def test_any_text_gives_a_valid_step(rules, dials, lines):
    env = make_env(rules, dials)
    env.observe()
    for line in lines:
        step = env.step(line)
        assert 0.0 <= step.reward <= 1.0
        assert step.done or step.reward == 0.0
        assert step.stop in (None, "answered", "late", "malformed")
        assert 0 <= step.view.left <= dials.points
        assert (step.stop == "malformed") == (read_action(line) is None)
        assert len(step.observation) < 10_000
        if step.done:
            break


# Memory across tasks.


@pytest.mark.parametrize(
    ("id", "preset", "kept"),
    [
        ("pde-discovery-v0", "easy", True),
        ("pde-discovery-v1", "easy", False),
        ("pde-discovery-v1", "remembered", True),
    ],
)
def test_environment_memory_is_optional(id, preset, kept):
    pack = make_pack(id, preset, "dev", 0, 2)
    memory, policy = pack.domain.make_memory(pack.world), pack.domain.policy("random", pack.world)
    play(policy, pack.tasks[0], memory)
    opening = pack.tasks[1].env(memory=memory).observe()
    assert ("t1.1" in opening) == kept
    assert ("are kept" in pack.domain.rules_text(pack.tasks[1], "natural")) == kept
    assert "t1.1" not in pack.tasks[1].env(memory=pack.domain.make_memory(pack.world)).observe()


def test_earlier_findings_are_shown_with_memory():
    archive = Archive()
    make_env(V1, replace(EASY, memory="environment"), archive).step(write_answer(TRUTH))
    env = make_env(V1, replace(EASY, memory="environment"), archive)
    assert "1.2*u" not in env.step(wrap("<summary/>")).observation
    assert (
        "H1: task 1, 0 points, off by 0 at most, 1.2*u - 0.7*u**3."
        in env.step(wrap('<summary equations="true"/>')).observation
    )


@both_versions
def test_twins_look_the_same_until_y_is_shown(id):
    for index in range(5):
        pack = make_pack(id, "easy", "dev", index, 1)
        task, twin = pack.tasks[0], pack.domain.twin(pack.world, stream("twin", index))
        one, two = task.env(), replace(task, world=twin).env()
        assert one.observe() == two.observe()
        for reply in (wrap("<summary/>"), write_sample([(0.3, 0.0), (0.5, 0.0)])):  # the start is the same
            assert one.step(reply).observation == two.step(reply).observation
        assert one.step(write_regress(terms=ALL)).observation != two.step(write_regress(terms=ALL)).observation


@both_rules
def test_updater_sees_the_last_observation_only_in_v1(rules, dials):
    env, turns, observation = make_env(rules, dials), [], ""
    env.step(write_sample([(0.2, 0.0), (0.4, 0.0)]))
    env.step(write_regress([TRUTH]))
    reply = write_answer(env.view.report.best.equation)
    step = env.step(reply)
    turns.append(Turn(observation, reply))
    prompt = (
        Rewrite().prompt(Trajectory("rules", tuple(turns), step.observation, None, step.feedback), "", "natural").user
    )
    assert ("measured in this task it is off by" in prompt) == rules.last_shown
    assert "You answered f(u) =" in prompt


@both_versions
def test_reward_is_hidden_from_the_updater(id):
    assert not get_domain(id).reveals_reward


# Packs, splits, versions.


def test_train_and_held_out_equations_are_disjoint_in_v1():
    laws = {
        s: {make_pack("pde-discovery-v1", "easy", s, i, 1).world.hidden for i in range(150)}
        for s in ("train", "dev", "test")
    }
    assert not laws["train"] & (laws["dev"] | laws["test"])
    assert all(get_domain("pde-discovery-v1").belongs(law, "train") for law in laws["train"])
    sides = {
        get_domain("pde-discovery-v1").belongs(
            make_pack("pde-discovery-v0", "easy", "train", i, 1).world.hidden, "train"
        )
        for i in range(40)
    }
    assert sides == {True, False}


def test_v0_tasks_visit_every_band_once():
    for preset, bands in (("easy", 4), ("hard", 8)):
        pack = make_pack("pde-discovery-v0", preset, "dev", 1, 2 * bands)
        visited = [int(task.content.amplitude / TOP * bands) for task in pack.tasks]
        assert sorted(visited[:bands]) == sorted(visited[bands:]) == list(range(bands))


def test_v1_starts_have_a_minimum_amplitude():
    amplitudes = [
        t.content.amplitude for i in range(30) for t in make_pack("pde-discovery-v1", "easy", "dev", i, 4).tasks
    ]
    assert 0.2 * TOP <= min(amplitudes) <= max(amplitudes) <= TOP


def test_import_does_not_load_scipy_or_torch():
    code = "import sys, codots.domains.pde_discovery; print([m for m in ('scipy', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


# Policies and figures.


def test_v0_matches_the_papers_figures():
    """Within noise over a few packs: true terms on own data 0.96, then 0.995; `bayes` climbs from 0.64."""
    informed, learned = curve("pde-discovery-v0", "informed", 20, 2), curve("pde-discovery-v0", "bayes", 25, 3)
    assert informed == pytest.approx([0.96, 0.995], abs=0.04)
    assert learned == pytest.approx([0.64, 0.82, 0.88], abs=0.15)


def test_learning_pays_in_v1():
    learned = curve("pde-discovery-v1", "bayes", 25, 4)
    assert learned[-1] - learned[0] >= 0.2
    assert learned[-1] > 0.9
    assert curve("pde-discovery-v1", "informed", 4, 2) == pytest.approx(1.0)
    assert curve("pde-discovery-v1", "random", 6, 1).mean() < 0.4


# Policies that read only the texts.


def read_report(text):
    """Parse the report in a text, or return None."""
    head = re.search(r"^Scored (\d+) equation", text, re.M)
    if head is None:
        return None
    best = re.findall(r"^  (\S.*) \| greatest error (\S+), typical (\S+)$", text, re.M)
    rows = [list(map(float, row.split(", "))) for row in re.findall(r"^  (.*, .*)$", text, re.M) if "|" not in row]
    return FitReport(
        int(head[1]),
        tuple(Scored(read_equation(equation), float(worst), float(mean)) for equation, worst, mean in best),
        tuple(Point(*row[:4]) for row in rows),
        tuple(row[4] for row in rows),
    )


def read_view(texts, feedback=""):
    """Rebuild a view from the texts that a model reads: the opening of a task and the observation after each reply."""
    *_, (turn, turns, left) = re.findall(r"^Turn (\d+) of (\d+), (\d+) of", "\n".join(texts), re.M)
    reports = [report for report in map(read_report, texts) if report is not None]
    answer = re.search(r"^You answered f\(u\) = (.*)\.$", feedback, re.M)
    return View(
        int(turns),
        int(turn) - (not feedback),
        int(left),
        ["", *re.findall(r"^Measured .*$", "\n".join(texts), re.M)][-1],
        reports[-1] if reports else None,
        read_equation(answer[1]) if answer else None,
    )


@pytest.mark.parametrize("name", ["random", "bayes"])
@pytest.mark.parametrize(("id", "preset"), PRESETS)
def test_policies_can_play_from_the_texts_alone(id, preset, name):
    """A view holds only what the texts show, in the same digits."""
    pack = make_pack(id, preset, "dev", 3, 2)
    memory = pack.domain.make_memory(pack.world)
    policy, reader = (pack.domain.policy(name, pack.world) for _ in range(2))
    for task in pack.tasks:
        env, step = task.env(memory=memory), None
        texts, feedback = [env.observe()], ""
        while not feedback:
            assert read_view(texts) == env.view
            reply = policy.act(env.view)
            assert reader.act(read_view(texts)) == reply
            step = env.step(reply)
            texts.append(step.observation)
            feedback = step.feedback
        assert read_view(texts, feedback) == step.view
        policy.end(step)
        reader.end(replace(step, view=read_view(texts, feedback)))


# Contexts.


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [
        ("", 0, 0),
        ("f(u) = 1.2*u - 0.7*u**3", 2, 0),
        ("about 1.22 * u, and -0.70*u**3; surely", 2, 0),
        ("1.2*u**6 + 0.7*u**3", 0, 1),
        ("1.2*u 1.2*u -1.2*u", 2, 1),
        (f"{1.2 + 2 * CLOSE}*u", 0, 1),
        ("u and u**3, at t=0, x=0.5", 0, 0),
        ("x1.2*u", 0, 0),
    ],
)
def test_facts_count_claims_of_a_number_and_a_term(context, right, wrong):
    assert get_domain("pde-discovery-v1").facts(World(TRUTH, EASY), context) == (right, wrong, 2)


def test_docs_life_is_reproducible():
    shown = DOCS.read_text().partition("## One life")[2].split("```")[1].strip()
    replies, lines = iter([line[2:] for line in shown.splitlines() if line.startswith("> ")]), []
    for task in make_pack("pde-discovery-v1", "easy", "dev", 0, 2).tasks:
        env, step = task.env(), None
        lines.append(env.observe())
        while step is None or not step.done:
            reply = next(replies)
            step = env.step(reply)
            lines += [f"> {reply}", step.observation]
        lines.append(f"{step.feedback}\nreward {step.reward:.2f}")
    assert "\n".join(lines) == shown


def test_draw_view():
    env, domain = make_env(), get_domain("pde-discovery-v1")
    assert domain.draw(env.view) == "turn 0 of 6, 2 points left"
    env.step(write_sample([(0.3, 0.0), (0.5, 0.0)]))
    env.step(write_regress([TRUTH]))
    assert domain.draw(env.view).startswith("f(u) = ")


# Reading and notes.


@pytest.mark.parametrize(
    "context",
    [
        "The law is f(u) = 1.2*u - 0.7*u**3",
        "f(u) = 1.2 * u - 0.7 * u ** 3, surely.",
        "f(u) = 1.2\u00b7u \u2212 0.7\u00b7u^3",
        "Perhaps f(u) = 3*u\nNo: f(u) = 1.2*u - 0.7*u**3\nI measure two points each time.",
        "f(u) = 9*u + 1.2*u - 0.7*(u**3)",
    ],
)
def test_the_equation_is_read_from_the_sentences_of_a_model(context):
    assert str(read_equation_of(context)) == str(TRUTH)


@pytest.mark.parametrize("family", ["known", "new"])
def test_the_claim_of_a_world_is_read_back(family):
    for i in range(40):
        drawn = draw_equation(stream("claim", i), family, (1, 3))
        claim = get_domain("pde-discovery-v1").claims(World(drawn, EASY), "natural")["law"]
        assert read_equation_of(claim) == drawn
        assert read_points(claim) == []


@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(-9999, 9999)), max_size=80))
def test_noted_points_are_read_back_in_six_digits(points):
    points = [(u / 10.00003, y / 7) for u, y in points]
    rounded = list(dict.fromkeys((float(f"{u:.6g}"), float(f"{y:.6g}")) for u, y in points[-64:]))
    assert read_points(write_claim(TRUTH, points)) == rounded


def test_a_doubtful_equation_is_read_but_is_no_claim():
    doubtful = write_claim(TRUTH, [(0.5, 0.2)], sure=False)
    assert str(read_equation_of(doubtful)) == str(TRUTH)
    assert read_equation_of(doubtful, doubtful=False) is None
    assert get_domain("pde-discovery-v1").facts(World(TRUTH, EASY), doubtful) == (0, 0, 2)


@pytest.mark.parametrize(("id", "preset"), [("pde-discovery-v0", "hard"), ("pde-discovery-v1", "easy")])
def test_readers_of_the_oracles_context_earn_what_the_informed_policy_earns(id, preset):
    for i in range(3):
        pack = make_pack(id, preset, "dev", i, 2)
        context = pack.domain.oracle_context(pack.world, "natural")
        for name in ("random", "bayes"):
            assert np.mean(life(pack, name, context)) == pytest.approx(np.mean(life(pack, "informed")), abs=0.02)


def test_random_draws_the_same_replies_whether_or_not_it_has_read_an_empty_context():
    for context in ("", "f(u) = 1*u + 1*u**2 + 1*u**3 + 1*u**4"):  # too many terms count as no equation
        pack = make_pack("pde-discovery-v0", "easy", "dev", 0, 1)
        views = [task.env().view for task in pack.tasks]
        policies = [pack.domain.policy("random", pack.world) for _ in range(2)]
        policies[1].read(context)
        assert [policies[0].act(view) for view in views] == [policies[1].act(view) for view in views]


@pytest.mark.parametrize(("id", "preset"), [("pde-discovery-v0", "easy"), ("pde-discovery-v1", "easy")])
def test_notes_carry_what_a_whole_life_knows(id, preset):
    noted, whole = last_rewards(id, preset, 8)
    assert noted >= whole - 0.05


def test_notes_hold_the_points_and_the_next_task_hands_them_to_the_tool():
    pack = make_pack("pde-discovery-v1", "easy", "dev", 0, 2)
    first, second = (pack.domain.policy("bayes", pack.world) for _ in range(2))
    play(first, pack.tasks[0])
    note = first.notes("natural")["law"]
    assert note.startswith("The law is perhaps f(u) = ")
    assert read_points(note) == list(first.points)
    second.read(note)
    env = pack.tasks[1].env()
    env.step(second.act(env.view))
    assert second.act(env.view).count("<known ") == 2


def test_the_law_is_stated_without_doubt_only_if_it_is_right():
    sure = []
    for i in range(12):
        pack, contexts = make_pack("pde-discovery-v1", "easy", "dev", i, 4), []
        noted_life(pack, contexts)
        found = [pack.domain.facts(pack.world, context) for context in contexts]
        assert not any(wrong for _, wrong, _ in found)
        sure.append(found[-1][0] > 0)
    assert np.mean(sure) > 0.3


@pytest.mark.parametrize("id", ["pde-discovery-v0", "pde-discovery-v1"])
def test_own_points_overrule_a_wrong_equation(id):
    pack = make_pack(id, "easy", "dev", 0, 3)
    policy, fresh = pack.domain.policy("bayes", pack.world), pack.domain.policy("bayes", pack.world)
    twin = pack.domain.twin(pack.world, stream("twin"))
    policy.read(pack.domain.oracle_context(twin, "natural"))
    misled, free = (
        [play(p, task, memory).reward for task in pack.tasks]
        for p, memory in ((policy, pack.domain.make_memory(twin)), (fresh, pack.domain.make_memory(twin)))
    )
    assert misled == free
    assert str(twin.hidden) not in policy.notes("natural")["law"]


def test_random_answers_even_if_the_tool_refuses_the_terms_that_it_read():
    pack = make_pack("pde-discovery-v0", "easy", "dev", 1, 1)
    policy = pack.domain.policy("random", pack.world)
    policy.read("f(u) = 1*u**7")
    assert any(play(policy, task).stop == "answered" for task in pack.tasks)


@pytest.mark.parametrize("id", ["pde-discovery-v0", "pde-discovery-v1"])
@settings(max_examples=25, deadline=None)
@given(context=hostile_text("1.2*u", "- 0.7*u**3", "9999999*u**7", "u=4, y=-10000;", "u=1e9, y=0", "perhaps", "*", "="))
def test_any_context_is_read_and_leads_to_an_end(id, context):
    pack = make_pack(id, "easy", "dev", 0, 1)
    for name in ("random", "bayes"):
        policy = pack.domain.policy(name, pack.world)
        policy.read(context)
        assert play(policy, pack.tasks[0], pack.domain.make_memory(pack.world)).stop in ("answered", "late")
    assert all(len(line.splitlines()) == 1 for line in policy.notes("natural").values())


@pytest.mark.parametrize("filler", ["1.2*u ", "u=1, y=2; ", "1.2*u\n", " ", "1", "*", "u = 1 "])
def test_huge_contexts_are_read_quickly(filler):
    start = time.perf_counter()
    read_equation_of(filler * 30_000)
    read_points(filler * 30_000)
    assert time.perf_counter() - start < 2
