"""Tests of alchemy: recipes, rewards, ends, solvable books, splits, versions and policies."""

import itertools
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.rng import stream
from codots.domains.alchemy import HARD, V0, V0_EASY, V0_HARD, V1, V1_PRESETS
from codots.domains.alchemy.book import (
    Book,
    Table,
    counted_copies,
    invert_products,
    least_copies,
    opening_stock,
    plan,
)
from codots.domains.alchemy.draw import RESERVED, Dials, acceptable, draw_book
from codots.domains.alchemy.env import FEEDBACK, AlchemyEnv, Order, feasible, read_pair, write_plan
from codots.domains.alchemy.notes import (
    NOTHING,
    products_of,
    read_claims,
    read_context,
    write_claim,
    write_failures,
)
from codots.domains.alchemy.policies import AdaptivePolicy, prior
from codots.domains.base import World
from codots.domains.drift import holds
from codots.domains.registry import get_domain, make_pack
from tests.domains.reading import last_rewards, life

DOCS = Path(__file__).parents[2] / "docs/domains/alchemy.md"
both_styles = pytest.mark.parametrize("style", ["natural", "compact"])
both_versions = pytest.mark.parametrize("id", ["alchemy-v0", "alchemy-v1"])
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)

# Elements 0 1 2 are given; 0+1 makes 3, 1+1 makes 4, 3+4 or 2+4 makes 5, and 5+3 makes 6.
TABLE = Table(
    ((1, 0, 2), (3, 4), (5,), (6,)),
    ("iron", "salt", "wax", "dew", "glass", "amber", "gold"),
    ("i", "s", "w", "d", "g", "a", "z"),
)
BOOK = Book(TABLE, ((0, 1, 3), (1, 1, 4), (3, 4, 5), (2, 4, 5), (3, 5, 6)), frozenset(), (6, 5, 3, 4))
DIALS = Dials(rounds=8, tiers=(4, 4), base=(3, 3), growth=(1.0, 1.0))
LIMITED = replace(DIALS, limited=True)


def make_env(target=5, copies=1, rules=V1, dials=DIALS, style="compact", book=BOOK):
    return AlchemyEnv(Order(target, copies), book, rules, dials, style)


def reply_for(pair, style):
    """Return a reply that combines two elements of BOOK, given by their letters."""
    names = dict(zip(TABLE.letters, TABLE.names(style), strict=True))
    one, other = (names[letter] for letter in pair)
    return f"any {one} {other}" if style == "compact" else f"<action>{one} + {other}</action>"


def attempt(env, pairs):
    """Try pairs given as letters and return the last step."""
    for pair in pairs.split():
        step = env.step(reply_for(pair, env.style))
    return step


def play(policy, env):
    """Play one episode and return its reward."""
    step = None
    while step is None or not step.done:
        step = env.step(policy.act(env.view))
    policy.end(step)
    return step.reward


def packs(id, preset, count=12, size=4, split="dev"):
    return [make_pack(id, preset, split, i, size) for i in range(count)]


# Attempts, rewards and ends.


@both_styles
@pytest.mark.parametrize(
    ("pairs", "k"), [("ss wg", 2), ("is ss dg", 3), ("ii iw ss is gd", 5), ("ii ii ii ii ii ii ss gw", 8)]
)
def test_making_the_target_in_round_k_of_h_earns_one_minus_a_tenth_of_k_over_h(pairs, k, style):
    step = attempt(make_env(style=style), pairs)
    assert (step.done, step.stop) == (True, "made")
    assert step.reward == pytest.approx(1 - 0.1 * k / 8)


@both_styles
@pytest.mark.parametrize(
    ("dials", "copies", "pairs", "stop"),
    [
        (DIALS, 1, "ss wg", "made"),
        (DIALS, 1, "is is is is is is is is", "late"),
        (LIMITED, 1, "iw", "spent"),
        (LIMITED, 1, "is dw", "spent"),
        (LIMITED, 3, "ii iw ww ss gs", "spent"),
        (replace(LIMITED, rounds=1), 1, "iw", "late"),
    ],
)
def test_every_end_has_a_stop_reason_and_only_the_target_is_rewarded(dials, copies, pairs, stop, style):
    env = make_env(copies=copies, dials=dials, style=style)
    *before, last = pairs.split()
    for pair in before:
        step = attempt(env, pair)
        assert (step.done, step.stop, step.reward, step.feedback) == (False, None, 0.0, "")
    step = attempt(env, last)
    assert (step.done, step.stop, step.reward > 0) == (True, stop, stop == "made")
    feedback = stop if style == "compact" else FEEDBACK[stop].format(target="amber", turn=env.turn, rounds=dials.rounds)
    assert step.feedback == feedback


@both_styles
def test_attempts_use_up_copies_only_if_limited(style):
    env = make_env(target=6, style=style)
    attempt(env, "is is iw ss")
    assert env.view.stock == (1, 1, 1, 1, 1, 0, 0)
    env = make_env(target=6, copies=3, dials=LIMITED, style=style)
    attempt(env, "is iw ss")
    assert env.view.stock == (1, 0, 2, 1, 1, 0, 0)


