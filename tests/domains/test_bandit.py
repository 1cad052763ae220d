"""Tests of the bandit: names, payouts, the exact optimum, claims, and a rule that changes."""

import itertools
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codots.context.rewrite import OPEN, Rewrite, Trajectory, Turn
from codots.core.rng import stream
from codots.domains.bandit import NAMES, PRESETS, side_of
from codots.domains.bandit.env import Dials, Option, Secret, View, read_option, write_option
from codots.domains.bandit.names import CODES, LABELS
from codots.domains.bandit.notes import DENIED, LIKELY, NOT, PAYS, SURE, UNSURE, read_claims, write_claim
from codots.domains.bandit.policies import Bayes, possible_rules
from codots.domains.base import Step, World
from codots.domains.drift import Drift, holds
from codots.domains.registry import get_domain, make_pack
from codots.domains.scripted import play_pack

DOMAIN = get_domain("bandit-v1")
DOCS = Path(__file__).parents[2] / "docs/domains/bandit.md"
STYLES = ("natural", "compact")
A, B, C, D = OPTIONS = tuple(itertools.starmap(Option, [("f12", "b1"), ("m34", "d2"), ("k56", "p3"), ("v78", "t4")]))
both_styles = pytest.mark.parametrize("style", STYLES)
every_preset = pytest.mark.parametrize("preset", PRESETS)


def world_of(dials, right=A, options=OPTIONS):
    return World(Secret(options, right), dials, "dev", ("bandit test",))


def packs(preset, split, count=60, size=4):
    return [make_pack("bandit-v1", preset, split, i, size) for i in range(count)]


# Names.


def test_no_name_is_part_of_another_or_a_word_of_a_prompt():
    assert len(LABELS) > 1000
    assert f"{len(LABELS):,} labels" in DOCS.read_text()
    assert f"{len(CODES):,} labels" in DOCS.read_text()
    for names in (LABELS, CODES):
        text = f"\n{chr(10).join(sorted(names))}\n"
        assert len({*names}) == len(names)
        assert [name for name in names if text.count(name) > 1] == []
    prompts = {re.sub(r"\W+", " ", text.lower()) for preset in PRESETS for text in prompts_without_names(preset)}
    spoken = set(" ".join(prompts).split()) | PAYS | DENIED | UNSURE
    assert spoken & {*LABELS, *CODES} == set()


def prompts_without_names(preset):
    """All prompts of a life, without the names of its options."""
    pack, strategy = make_pack("bandit-v1", preset, "dev", 0, 1), Rewrite()
    (task,) = pack.tasks
    for style, option in itertools.product(STYLES, task.content):
        env = task.env(style=style)
        seen, reply, rules = env.observe(), write_option(option, style), DOMAIN.rules_text(task, style)
        step, context = env.step(reply), DOMAIN.oracle_context(pack.world, style)
        ended = Trajectory(rules, (Turn(seen, reply),), step.observation, step.reward, step.feedback)
        for prompt in (strategy.solve(rules, context, seen, style), strategy.prompt(ended, context, style)):
            text = f"{prompt.system} {prompt.user} {task.env(style=style).step('').feedback}"
            yield re.sub("|".join(rf"\b{name}\b" for shown in task.content for name in shown), "", text)


@every_preset
def test_no_name_of_a_train_world_is_in_a_held_out_world(preset):
    names = {
        split: {name for pack in packs(preset, split) for option in pack.tasks[0].content for name in option}
        for split in ("train", "dev", "test")
    }
    assert names["train"].isdisjoint(names["dev"] | names["test"])
    assert {side_of(name) for name in names["train"]} == {"train"}
    assert {side_of(name) for name in names["dev"]} == {"held-out"}
    for groups in NAMES[1]:
        assert sum(map(len, groups.values())) > 30  # so that held-out worlds differ


def test_the_tiny_tokenizer_reads_a_code_by_its_letters(render):
    """So that a model can copy a code that it never saw."""
    for code in CODES:
        for text in (code, f" {code}", f"\n{code}=1"):
            tokens = [render.text([id]) for id in render.reply(text)]
            at = tokens.index(code[0])
            assert tokens[at : at + 2] == [*code]


def test_a_hash_of_the_name_holds_out_a_quarter_of_the_names():
    for names in (LABELS, CODES):
        assert 0.2 < np.mean([side_of(name) == "held-out" for name in names]) < 0.3


@every_preset
def test_the_names_of_a_world_differ_in_their_first_letter(preset):
    for pack in packs(preset, "dev"):
        for names in zip(*pack.tasks[0].content, strict=True):
            assert len({name[0] for name in names}) == PRESETS[preset].options


@every_preset
def test_neither_a_name_nor_a_place_says_what_pays(preset):
    """The right option is uniform over the options as drawn, over the alphabet, and over the places of a task."""
    drawn, k = packs(preset, "train", 600, 2), PRESETS[preset].options
    rights = [holds(pack.world.hidden).right for pack in drawn]
    orders = [
        [holds(pack.world.hidden).options for pack in drawn],
        [sorted(pack.tasks[0].content) for pack in drawn],
        [pack.tasks[0].content for pack in drawn],
        [pack.tasks[1].content for pack in drawn],
    ]
    for order in orders:
        counts = np.bincount([options.index(right) for options, right in zip(order, rights, strict=True)], minlength=k)
        assert ((counts - 600 / k) ** 2 / (600 / k)).sum() < 26.1  # above the .01% points of up to 7 degrees of freedom


@both_styles
def test_a_preference_for_names_earns_no_more_than_the_floor(style):
    """Whatever an order of all names prefers, another option is as likely to pay."""
    rewards = []
    for seed in range(5):
        rank = dict(zip([*LABELS, *CODES], stream("taste", seed).random(3000), strict=False))
        for pack in packs("easy", "train", 400, 1):
            liked = max(pack.tasks[0].content, key=lambda option: rank[option.name(style)])
            rewards.append(pack.tasks[0].env(style=style).step(write_option(liked, style)).reward)
    assert abs(np.mean(rewards) - 0.25) < 4 * 0.433 / len(rewards) ** 0.5


@every_preset
def test_rules_and_observation_are_short(preset):
    for pack, style in itertools.product(packs(preset, "dev", 20, 1), STYLES):
        task = pack.tasks[0]
        text = f"{DOMAIN.rules_text(task, style)}\n{task.env(style=style).observe()}"
        words = len(re.findall(r"\w+|[^\w\s]", text))
        assert words < (20 if style == "compact" else 100)


# Payouts and replies.


@both_styles
@pytest.mark.parametrize("change", [None, (1, 2)])
def test_the_right_option_pays_and_no_other_does(change, style):
    world = DOMAIN.twin(world_of(Dials(4, change=change)), stream("payouts"))
    world = replace(world, hidden=Drift(Secret(OPTIONS, A), Secret(OPTIONS, B), 2)) if change else world
    task = replace(make_pack("bandit-v1", "easy", "dev", 0, 1).tasks[0], world=world, content=OPTIONS)
    for position, option in itertools.product(range(4), OPTIONS):
        step = replace(task, position=position).env(style=style).step(write_option(option, style))
        right = holds(world.hidden, position).right
        assert (step.done, step.reward, step.stop) == (
            True,
            float(option == right),
            "paid" if option == right else "empty",
        )
        assert (step.view.chosen, step.view.paid) == (option, option == right)