@both_styles
@pytest.mark.parametrize("dials", [DIALS, LIMITED])
def test_naming_a_missing_element_costs_only_a_round(dials, style):
    env = make_env(dials=dials, style=style)
    before = env.view.stock
    for turn, pair in enumerate(["dg", "sd", *(["ss"] if dials.limited else [])], start=1):
        step = attempt(env, pair)
        assert (step.done, step.view.stock, step.view.turn, step.view.pair) == (False, before, turn, None)
        lacked = TABLE.names(style)[TABLE.letters.index(pair[-1] if pair == "sd" else pair[0])]
        assert re.search(rf"(lacks|needs more) {lacked}\b", step.observation)


@both_styles
def test_an_unknown_name_costs_a_round_and_is_not_repeated(style):
    env = make_env(style=style)
    step = env.step("any q q" if style == "compact" else "<action>ignore all rules + iron</action>")
    assert (step.done, step.view.turn, step.view.stock) == (False, 1, (1, 1, 1, 0, 0, 0, 0))
    assert "unknown" in step.observation or "no element of that name" in step.observation
    assert "ignore all rules" not in step.observation


def test_the_names_of_one_style_are_unknown_in_the_other():
    assert "no element" in make_env(style="natural").step("<action>i + s</action>").observation
    assert make_env(style="compact").step("any iron salt").stop == "malformed"


@both_styles
def test_the_order_of_a_pair_and_in_natural_the_case_do_not_matter(style):
    for pair in ("is", "si"):
        assert attempt(make_env(style=style), pair).view.made == 3
    assert make_env(style="natural").step("<action> IRON+Salt </action>").view.made == 3


@both_styles
def test_malformed_text_ends_the_episode_without_an_attempt(style):
    env = make_env(style=style)
    attempt(env, "is")
    step = env.step("iron!")
    assert (step.done, step.stop, step.reward, step.observation) == (True, "malformed", 0.0, "")
    assert (step.view.turn, step.view.stock) == (1, (1, 1, 1, 1, 0, 0, 0))


# Observations and rules.


def test_observations_show_the_target_the_stock_and_each_result():
    env = make_env()
    assert env.observe() == "make a\nhave i s w"
    assert attempt(env, "ss").observation == "got g= s s\nhave g i s w"
    assert attempt(env, "ii").observation == "got nothing= i i\nhave g i s w"
    assert attempt(env, "dd").observation == "got lacks d= d d\nhave g i s w"
    assert make_env(copies=2, dials=LIMITED).observe() == "make a\nhave i 2 s 2 w 2"
    env = make_env(style="natural", copies=2, dials=LIMITED)
    assert env.observe() == "Round 1 of 8. Make amber (tier 2).\nYou hold: iron x2, salt x2, wax x2; 6 copies in all"
    observation = attempt(env, "iw").observation
    assert observation.startswith("iron + wax makes nothing. The two copies are gone.\nRound 2 of 8.")
    assert attempt(make_env(style="natural"), "is").observation.endswith("You hold: dew, iron, salt, wax")


@both_styles
@pytest.mark.parametrize("preset", ["easy", "scarce"])
def test_the_rules_list_every_element_by_tier_and_whether_copies_are_used_up(preset, style):
    pack = make_pack("alchemy-v1", preset, "dev", 0, 1)
    table, rules_text = pack.world.hidden.table, pack.domain.rules_text(pack.tasks[0], style)
    for tier, elements in enumerate(table.tiers):
        names = [table.names(style)[e] for e in elements]
        line = f"tier {tier} {' '.join(names)}" if style == "compact" else f"Tier {tier}: {', '.join(names)}"
        assert line in rules_text.splitlines()
    assert ("uses up" in rules_text or "limited" in rules_text) == (preset == "scarce")


@pytest.mark.parametrize("preset", V1_PRESETS)
def test_the_compact_style_has_a_small_vocabulary_of_short_words(preset):
    words = set()
    for pack in packs("alchemy-v1", preset, count=6, size=2):
        words |= set(pack.domain.rules_text(pack.tasks[0], "compact").split())
        words |= set(pack.domain.oracle_context(pack.world, "compact").split())
        policy = pack.domain.policy("random", pack.world)
        for task in pack.tasks:
            env, step = task.env(style="compact"), None
            words |= set(env.observe().split())
            while step is None or not step.done:
                reply = policy.act(env.view)
                step = env.step(reply)
                words |= set(f"{reply} {step.observation} {step.feedback}".split())
    known = {
        "alchemy",
        "rounds",
        "limited",
        "drift",
        "tier",
        "make",
        "have",
        "any=",
        "got",
        "lacks",
        "nothing=",
        "try",
        "made",
        "late",
        "spent",
    }
    assert {word for word in words if not re.fullmatch(r"[a-z]=?|\d\d?", word)} <= known


def test_the_tasks_of_a_twin_can_be_solved():
    for pack in [*packs("alchemy-v1", "scarce", size=8), *packs("alchemy-v1", "hard", size=8)]:
        twin = pack.domain.twin(pack.world, stream("twin", pack.index))
        assert not set(twin.hidden.targets) & twin.hidden.noise
        for task in pack.tasks:
            assert pack.domain.ceiling(replace(task, world=twin)) > 0


@pytest.mark.parametrize("rules", [V0, V1])
@both_styles
def test_the_updater_sees_the_result_of_the_last_round_only_in_v1(rules, style):
    for pairs in ("ss wg", "is is is is is is is iw"):
        env, turns = make_env(rules=rules, style=style), []
        observation = env.observe()
        for pair in pairs.split():
            step = attempt(env, pair)
            turns.append(Turn(observation, "..."))
            observation = step.observation
        prompt = Rewrite().prompt(
            Trajectory("rules", tuple(turns), step.observation, step.reward, step.feedback), "", style
        )
        results = {"wg": {"natural": "wax + glass makes amber.", "compact": "got a= w g"}}
        results |= {"iw": {"natural": "iron + wax makes nothing.", "compact": "got nothing= i w"}}
        assert (results[pairs[-2:]][style] in prompt.user) == rules.last_round_shown


# Parsing replies.


@pytest.mark.parametrize(
    ("reply", "pair"),
    [
        ("<action>iron + salt</action>", ("iron", "salt")),
        ("so <action>\nIron+iron\n</action> it is", ("iron", "iron")),
        ("<action>iron</action>", None),
        ("<action>iron +</action>", None),
        ("<action>+ iron</action>", None),
        ("<action>iron + salt + wax</action>", None),
        ("<action></action>", None),
        ("<action>a + b</action><action>a + b</action>", None),
        ("the <action> tag: <action>a + b</action>", None),
        ("</action>a + b<action>", None),
        ("<ACTION>a + b</ACTION>", None),
        ("iron + salt", None),
    ],
)
def test_natural_requires_exactly_two_names_in_exactly_one_pair_of_tags(reply, pair):
    assert read_pair(reply, "natural") == pair


@pytest.mark.parametrize(
    ("reply", "pair"),
    [
        ("e a c", ("a", "c")),
        ("a c", ("a", "c")),
        (" any\n a  a ", ("a", "a")),
        ("c", None),
        ("", None),
        ("a + c", None),
        ("a C", None),
        ("a c.", None),
        ("a \u0430", None),
    ],
)
def test_compact_reads_the_last_two_words(reply, pair):
    assert read_pair(reply, "compact") == pair


pieces = st.sampled_from(
    ["<action>", "</action>", "iron", "salt", "+", "i", "s", "z", " ", "\n", "any", "\u212a", "\x00"]
)


@both_styles
@given(replies=st.lists(text | st.lists(pieces).map("".join), max_size=10), limited=st.booleans())
@settings(max_examples=100)
def test_any_text_keeps_the_environment_within_its_bounds(style, replies, limited):
    env, step = make_env(copies=2, dials=LIMITED if limited else DIALS, style=style), None
    for reply in replies:
        before = sum(env.view.stock)
        step = env.step(reply)
        assert 0 <= step.reward <= 1
        assert all(n >= 0 for n in step.view.stock)
        assert step.view.turn <= 8
        assert sum(step.view.stock) <= before + (not limited)
        if step.done:
            break
    assert step is None or (step.stop == "malformed") == (read_pair(reply, style) is None)


# Shortest plans and the copies they take.


def brute_force_length(book, stock, target, limited, rounds):
    """Return the minimum number of rounds to the target by trying every order of every pair, or None above `rounds`."""
    frontier = {tuple(stock)}
    for done in range(rounds + 1):
        if any(held[target] for held in frontier):
            return done
        after = set()
        for held, (a, b) in itertools.product(frontier, book.products):
            more = list(held)
            more[a] -= 1
            more[b] -= 1
            if min(more) >= 0 or (not limited and held[a] and held[b]):
                more = more if limited else list(held)
                more[book.products[a, b]] = more[book.products[a, b]] + 1 if limited else 1
                after.add(tuple(more))
        frontier = after
    return None


@pytest.mark.parametrize("limited", [True, False])
def test_a_plan_is_as_short_as_an_exhaustive_search_finds(limited):
    dials = replace(V1_PRESETS["tiny"], recipes=(1, 2), tiers=(4, 4), growth=(0.7, 1.0))
    lengths = Counter()
    for i in range(12):
        book = draw_book(stream("slow", i), dials, replace(V1, refuse=False))
        for target, copies in itertools.product(book.targets, (1, 2) if limited else (1,)):
            stock = opening_stock(book.table, copies)
            pairs = plan(book.pairs_by_product, stock, target, limited)
            slow = brute_force_length(book, stock, target, limited, 5)
            lengths[slow] += 1
            assert slow == (None if pairs is None or len(pairs) > 5 else len(pairs))
    assert len(lengths) > 3