def test_noisy_options_pay_as_often_as_the_dials_say():
    paid = {True: [], False: []}
    for pack in packs("noisy", "dev", 500, 1):
        for option in pack.tasks[0].content:
            task = replace(pack.tasks[0], names=(*pack.tasks[0].names, option.label))
            right = option == pack.world.hidden.right
            paid[right].append(task.env(style="compact").step(option.code).reward)
    assert np.mean(paid[True]) == pytest.approx(0.8, abs=0.06)
    assert np.mean(paid[False]) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    ("reply", "option"),
    [
        ("<action> m34 </action>", B),
        ("<action>m34</action>", B),
        ("I choose <action>\nM34.</action> now", B),
        ("<action> 'f12' </action>", A),
        ("<action> p90 </action>", None),
        ("<action> d2 </action>", None),
        ("<action> m34 f12 </action>", None),
        ("<action> name </action>", None),
        ("<action></action>", None),
        ("<action> f12 </action><action> f12 </action>", None),
        ("m34", None),
        ("", None),
    ],
)
def test_natural_requires_one_option_in_one_pair_of_tags(reply, option):
    assert read_option(reply, View(OPTIONS, "natural")) == option


@pytest.mark.parametrize(
    ("reply", "option"),
    [("d2", B), ("try D2.\n", B), ("b1 d2", B), ("d2 b1 z9", None), ("m34", None), ("d2b1", None), ("", None)],
)
def test_compact_reads_the_last_word(reply, option):
    assert read_option(reply, View(OPTIONS, "compact")) == option


@both_styles
@given(
    reply=st.text(max_size=40)
    | st.lists(st.sampled_from(["<action>", "</action>", "f12", "b1", " ", "."])).map("".join)
)
def test_any_text_is_an_option_or_malformed(style, reply):
    task = make_pack("bandit-v1", "easy", "dev", 0, 1).tasks[0]
    step = replace(task, content=OPTIONS, world=world_of(PRESETS["easy"])).env(style=style).step(reply)
    assert step.done
    assert (step.stop == "malformed") == (step.view.chosen is None)


# The exact optimum.


def likelihood(dials, right, option, paid):
    chance = dials.chance if option == right else dials.stray
    return chance if paid else 1 - chance


def rules_of(dials):
    """Return the right option at each of eight positions, for every equally likely world, by definition."""
    if dials.change is None:
        return [(right,) * 8 for right in OPTIONS]
    first, last = dials.change
    return [
        tuple(before if j < position else after for j in range(8))
        for before, after in itertools.product(OPTIONS, repeat=2)
        if before != after
        for position in range(first, last + 1)
    ]


def chance_to_pay(dials, seen, option):
    """Return the probability that an option pays next, given what was chosen and paid, by enumeration."""
    weights = {
        rule: np.prod([likelihood(dials, rule[j], *one) for j, one in enumerate(seen)]) for rule in rules_of(dials)
    }
    pays = sum(weight * likelihood(dials, rule[len(seen)], option, True) for rule, weight in weights.items())
    return pays / sum(weights.values())


DIALS = [PRESETS["easy"], PRESETS["noisy"], PRESETS["drift"], Dials(4, 0.8, 0.1, (1, 4))]


def shown(policy, option, paid):
    policy.end(Step("", float(paid), True, "", "paid" if paid else "empty", View(OPTIONS, "compact", option, paid)))


@pytest.mark.parametrize("dials", DIALS)
@given(seen=st.lists(st.tuples(st.sampled_from(OPTIONS), st.booleans()), max_size=7))
def test_bayes_chooses_the_option_that_a_slow_enumeration_finds_best(dials, seen):
    """This covers the hazard of a change: the enumeration knows how likely each position is."""
    if not sum(np.prod([likelihood(dials, r[j], *one) for j, one in enumerate(seen)]) for r in rules_of(dials)):
        return  # impossible in this preset
    policy = Bayes(OPTIONS, dials)
    for option, paid in seen:
        shown(policy, option, paid)
    chances = {option: chance_to_pay(dials, seen, option) for option in OPTIONS}
    chosen = read_option(policy.act(View(OPTIONS, "compact")), View(OPTIONS, "compact"))
    assert chances[chosen] == pytest.approx(max(chances.values()), abs=1e-9)
    for option, chance in policy.chances(len(seen)).items():
        assert dials.stray + chance * (dials.chance - dials.stray) == pytest.approx(chances[option], abs=1e-9)