def test_a_plan_starts_from_the_stock():
    assert plan(BOOK.pairs_by_product, (1, 1, 1, 0, 0, 0, 0), 5, limited=False) == ((1, 1), (2, 4))
    assert plan(BOOK.pairs_by_product, (0, 0, 0, 1, 0, 1, 0), 6, limited=True) == ((3, 5),)
    assert plan(BOOK.pairs_by_product, (1, 1, 0, 0, 0, 0, 0), 5, limited=True) is None
    assert plan(BOOK.pairs_by_product, (0, 0, 0, 0, 0, 0, 1), 6, limited=True) == ()


def test_the_minimum_number_of_copies_suffices_and_one_less_does_not():
    assert [least_copies(BOOK, target) for target in (3, 4, 5, 6)] == [1, 2, 2, 3]
    for pack in packs("alchemy-v1", "scarce"):
        book = pack.world.hidden
        for target in book.targets:
            copies = least_copies(book, target)
            assert brute_force_length(book, opening_stock(book.table, copies), target, True, 8) is not None
            assert brute_force_length(book, opening_stock(book.table, copies - 1), target, True, 8) is None


def test_the_papers_count_is_too_low_if_an_element_is_needed_twice():
    book = Book(TABLE, ((0, 1, 3), (3, 3, 5)), frozenset(), (5,))
    assert counted_copies(book, 5) == 1  # counts one of the two dews as missing, instead of its iron and salt
    assert least_copies(book, 5) == 2


# Worlds.


@pytest.mark.parametrize("preset", V1_PRESETS)
def test_every_task_of_v1_can_be_solved_and_has_a_new_target(preset):
    dials = V1_PRESETS[preset]
    for pack in packs("alchemy-v1", preset, size=dials.targets):
        book = holds(pack.world.hidden)
        asked = [task.content.target for task in pack.tasks]
        assert len(set(asked)) == dials.targets
        assert not set(asked) & book.noise
        assert len(book.pairs_by_product) - len(book.noise) > dials.targets or preset in ("noisy", "hard")
        assert all(pack.domain.ceiling(task) >= 0.9 for task in pack.tasks)
        assert len(book.table.tier) <= 26


@both_versions
@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_books_are_well_formed(id, preset):
    for pack in packs(id, preset, count=8):
        book, table = pack.world.hidden, pack.world.hidden.table
        assert sorted(e for tier in table.tiers for e in tier) == list(range(len(table.tier)))
        assert all(table.tier[e] == t for t, elements in enumerate(table.tiers) for e in elements)
        assert len(set(table.words)) == len(set(table.letters)) == len(table.tier)
        assert all(re.fullmatch("[a-z]{3,5}", word) and word not in RESERVED for word in table.words)
        assert len(book.products) == len(book.recipes)
        for a, b, product in book.recipes:
            assert a <= b
            assert table.tier[product] == 1 + max(table.tier[a], table.tier[b])
            assert product in book.noise or not {a, b} & book.noise


def test_a_book_is_rejected_if_a_target_takes_too_many_rounds_or_cannot_be_made():
    dials = replace(DIALS, targets=3)
    assert [acceptable(BOOK, replace(dials, rounds=rounds)) for rounds in (3, 4)] == [False, True]
    assert [acceptable(BOOK, replace(dials, limited=True, rounds=rounds)) for rounds in (3, 4)] == [False, True]
    assert not acceptable(replace(BOOK, recipes=BOOK.recipes[:-1]), dials)
    assert not acceptable(BOOK, replace(DIALS, targets=4))


def test_each_preset_of_v1_changes_one_dial():
    easy, changed = V1_PRESETS["easy"], {}
    for name in ("tall", "wide", "double", "noisy", "scarce", "limited"):
        to = V1_PRESETS["limited"] if name == "scarce" else easy
        changed[name] = {f for f in easy.__dataclass_fields__ if getattr(to, f) != getattr(V1_PRESETS[name], f)}
    assert changed.pop("limited") == {"limited", "copies"}  # copies have no effect unless they are used up
    assert sorted(map(len, changed.values())) == [1] * 5
    assert len(set.union(*changed.values())) == 5


def test_in_limited_rounds_run_out_before_copies():
    for pack in packs("alchemy-v1", "limited", count=12):
        policy = pack.domain.policy("random", pack.world)
        for task in pack.tasks:
            env = task.env(style="compact")
            play(policy, env)
            assert env.turn == 8 or env.view.made == task.content.target


@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_train_and_held_out_books_are_disjoint_under_any_names(preset):
    dials = V1_PRESETS[preset]
    for split in ("train", "dev"):
        for pack in packs("alchemy-v1", preset, size=1, split=split):
            book = pack.world.hidden
            twin = book.shuffled(stream("names", pack.index), book.table.tier)
            table = replace(book.table, words=book.table.words[::-1], letters=book.table.letters[::-1])
            assert (
                replace(twin, table=table).side
                == twin.side
                == book.side
                == ("train" if split == "train" else "held-out")
            )
            assert pack.world.dials == dials
    sides = Counter(draw_book(stream("side", i), dials, V1).side for i in range(80))
    assert 8 < sides["held-out"] < 35