def best_rewards(dials, size):
    """Return the reward by position of a player who maximizes each task's reward, averaged over all worlds and luck."""
    totals = np.zeros(size)

    def visit(seen, weight):
        if len(seen) == size or not weight:
            return
        chances = {option: chance_to_pay(dials, seen, option) for option in OPTIONS}
        best = max(OPTIONS, key=lambda option: round(chances[option], 12))
        totals[len(seen)] += weight * chances[best]
        visit((*seen, (best, True)), weight * chances[best])
        visit((*seen, (best, False)), weight * (1 - chances[best]) if chances[best] < 1 - 1e-12 else 0)

    visit((), 1.0)
    return totals


def test_the_slow_enumeration_earns_what_arithmetic_says():
    assert best_rewards(PRESETS["easy"], 4) == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert best_rewards(PRESETS["noisy"], 1) == pytest.approx([0.275])


def test_bayes_earns_a_quarter_more_at_each_position_of_easy():
    """In every pack, averaged over the four options that may pay."""
    for pack in packs("easy", "dev", 50):
        rewards = []
        for right in pack.world.hidden.options:
            world = replace(pack.world, hidden=replace(pack.world.hidden, right=right))
            twin = replace(pack, world=world, tasks=tuple(replace(task, world=world) for task in pack.tasks))
            rewards.append([played.reward for played in play_pack(twin, "bayes")])
        assert np.mean(rewards, axis=0).tolist() == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("preset", ["noisy", "drift"])
def test_bayes_earns_in_drawn_packs_what_the_enumeration_expects(preset):
    rewards = [[played.reward for played in play_pack(pack, "bayes")] for pack in packs(preset, "train", 1000, 4)]
    expected = best_rewards(PRESETS[preset], 4)
    assert np.abs(np.mean(rewards, axis=0) - expected).max() < 4 * 0.5 / len(rewards) ** 0.5


# A rule that changes.


def test_the_drawn_change_is_uniform_over_its_positions_and_over_the_other_options():
    drifts = [pack.world.hidden for pack in packs("drift", "train", 800, 1)]
    positions = [drift.position for drift in drifts]
    assert {*positions} == {2, 3, 4, 5}
    assert min(positions.count(position) for position in (2, 3, 4, 5)) > 150
    for drift in drifts:
        assert drift.before.options == drift.after.options
        assert drift.before.right != drift.after.right
    rules = possible_rules(OPTIONS, PRESETS["drift"])
    assert len({*rules}) == len(rules) == 4 * 3 * 4


@pytest.mark.parametrize("style", ["natural", "compact"])
def test_a_partial_context_denies_one_or_more_wrong_options(style):
    pack = make_pack("bandit-v1", "easy", "train", 3, 4)
    secret, rng = holds(pack.world.hidden), stream("partial")
    drawn = [read_claims(pack.domain.partial_context(pack.world, style, rng), secret.options) for _ in range(60)]
    assert all(set(claims.values()) == {NOT} and secret.right not in claims for claims in drawn)
    assert {len(claims) for claims in drawn} == {1, 2, 3}


def test_claims_and_facts_are_those_of_the_position():
    world = replace(world_of(PRESETS["drift"]), hidden=Drift(Secret(OPTIONS, A), Secret(OPTIONS, B), 3))
    claims = [DOMAIN.oracle_context(world.at(j), "natural") for j in (0, 2, 3, 7)]
    assert claims == ["- f12 pays", "- f12 pays", "- m34 pays", "- m34 pays"]
    assert DOMAIN.oracle_context(world, "compact") == "b1=1"
    assert [DOMAIN.facts(world.at(j), "f12 pays") for j in (2, 3)] == [(1, 0, 1), (0, 1, 1)]