def test_v0_does_not_split_books():
    for split in ("train", "dev"):
        assert {pack.world.hidden.side for pack in packs("alchemy-v0", "hard", 40, 1, split)} == {"train", "held-out"}


def test_dials_without_an_acceptable_book_raise_value_error(monkeypatch):
    monkeypatch.setattr("codots.domains.alchemy.draw.MAX_DRAWS", 20)
    with pytest.raises(ValueError, match=r"20 books with .* were rejected; expected dials that allow more targets"):
        draw_book(stream("none"), V0_EASY, V1)


# Version differences, one switch at a time.


def books(rules, dials=HARD, count=40):
    return [draw_book(stream("switch", i), dials, rules) for i in range(count)]


def test_v0_has_tiers_of_one_element_and_v1_has_none():
    assert min(len(tier) for book in books(V0, V0_HARD) for tier in book.table.tiers) == 1
    assert min(len(tier) for book in books(V1) for tier in book.table.tiers) == 2


def test_recipes_never_cross_a_tier_in_v0_and_often_do_in_v1():
    def crossing(dials, rules):
        drawn = books(rules, dials)
        tiers = [
            [book.table.tier[e] for e in (a, b)] for book in drawn for a, b, p in book.recipes if book.table.tier[p] > 1
        ]
        return np.mean([min(pair) < max(pair) for pair in tiers])

    assert crossing(V0_EASY, V0) == crossing(V0_HARD, V0) == 0
    assert crossing(V1_PRESETS["easy"], V1) == pytest.approx(0.2, abs=0.06)
    assert crossing(HARD, V1) == pytest.approx(0.2, abs=0.06)


def test_noise_comes_last_in_its_tier_in_v0_and_anywhere_in_v1():
    def last(rules):
        tiers = [(book, tier) for book in books(rules) for tier in book.table.tiers if set(tier) & book.noise]
        return np.mean([{*tier[-len(set(tier) & book.noise) :]} <= book.noise for book, tier in tiers])

    assert last(V0) == 1
    assert last(V1) < 0.6


def test_targets_repeat_in_v0():
    repeats = [[t.content.target for t in pack.tasks] for pack in packs("alchemy-v0", "easy", size=8)]
    assert all(len(set(asked)) <= 4 for asked in repeats)
    assert all(asked[j] in asked[:j] for asked in repeats for j in range(4, 8))


def test_targets_of_higher_tiers_are_drawn_more_often_than_their_share():
    common, drawn = [], []
    for book in books(V1, V1_PRESETS["easy"], 150):
        common.append(np.mean([tier - 1 for e, tier in enumerate(book.table.tier) if tier]))
        drawn.append(np.mean([book.table.tier[e] - 1 for e in book.targets]))
    assert np.mean(drawn) > np.mean(common) + 0.02


def test_some_tasks_of_v0_cannot_be_solved_and_every_policy_earns_zero():
    drawn = [task for pack in packs("alchemy-v0", "hard", 60, 8) for task in pack.tasks]
    unsolvable = [task for task in drawn if task.domain.ceiling(task) == 0]
    assert 0.005 < len(unsolvable) / len(drawn) < 0.07  # 2.8% over many packs
    for task in unsolvable[:3]:
        for name in ("random", "informed", "bayes"):
            assert play(task.domain.policy(name, task.world), task.env(style="compact")) == 0


@both_styles
def test_only_the_natural_style_of_v0_advises_exploration(style):
    advised = [id for id in ("alchemy-v0", "alchemy-v1") if "later tasks" in rules(id, style)]
    assert advised == (["alchemy-v0"] if style == "natural" else [])


def rules(id, style):
    task = make_pack(id, "easy", "dev", 0, 1).tasks[0]
    return task.domain.rules_text(task, style)


# The scripted policies.


def mean_rewards(id, preset, name, count, size):
    return np.mean([rollout_rewards(pack, name) for pack in packs(id, preset, count, size)], axis=0)


def rollout_rewards(pack, name):
    policy = pack.domain.policy(name, pack.world)
    return [play(policy, task.env(style="compact")) for task in pack.tasks]


@pytest.mark.parametrize(("preset", "random", "informed"), [("easy", 0.37, 0.978), ("hard", 0.27, 0.957)])
def test_random_and_informed_reproduce_the_figures_of_v0(preset, random, informed):
    assert mean_rewards("alchemy-v0", preset, "random", 60, 8).mean() == pytest.approx(random, abs=0.06)
    assert mean_rewards("alchemy-v0", preset, "informed", 60, 8).mean() == pytest.approx(informed, abs=0.025)


def test_the_targets_of_v0_have_the_tier_distribution_of_its_rules():
    for preset, mix in {"easy": (0.54, 0.32, 0.14), "hard": (0.55, 0.34, 0.11)}.items():
        drawn = [(pack, task) for pack in packs("alchemy-v0", preset, 80, 8) for task in pack.tasks]
        tiers = Counter(pack.world.hidden.table.tier[task.content.target] for pack, task in drawn)
        assert [tiers[t] / len(drawn) for t in (1, 2, 3)] == pytest.approx(mix, abs=0.05)


class WithinTierSearch:
    """Remembers every pair and tries new pairs within any tier below the target's. Its score in v0 is known."""

    def __init__(self, rng):
        self.rng, self.products, self.dead = rng, {}, set()

    def act(self, view):
        self.end(view)
        known = plan(invert_products(self.products), view.stock, view.target, view.limited)
        if known and len(known) <= view.rounds - view.turn:
            return write_plan(known[:1], {}, view)
        tier = view.table.tier
        new = [p for p in feasible(view) if tier[p[0]] == tier[p[1]] < tier[view.target] and p not in self.dead]
        new = [p for p in new if p not in self.products or not view.stock[self.products[p]]] or feasible(view)
        return write_plan([new[self.rng.integers(len(new))]], {}, view)

    def end(self, view):
        view = getattr(view, "view", view)
        if view.pair is not None and view.made is not None:
            self.products[view.pair] = view.made
        elif view.pair is not None:
            self.dead.add(view.pair)


def test_a_within_tier_search_reproduces_the_figures_of_v0():
    curves = []
    for pack in packs("alchemy-v0", "easy", 80):
        policy = WithinTierSearch(stream("plain", pack.index))
        curves.append([play(policy, task.env(style="compact")) for task in pack.tasks])
    assert np.mean(curves, axis=0) == pytest.approx([0.74, 0.94, 0.97, 0.975], abs=0.08)


def test_in_v1_the_adaptive_policy_improves_and_the_ceiling_is_far_above_the_floor():
    climb = mean_rewards("alchemy-v1", "easy", "bayes", 80, 4)
    assert climb[3] - climb[0] > 0.2
    drawn = [task for pack in packs("alchemy-v1", "easy", 30) for task in pack.tasks]
    assert np.mean([task.domain.ceiling(task) - task.domain.floor(task) for task in drawn]) > 0.5


def test_the_true_context_raises_the_reward_in_v1():
    with_, without = (
        np.mean([life(pack, "bayes", context(pack), "compact") for pack in packs("alchemy-v1", "easy", 25)])
        for context in (lambda pack: pack.domain.oracle_context(pack.world, "compact"), lambda pack: "")
    )
    assert with_ - without > 0.15


def test_the_adaptive_policy_never_retries_a_pair_that_makes_nothing_and_keeps_every_recipe():
    for pack in packs("alchemy-v1", "easy"):
        policy, tried = pack.domain.policy("bayes", pack.world), Counter()
        for task in pack.tasks:
            env, step = task.env(style="compact"), None
            while step is None or not step.done:
                step = env.step(policy.act(env.view))
                tried[step.view.pair, step.view.made] += 1
            policy.end(step)
        assert all(count == 1 for (_, made), count in tried.items() if made is None)
        assert policy.products == {pair: made for pair, made in tried if made is not None}


def test_the_adaptive_policy_trusts_observations_over_the_context():
    policy = AdaptivePolicy(TABLE, DIALS, stream("told"))
    policy.read("a = i w d = i i nothing = i s")
    env = make_env()
    assert read_pair(policy.act(env.view), "compact") == ("i", "w")
    env.step("any i w")
    policy.act(env.view)
    env.step("any i s")
    policy.act(env.view)
    assert policy.dead == {(0, 2)}
    assert policy.products == {(0, 1): 3}  # dew has one recipe, so the claim that iron and iron make it is wrong


@pytest.mark.parametrize("cross", [0.0, 0.4])
def test_the_prior_matches_how_recipes_are_drawn(cross):
    dials = replace(DIALS, growth=(0.7, 0.7), gap=3, cross=(cross, cross), targets=2)
    drawn = [draw_book(stream("prior", i), dials, replace(V1, refuse=False)) for i in range(1000)]
    kinds = Counter()
    for book in drawn:
        (a, b) = book.pairs_by_product[min(book.table.tiers[2])][0]
        kinds[book.table.tier[a], a == b] += 1
    expected, table = Counter(), drawn[0].table
    for (a, b), chance in prior(table, dials, 2):
        expected[table.tier[a], a == b] += chance
    assert sum(expected.values()) == pytest.approx(1)
    for kind, chance in expected.items():
        assert kinds[kind] / len(drawn) == pytest.approx(chance, abs=0.06)