# Claims in contexts.


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [
        ("", 0, 0),
        ("- f12 pays", 1, 0),
        ("- m34 pays", 0, 1),
        ("The right option is f12.", 1, 0),
        ("the right option is f12, not m34", 1, 0),
        ("f12: pays", 1, 0),
        ("f12", 1, 0),
        ("* F12", 1, 0),
        ("Answer: f12", 1, 0),
        ("b1=1", 1, 0),
        ("b1=1 d2=0 p3=0", 1, 0),
        ("b1=0 d2=1", 0, 1),
        ("b1=? d2=0", 0, 0),
        ("not f12", 0, 0),
        ("- not f12, m34", 0, 0),
        ("f12 does not pay", 0, 0),
        ("f12 doesn\u2019t pay, m34 does", 0, 0),
        ("f12, m34 and k56 do not pay; v78 pays", 0, 1),
        ("f12 never paid", 0, 0),
        ("f12 was empty.", 0, 0),
        ("- f12 is empty", 0, 0),
        ("- m34, f12 are empty", 0, 0),
        ("f12 is empty\nf12 pays", 1, 0),
        ("I chose m34 and it was empty.\nI chose f12 and it paid.", 1, 0),
        ("m34 was tried, f12 pays", 1, 0),
        ("I chose f12. Reward: 0.000", 0, 0),
        ("f12 probably pays", 0, 0),
        ("maybe f12?", 0, 0),
        ("Either f12 or m34 pays", 0, 0),
        ("f12 pays. f12 pays. f12 pays.", 1, 0),
        ("f12 pays. In fact f12 does not pay.", 0, 0),
        ("f12 pays, m34 pays", 1, 1),
        ("f12s pay", 0, 0),
        ("p90 pays", 0, 0),
        ("Options: f12, m34, k56, v78", 0, 0),
        ("One option pays, always the same one.", 0, 0),
    ],
)
def test_facts_counts_what_is_said_to_pay(context, right, wrong):
    assert DOMAIN.facts(world_of(PRESETS["easy"]), context) == (right, wrong, 1)


@both_styles
@pytest.mark.parametrize("kind", [SURE, LIKELY, NOT])
@given(options=st.lists(st.sampled_from(OPTIONS), min_size=1, unique=True))
def test_a_written_claim_is_read_back(style, kind, options):
    options = options if kind == NOT else options[:1]
    assert read_claims(write_claim(options, kind, style), OPTIONS) == dict.fromkeys(options, kind)


@pytest.mark.parametrize("chosen", [A, B])
def test_an_outcome_has_the_words_of_a_claim(chosen):
    task = make_pack("bandit-v1", "easy", "dev", 0, 1).tasks[0]
    step = replace(task, content=OPTIONS, world=world_of(PRESETS["easy"])).env().step(write_option(chosen, "natural"))
    claim = write_claim([chosen], SURE if chosen == A else NOT, "natural")
    assert step.observation == f"{claim.removeprefix('- ')}."
    assert read_claims(step.observation, OPTIONS) == read_claims(claim, OPTIONS)


def test_a_guess_says_of_any_option_that_it_pays_or_is_empty():
    world, rng = world_of(PRESETS["easy"]), stream("guess")
    guesses = [read_claims(DOMAIN.guess(world, "pays", "natural", rng), OPTIONS) for _ in range(1600)]
    counts = [guesses.count({option: kind}) for option in OPTIONS for kind in (SURE, NOT)]
    assert sum(counts) == 1600
    assert min(counts) > 150


pieces = st.lists(
    st.sampled_from(
        ["f12", "m34", "b1", "d2", *PAYS, *UNSURE, *DENIED, "=1", "=0", "=?", ",", ".", "\n", " ", "-", "n't"]
    ),
    max_size=25,
)