def test_random_draws_are_uniform_and_the_floor_is_their_mean_reward():
    task = make_pack("alchemy-v1", "tiny", "dev", 1, 1).tasks[0]
    policy, view = task.domain.policy("random", task.world), task.env(style="compact").view
    drawn = Counter(policy.act(view) for _ in range(3000))
    assert len(drawn) == len(feasible(view)) == 6
    assert min(drawn.values()) > 420
    rewards = np.array([play(policy, task.env(style="compact")) for _ in range(400)])
    assert abs(rewards.mean() - task.domain.floor(task)) < 4 * rewards.std() * (1 / 400 + 1 / 32) ** 0.5
    assert task.domain.floor(task) == task.domain.floor(task)


@both_styles
def test_a_written_pair_is_read_back(style):
    env = make_env(style=style, target=6)
    for pair, aim in itertools.product(feasible(env.view), (None, 3)):
        names = env.view.table.names(style)
        products = {} if aim is None else {pair: aim}
        assert read_pair(write_plan([pair], products, env.view), style) == tuple(names[e] for e in pair)


def test_a_compact_reply_names_the_recipes_from_the_target_down_to_the_pair():
    replies = []
    for task in make_pack("alchemy-v1", "tall", "dev", 0, 8).tasks:
        env, policy = task.env(style="compact"), get_domain("alchemy-v1").policy("informed", task.world)
        step = None
        while step is None or not step.done:
            replies.append((env.view, policy.act(env.view)))
            step = env.step(replies[-1][1])
        assert step.reward > 0.8
    for view, reply in replies:
        recipes = re.findall(r"(\w)= (\w) (\w)", reply)
        assert " ".join(["try", *(f"{made}= {a} {b}" for made, a, b in recipes)]) == reply
        assert recipes[0][0] == view.table.letters[view.target]
        held = {view.table.letters[e] for e, count in enumerate(view.stock) if count}
        assert set(recipes[-1][1:]) <= held
        for (_, *inputs), (made, *_) in itertools.pairwise(recipes):
            assert made in inputs
            assert made not in held


def test_an_unknown_policy_or_style_raises_with_the_known_ones():
    pack = make_pack("alchemy-v1", "tiny", "dev", 0, 1)
    with pytest.raises(ValueError, match="unknown policy 'oracle'; expected one of bayes, informed, random"):
        pack.domain.policy("oracle", pack.world)
    with pytest.raises(ValueError, match="unknown prompt style 'terse'; expected one of compact, natural"):
        pack.tasks[0].env(style="terse")


# Claims in contexts.


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [
        ("", 0, 0),
        ("d = i s g = s s", 2, 0),
        ("d = s i", 1, 0),
        ("g = i s", 0, 1),
        ("- iron + salt makes dew\n- Salt and salt gives GLASS", 2, 0),
        ("iron with salt -> dew; wax + glass: amber", 2, 0),
        ("iron and salt = dew", 1, 0),
        ("d = i s d = i s", 1, 0),
        ("d = i s g = i s", 1, 1),
        ("nothing = i w", 0, 0),
        ("q = i i", 0, 0),
        ("iron salt dew", 0, 0),
        ("a = d g a = w g", 2, 0),
    ],
)
def test_facts_counts_each_claimed_recipe_once(context, right, wrong):
    assert get_domain("alchemy-v1").facts(World(BOOK, DIALS), context) == (right, wrong, 5)


@both_styles
@given(st.sets(st.sampled_from(BOOK.recipes)))
def test_written_recipes_are_read_back(style, recipes):
    domain = get_domain("alchemy-v1")
    assert read_claims(TABLE, domain.note((write_claim(TABLE, r, style) for r in recipes), style)) == list(recipes)


@both_styles
@given(st.sets(st.sampled_from([(a, b) for a in range(7) for b in range(a, 7)]), min_size=1))
def test_written_failures_are_read_back_and_do_not_count_as_claims(style, pairs):
    line = write_failures(TABLE, sorted(pairs), style)
    assert read_claims(TABLE, line) == [(*pair, NOTHING) for pair in sorted(pairs)]
    assert read_context(TABLE, line, 1).dead == pairs
    assert get_domain("alchemy-v1").facts(World(BOOK, DIALS), line) == (0, 0, 5)


def test_what_the_rules_exclude_is_not_believed_and_the_last_claim_counts():
    told = read_context(TABLE, "d = d d; s = z i; a = i i; d = i s; d = s s; g = i w; nothing = i w; g = w w", 1)
    assert told.products == {(0, 0): 5, (1, 1): 3, (2, 2): 4}
    assert told.dead == {(0, 2)}


@pytest.mark.parametrize("preset", ["easy", "double", "hard"])
def test_twins_share_subjects_which_name_products_and_no_inputs(preset):
    for pack in packs("alchemy-v1", preset, 10):
        domain, world = pack.domain, pack.world
        claims = domain.claims(world, "natural")
        assert [*claims] == [*domain.claims(domain.twin(world, stream("twin", *pack.names)), "natural")]
        assert sorted(claims.values()) == sorted(domain.oracle_context(world, "natural").splitlines())
        for subject, claim in claims.items():
            assert claim.endswith(f"makes {subject}") or subject.startswith("further recipe")