@given(context=pieces.map("".join) | pieces.map(" ".join) | st.text(max_size=60))
def test_no_text_breaks_a_reader_or_counts_an_option_twice(context):
    world = world_of(PRESETS["easy"])
    right, wrong, knowable = DOMAIN.facts(world, context)
    assert (right in (0, 1), 0 <= wrong <= 3, knowable) == (True, True, 1)
    for name in ("random", "bayes"):
        policy = DOMAIN.policy(name, world)
        policy.read(context)
        assert read_option(policy.act(View(OPTIONS, "natural")), View(OPTIONS, "natural"))


@given(context=pieces.map(" ".join))
def test_a_denial_around_a_text_is_never_counted_as_right(context):
    """Whatever is said of an option in one part, its denial at the end is what counts."""
    assert DOMAIN.facts(world_of(PRESETS["easy"]), f"{context}\nnot f12")[0] == 0


@pytest.mark.parametrize("filler", ["f12, ", "not f12 ", "b1=1 ", "= ", "reward ", "and ", "a", "' ", ". ", "\n", "?"])
def test_a_huge_context_is_read_in_linear_time(filler):
    start = time.process_time()
    for _ in range(2):
        DOMAIN.policy("bayes", world_of(PRESETS["easy"])).read(filler * (100_000 // len(filler)))
    assert time.process_time() - start < 2


@both_styles
def test_random_follows_a_claim_and_avoids_a_denial(style):
    def chosen(context):
        policy = DOMAIN.policy("random", world_of(PRESETS["easy"]))
        policy.read(context)
        return {read_option(policy.act(View(OPTIONS, style)), View(OPTIONS, style)) for _ in range(60)}

    assert chosen("") == {*OPTIONS}
    assert chosen(write_claim([B], SURE, style)) == {B}
    assert chosen(write_claim([B], LIKELY, style)) == {B}
    assert chosen(write_claim([A, B], NOT, style)) == {C, D}


def test_bayes_trusts_a_claim_until_it_is_contradicted():
    policy = DOMAIN.policy("bayes", world_of(PRESETS["easy"]))
    policy.read("m34 pays")
    assert policy.act(View(OPTIONS, "compact")) == "d2"
    assert policy.notes("natural") == {"pays": "- m34 pays"}
    shown(policy, B, False)
    assert policy.act(View(OPTIONS, "compact")) != "d2"
    assert policy.notes("compact") == {"pays": "d2=0"}


@pytest.mark.parametrize(
    ("preset", "lost"), [("easy", 0.0), ("wide", 0.0), ("tiny", 0.0), ("drift", 0.05), ("noisy", 0.05)]
)
def test_notes_carry_what_bayes_knows_to_a_new_bayes(preset, lost):
    gaps = []
    for pack in packs(preset, "dev", 200):
        (*_, last), context = play_pack(pack, "bayes"), ""
        for task in pack.tasks:
            policy, env = DOMAIN.policy("bayes", pack.world), task.env()
            policy.read(context)
            step = env.step(policy.act(env.view))
            policy.end(step)
            context = DOMAIN.note(policy.notes("natural").values(), "natural")
        gaps.append(last.reward - step.reward)
    assert np.mean(gaps) <= lost


def test_the_life_in_the_docs_matches_a_real_run():
    pack = make_pack("bandit-v1", "easy", "dev", 0, 4)
    policy, notes, lines = DOMAIN.policy("bayes", pack.world), "", []
    for task in pack.tasks:
        env = task.env(style="compact")
        lines += [DOMAIN.rules_text(task, "compact"), f"notes {notes}".strip(), env.observe()]
        reply = policy.act(env.view)
        step = env.step(reply)
        policy.end(step)
        lines += [f"> {reply}", step.observation, f"{step.feedback}, reward {step.reward:.2f}"]
        notes = DOMAIN.note(policy.notes("compact").values(), "compact")
    assert "\n".join(lines) in DOCS.read_text()
    assert OPEN not in notes