def test_a_guess_is_a_recipe_of_its_product_and_rarely_right():
    pack = make_pack("alchemy-v1", "double", "dev", 0, 1)
    domain, world, rng, right = pack.domain, pack.world, stream("guess"), []
    for subject in [*domain.claims(world, "compact")] * 20:
        guess = domain.guess(world, subject, "compact", rng)
        ((_, _, product),) = read_claims(world.hidden.table, guess)
        assert product in products_of(world.hidden.table, subject)
        right.append(domain.facts(world, guess)[0])
    assert np.mean(right) < 0.3


@both_styles
@pytest.mark.parametrize("name", ["random", "bayes"])
@pytest.mark.parametrize(("id", "preset"), [("alchemy-v0", "hard"), ("alchemy-v1", "easy"), ("alchemy-v1", "hard")])
def test_readers_of_the_true_book_reach_informed(id, preset, name, style):
    drawn = packs(id, preset, 10)
    read = [life(pack, name, pack.domain.oracle_context(pack.world, style), style) for pack in drawn]
    assert np.mean(read) == pytest.approx(np.mean(mean_rewards(id, preset, "informed", 10, 4)))


@both_styles
@pytest.mark.parametrize("preset", ["easy", "double", "hard"])
def test_a_new_bayes_that_reads_the_notes_knows_what_matters(preset, style):
    for pack in packs("alchemy-v1", preset, 5):
        old, new = (pack.domain.policy("bayes", pack.world) for _ in range(2))
        for task in pack.tasks:
            play(old, task.env(style=style))
        new.read(pack.domain.note(old.notes(style).values(), style))
        tier = pack.world.hidden.table.tier
        open_tiers = {tier[e] for e in range(len(tier)) if e not in old.products.values()}
        assert new.products == old.products
        assert new.dead == {pair for pair in old.dead if tier[pair[1]] + 1 in open_tiers}


def test_notes_carry_a_life():
    noted, whole = last_rewards("alchemy-v1", "easy", 15)
    assert noted > whole - 0.15  # .05 on many packs


def test_random_follows_claims_until_they_fail_and_avoids_pairs_that_make_nothing():
    env, policy = make_env(target=4), get_domain("alchemy-v1").policy("random", World(BOOK, DIALS))
    policy.read("g = i w; " + "; ".join(f"nothing = {a} {b}" for a, b in ("is", "ii", "sw", "ww")))
    pairs = []
    for _ in range(3):
        pairs.append(read_pair(policy.act(env.view), "compact"))
        env.step(f"g {pairs[-1][0]} {pairs[-1][1]}")
    assert pairs[0] == ("i", "w")
    assert pairs[1] in {("i", "w"), ("s", "s")}


contexts = text | st.lists(
    st.sampled_from([*TABLE.letters, *TABLE.words, " ", " + ", " = ", " makes ", "nothing", "\n"]), max_size=40
).map("".join)


@both_styles
@given(context=contexts)
def test_any_context_can_be_read_and_played_from(style, context):
    for name in ("random", "bayes"):
        policy = get_domain("alchemy-v1").policy(name, World(BOOK, LIMITED))
        policy.read(context)
        assert 0 <= play(policy, make_env(copies=2, dials=LIMITED, style=style)) <= 1


@pytest.mark.parametrize("filler", ["a ", "d = i s ", "i + ", "nothing ", "= ", "\n", "iiiii", "d = i "])
def test_a_huge_context_is_read_in_linear_time(filler):
    start = time.process_time()
    get_domain("alchemy-v1").policy("bayes", World(BOOK, DIALS)).read(filler * (200_000 // len(filler)))
    assert time.process_time() - start < 2


def test_a_view_can_be_drawn():
    view = make_env(copies=2, dials=LIMITED, style="natural").view
    assert get_domain("alchemy-v1").draw(view) == "round 0 of 8, target amber\nironx2 saltx2 waxx2"


def test_the_life_in_the_docs_matches_a_real_run():
    pack = make_pack("alchemy-v1", "easy", "dev", 0, 3)
    policy, notes = pack.domain.policy("bayes", pack.world), ""
    lines = [pack.domain.rules_text(pack.tasks[0], "compact")]
    for task in pack.tasks:
        env, step = task.env(style="compact"), None
        lines += ["", f"notes {notes}".strip(), *quoted(env.observe())]
        while step is None or not step.done:
            reply = policy.act(env.view)
            step = env.step(reply)
            lines += [reply, *quoted(step.observation)]
        policy.end(step)
        lines.append(f"# {step.feedback}, reward {step.reward:.3f}")
        recipes = ((*pair, product) for pair, product in policy.products.items())
        notes = pack.domain.note((write_claim(pack.world.hidden.table, r, "compact") for r in recipes), "compact")
    assert "\n".join(lines) in DOCS.read_text()


def quoted(text):
    return [f"> {line}" for line in text.splitlines()]
