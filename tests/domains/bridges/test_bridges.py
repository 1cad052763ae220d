"""Tests of the bridges: the domain contract, isolation of foreign code, and errors for missing packages."""

import hashlib
import inspect
import os
import pickle
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codots.config.schema import TrainConfig, WorldConfig
from codots.core.rng import stream
from codots.domains import registry as registry_module
from codots.domains.bridges.gymnasium.env import Start, View
from codots.domains.bridges.gymnasium.model import ZERO_EPISODES, _counted, model_of, zero_of
from codots.domains.bridges.gymnasium.notes import read_claims, read_estimates, write_claim, write_estimate
from codots.domains.bridges.gymnasium.policies import AdaptivePolicy
from codots.domains.bridges.gymnasium.upstream import NAMES, find_spec, open_env, picture, plain
from codots.domains.bridges.reasoning_gym import policies as problem_policies
from codots.domains.bridges.reasoning_gym import problems
from codots.domains.bridges.textworld import SPECS, house, upstream
from codots.domains.bridges.textworld import notes as house_notes
from codots.domains.check import check_domain
from codots.domains.contract import rollout
from codots.domains.isolation import isolated
from codots.domains.registry import bridges, domain_ids, get_domain, make_pack
from tests.domains.reading import hostile_text, last_rewards, life, noted_life, play

EXAMPLES = ["gymnasium:FrozenLake-v1", "reasoning-gym:spell_backward", "textworld:house"]
ICE = "gymnasium:FrozenLake-v1?is_slippery=false"
pieces = [
    "<action>",
    "</action>",
    "1",
    "[",
    "]",
    "'",
    ",",
    "-",
    "*",
    "(",
    ")",
    "Q",
    "\x00",
    "save",
]
hostile = st.text(max_size=40) | st.lists(st.sampled_from(pieces), max_size=12).map("".join)


@pytest.fixture(scope="module", autouse=True)
def game_files(tmp_path_factory):
    """Compile games once into a temporary folder for all tests."""
    before = os.environ.get("CODOTS_CACHE")
    os.environ["CODOTS_CACHE"] = str(tmp_path_factory.mktemp("games"))
    yield
    os.environ.pop("CODOTS_CACHE")
    if before is not None:
        os.environ["CODOTS_CACHE"] = before


def run(script, **env):
    """Run a script in a separate process and return its output."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Bridges and the registry.


def test_listing_bridges_loads_no_bridged_package():
    assert {family: bridge.example for family, bridge in bridges().items()} == {
        example.partition(":")[0]: example for example in EXAMPLES
    }
    assert {bridge.extra for bridge in bridges().values()} == {f"codots[{family}]" for family in bridges()}
    script = "import sys; from codots.domains.registry import bridges, domain_ids; domain_ids()"
    script += "; print([bridge.package in sys.modules for bridge in bridges().values()])"
    assert run(script) == "[False, False, False]"


@pytest.mark.parametrize("id", EXAMPLES)
def test_missing_package_raises_one_line_naming_the_extra(id, monkeypatch):
    family = id.partition(":")[0]
    registry_module._over_bridge.cache_clear()
    find_spec.cache_clear()
    monkeypatch.setitem(sys.modules, bridges()[family].package, None)
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(
        ValueError, match=rf"{family}:.* needs {bridges()[family].package}: pip install 'codots\[{family}\]'$"
    ):
        get_domain(id)
    assert id not in domain_ids()
    monkeypatch.undo()
    assert get_domain(id).id == id


UNKNOWN = {
    "gymnasium:FrozenLak-v1": "the nearest is 'FrozenLake-v1'",
    "gymnasium:Taxi-v3": "the nearest is 'Taxi-v4'",
    "gymnasium:CartPole-v1": "has observation space .*, expected discrete numbers or text",
    "gymnasium:Pendulum-v1": r"has action space .*, expected Discrete\(2\) to Discrete\(7\)",
    "gymnasium:FrozenLake-v1?slippery=false": "unexpected keyword argument 'slippery'",
    "gymnasium:FrozenLake-v1?is_slippery=no": "is_slippery=no, which is a text; expected true or false",
    "gymnasium:": "unknown environment of gymnasium ''",
    "reasoning-gym:spel_backward": "expected one of 97 names, .*the nearest is 'spell_backward'",
    "reasoning-gym:boxnet": "boxnet is excluded: its own answer does not score 1",
    "reasoning-gym:simple_integration": "simple_integration is excluded: its scorer runs the reply as code",
    "reasoning-gym:composite": "composite is excluded: it needs other families as arguments",
    "textworld:hose": "unknown spec of textworld 'hose'; expected one of house; the nearest is 'house'",
    "gymnasum:FrozenLake-v1": "unknown domain .*the nearest is 'gymnasium:FrozenLake-v1'",
}


@pytest.mark.parametrize("id", UNKNOWN)
def test_unsupported_name_raises_one_line(id):
    with pytest.raises(ValueError, match=UNKNOWN[id]) as error:
        get_domain(id)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("id", EXAMPLES)
def test_bridged_domain_is_cached_picklable_and_unlisted(id):
    domain = get_domain(id)
    assert get_domain(id) is domain
    assert pickle.loads(pickle.dumps(domain)) is domain
    assert id not in domain_ids()
    assert TrainConfig(worlds=[WorldConfig(domain=id)], run="nowhere").worlds[0].domain == id


DRAW_SCRIPT = """
from codots.domains.registry import make_pack
for id in {ids}:
    pack = make_pack(id, "easy", "dev", 3, 2)
    print(pack.world.hidden, [task.content for task in pack.tasks], pack.tasks[0].env().observe())
"""


def test_packs_are_equal_across_processes():
    script = DRAW_SCRIPT.format(ids=EXAMPLES)
    first, second = (hashlib.sha256(run(script, PYTHONHASHSEED=seed).encode()).hexdigest() for seed in ("1", "2"))
    assert first == second


@pytest.mark.parametrize("id", EXAMPLES)
def test_train_and_held_out_share_no_public_content(id):
    sides = {}
    for split in ("train", "dev"):
        packs = [make_pack(id, "easy", split, i, 3) for i in range(8)]
        sides[split] = {public_content(task) for pack in packs for task in pack.tasks}
    assert not sides["train"] & sides["dev"]


def public_content(task):
    content = task.content
    return getattr(content, "question", None) or getattr(content, "board", None) or task.world.hidden.facts


# The contract.


@pytest.mark.parametrize(
    ("id", "packs"),
    [
        ("reasoning-gym:spell_backward", 6),
        ("reasoning-gym:syllogism", 6),
        ("reasoning-gym:pool_matrix", 6),
        ("gymnasium:FrozenLake-v1", 12),
        (ICE, 12),
        pytest.param("gymnasium:CliffWalking-v1", 4, marks=pytest.mark.slow),
        pytest.param("gymnasium:Blackjack-v1", 12, marks=pytest.mark.slow),
        pytest.param("gymnasium:Taxi-v4", 4, marks=pytest.mark.slow),
        pytest.param("textworld:house", 2, marks=pytest.mark.slow),
    ],
)
def test_bridges_keep_the_contract(id, packs):
    check_domain(id, packs=packs)


@settings(max_examples=60)
@given(hostile, st.sampled_from(EXAMPLES[:2]))
def test_hostile_text_keeps_rewards_in_bounds(text, id):
    task = make_pack(id, "easy", "dev", 0, 1).tasks[0]
    for reply in (text, f"<action>{text}</action>"):
        assert 0 <= task.env().step(reply).reward <= 1


def test_isolated_code_leaves_global_generators_unchanged():
    before = np.random.get_state()[1].copy()
    with isolated("a", 1):
        first = np.random.rand()
        warnings.warn("suppressed", stacklevel=1)
    with isolated("a", 1):
        assert np.random.rand() == first
    assert (np.random.get_state()[1] == before).all()


# Reasoning Gym.


def test_own_answer_scores_1_and_any_answer_is_scored():
    for name in problems.families():
        if name in SLOW:
            continue
        lot = problems.draw_lot(stream("test", name), name, 0, 1)
        problem = problem_policies.draw_problem(stream("test", name, "problem"), name, lot)
        assert problem == problems.make_problem(name, lot, problem.number)
        own = problem.answer.strip()
        assert problems.harmless(name, own), name
        assert problems.score(name, problem, own) == 1, name
        for other in ("0", "[[[", "no idea", "\ud800", "9" * 5000):
            given = problems.score(name, problem, other) if problems.harmless(name, other) else None
            assert given is None or 0 <= given <= 1, name


SLOW = {"knight_swap", "sokoban"}  # generating one problem takes seconds


def test_families_are_excluded_for_the_stated_reason():
    from reasoning_gym.factory import create_dataset

    for name in problems.WRONG:
        with isolated("test", name):
            dataset = create_dataset(name, seed=0, size=4)
            assert any(dataset.score_answer(entry["answer"], entry) != 1 for entry in dataset), name
    assert not set(problems.EXCLUDED) & set(problems.families())
    assert len(problems.families()) == 97


def test_scorers_that_run_replies_have_a_character_filter():
    from reasoning_gym.factory import DATASETS

    for name in problems.families():
        source = inspect.getsource(inspect.getmodule(DATASETS[name][0]))
        scoring = source[source.find("def score_answer") :] if "def score_answer" in source else ""
        runs = [call for call in ("eval(answer", "exec(answer", "parse_expr(", "sympify(answer") if call in scoring]
        assert not runs or name in problems.HARMLESS, (name, runs)


@pytest.mark.parametrize("name", sorted(problems.HARMLESS))
def test_reply_cannot_run_as_code(name, tmp_path):
    marker = tmp_path / "ran"
    lot = problems.draw_lot(stream("code", name), name, 0, 1)
    problem = problem_policies.draw_problem(stream("code", name, "problem"), name, lot)
    task = replace(make_pack(f"reasoning-gym:{name}", "easy", "dev", 0, 1).tasks[0], content=problem)
    for code in (f"open({str(marker)!r}, 'w')", "exit()", "9**9**9**9", "9 ** 9", "().__class__", "[x for x in y]"):
        step = task.env().step(f"<action>{code}</action>")
        assert (step.stop, step.reward) == ("unread", 0)
    assert not marker.exists()


def test_updater_sees_an_answer_unless_the_reply_was_right():
    task = make_pack("reasoning-gym:spell_backward", "easy", "dev", 0, 1).tasks[0]
    right = task.content.answer
    wrong = task.env().step("<action>~</action>")
    assert (wrong.stop, right in wrong.feedback, wrong.reward < 1) == (
        "wrong" if not wrong.reward else "partly",
        True,
        True,
    )
    assert task.env().step(f"I think <action> {right} </action>").stop == "solved"
    assert task.env().step("").stop == "malformed"
    assert task.env().step(f"<action>{'z' * 30_000}</action>").stop == "malformed"


def test_bayes_repeats_the_most_frequent_answer():
    pack = make_pack("reasoning-gym:syllogism", "easy", "dev", 0, 1)
    policy, step = pack.domain.policy("bayes", pack.world), pack.tasks[0].env().step("")
    for answer in ("No", "Yes", "No", "Yes"):
        policy.end(replace(step, view=problem_policies.View(0, "", answer)))
    assert policy.act(problem_policies.View(1, "")) == "<action>Yes</action>"  # the latest on ties
    policy.end(replace(step, view=problem_policies.View(0, "", "No")))
    assert policy.act(problem_policies.View(1, "")) == "<action>No</action>"


@pytest.mark.parametrize("name", ["spell_backward", "binary_matrix", "complex_arithmetic", "acre", "sudoku"])
@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_claims_about_problems_are_the_settings_that_every_world_states_and_an_answer(name, preset):
    domain = get_domain(f"reasoning-gym:{name}")
    subjects = set()
    for i in range(6):
        world = make_pack(domain.id, preset, "dev", i, 1).world
        claims = domain.claims(world, "natural")
        subjects.add(tuple(claims))
        assert all(claim in domain.oracle_context(world, "natural") for claim in claims.values())
    assert len(subjects) == 1
    assert next(iter(subjects))[-1] == "answer"


def test_guesses_about_problems_are_values_of_other_worlds():
    domain = get_domain("reasoning-gym:spell_backward")
    world, rng = make_pack(domain.id, "easy", "dev", 0, 1).world, stream("guess")
    for subject, claim in domain.claims(world, "natural").items():
        guesses = {domain.guess(world, subject, "natural", rng) for _ in range(60)}
        assert {guess.partition(":")[0] for guess in guesses} == {claim.partition(":")[0]}
        assert len(guesses - {claim}) >= 1


def test_world_settings_are_shared_and_in_the_oracle_context():
    pack = make_pack("reasoning-gym:basic_arithmetic", "easy", "dev", 0, 4)
    context = pack.domain.oracle_context(pack.world, "natural")
    assert "- max_terms: " in context or "- max_digits: " in context
    assert {task.content.lot for task in pack.tasks} == {pack.world.hidden}


# Gymnasium.


@pytest.mark.parametrize(("name", "by"), [("FrozenLake-v1?is_slippery=false", 1), ("Taxi-v4", 1)])
def test_action_names_match_the_rendering(name, by):
    spec = find_spec(name)
    for act, called in enumerate(spec.names):
        env = open_env(spec)
        env.reset(seed=3)
        env.step(act)
        word = called.replace(" ", "").replace("pickup", "pickup").replace("dropoff", "dropoff")
        assert f"({word})" in picture(env).lower().replace(" ", "")


def test_cliff_actions_match_their_names():
    spec, moves = find_spec("CliffWalking-v1"), {"up": -12, "right": 1, "down": 12, "left": -1}
    for act, called in enumerate(NAMES["CliffWalkingEnv"]):
        outcomes = open_env(spec).unwrapped.P[14][act]
        assert outcomes[0][1] == 14 + moves[called]


def test_colors_become_brackets():
    class Rendered:
        def render(self):
            return (
                "  (Down)\n\x1b[41mS\x1b[0mFF \n\x1b[34;1mR\x1b[0m \x1b[42m_\x1b[0m\x1b[35mG\x1b[0m\x1b[43m \x1b[0m\n"
            )

    assert picture(Rendered()) == "  (Down)\n[S]FF\n(R) {_}<G>[_]"


def test_values_match_a_plain_recursion():
    spec, board = find_spec("FrozenLake-v1"), ("SFF", "FHF", "FFG")
    table = open_env(spec, board).unwrapped.P

    def value(state, left):
        if left == 0:
            return 0.0
        return max(
            sum(p * (r + (not end) * value(to, left - 1)) for p, to, r, end in table[state][a]) for a in range(4)
        )

    model = model_of(spec, board, 5)
    for turn in range(5):
        assert model.values(5)[turn].max(1) == pytest.approx([value(s, 5 - turn) for s in range(9)])
    low, high = model.bounds(5)
    assert (low[0], high[0]) == (0, 1)


def test_counted_outcomes_approximate_declared_ones():
    spec = find_spec("FrozenLake-v1")
    declared, counted = model_of(spec, None, 40), _counted(spec, open_env(spec, drawn=False), 40)
    for (at, to, ends), probabilities in counted._probabilities.items():
        if at in (0, 1, 4) and to in counted.states.values():
            named = {index: seen for seen, index in counted.states.items()}
            expected = declared.likelihood(named[at], named[to], ends)
            assert probabilities == pytest.approx(expected, abs=0.05) or named[at] not in (0, 4)


@pytest.mark.parametrize("id", ["gymnasium:CliffWalking-v1", "gymnasium:Taxi-v4", ICE])
def test_informed_earns_1_if_outcomes_are_deterministic(id):
    pack = make_pack(id, "easy", "dev", 0, 3)
    assert [played.reward for played in rollout(pack, "informed", "natural")] == [1, 1, 1]


def test_reward_scales_the_return_between_random_and_best():
    start = Start(0, None, 0, zero=-100.0, one=-13.0)
    assert [start.reward(total) for total in (-3000, -100, -56.5, -13)] == [0, 0, 0.5, 1]
    spec = find_spec("CliffWalking-v1")
    assert zero_of(spec, 40) == zero_of(spec, 40) < -100
    assert (zero_of(find_spec("Blackjack-v1"), 40), ZERO_EPISODES) == (-1, 500)


def test_twins_respond_the_same_until_a_code_differs():
    pack = make_pack("gymnasium:Taxi-v4", "easy", "dev", 1, 1)
    twin = pack.domain.twin(pack.world, stream("twin"))
    other = replace(pack.tasks[0], world=twin)
    same = [i for i in range(6) if pack.world.hidden[i] == twin.hidden[i]]
    envs = [pack.tasks[0].env(), other.env()]
    assert envs[0].observe() == envs[1].observe()
    for code in same * 3:
        first, second = (env.step(f"<action>{code + 1}</action>").observation for env in envs)
        assert first == second
    differs = next(i for i in range(6) if i not in same)
    rest = [env.step(f"<action>{differs + 1}</action>").view for env in envs]
    assert len(same) < 6
    assert rest[0].turn == rest[1].turn


def test_bayes_finds_the_codes():
    pack = make_pack(ICE, "easy", "dev", 2, 6)
    policy = pack.domain.policy("bayes", pack.world)
    for task in pack.tasks:
        env = task.env()
        step = env.step(policy.act(env.view))
        while not step.done:
            step = env.step(policy.act(step.view))
        policy.end(step)
    best = policy.orders[policy.weights.argmax()]
    assert isinstance(policy, AdaptivePolicy)
    assert tuple(best) == pack.world.hidden


def test_plain_observations_are_hashable():
    assert plain(np.int64(3)) == 3
    assert plain((np.int64(3), np.array([1, 0]), "text")) == (3, (1, 0), "text")


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [("code 1 is {0}", 1, 0), ("1: {1}, code 2 takes you {1}", 1, 1), ("code 9 is {0}", 0, 0), ("", 0, 0)],
)
def test_facts_count_claims_about_codes(context, right, wrong):
    pack = make_pack(ICE, "easy", "dev", 0, 1)
    names = [pack.domain.rules.names[action] for action in pack.world.hidden]
    assert pack.domain.facts(pack.world, context.format(*names)) == (right, wrong, 4)


@pytest.mark.parametrize("id", [ICE, "gymnasium:Taxi-v4", "gymnasium:Blackjack-v1"])
def test_written_claims_about_codes_are_read_back(id):
    spec, claims = get_domain(id).rules, [(0, 1), (1, 0)]
    assert read_claims(spec, "\n".join(write_claim(spec, *claim) for claim in claims)) == claims


@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4), st.integers(0, 3))
def test_written_estimates_are_read_back_and_do_not_count_as_claims(estimate, code):
    spec = get_domain(ICE).rules
    line = write_estimate(spec, code, np.array(estimate))
    assert read_claims(spec, f"{line}\n{line}") == []
    found = read_estimates(spec, line)
    assert [*found] == [code]
    assert found[code] == pytest.approx(np.array(estimate), abs=0.0101)


@pytest.mark.parametrize("name", ["random", "bayes"])
def test_readers_of_the_true_codes_reach_informed(name):
    for pack in [make_pack(ICE, "easy", "dev", i, 3) for i in range(4)]:
        assert life(pack, name, pack.domain.oracle_context(pack.world, "natural")) == [1.0] * 3


def test_notes_carry_what_bayes_knows_about_codes_to_a_new_bayes():
    assert last_rewards(ICE, "easy", 20) == (1.0, 1.0)
    noted, whole = last_rewards(EXAMPLES[0], "easy", 20)
    assert noted > whole - 0.2  # .05 on many packs


def test_notes_on_a_slippery_lake_carry_the_posterior():
    for pack in [make_pack(EXAMPLES[0], "easy", "dev", i, 2) for i in range(5)]:
        old, new = (pack.domain.policy("bayes", pack.world) for _ in range(2))
        for task in pack.tasks:
            play(old, task)
        new.read(pack.domain.note(old.notes("natural").values(), "natural"))
        assert new.weights == pytest.approx(old.weights, abs=0.1)


def test_bayes_trusts_outcomes_over_claims_about_codes():
    pack = make_pack(ICE, "easy", "dev", 2, 6)
    policy = pack.domain.policy("bayes", pack.world)
    policy.read(pack.domain.oracle_context(pack.domain.twin(pack.world, stream("twin")), "natural"))
    for task in pack.tasks:
        play(policy, task)
    assert tuple(policy.orders[policy.weights.argmax()]) == pack.world.hidden


def test_random_draws_from_the_codes_that_are_not_claimed():
    pack = make_pack(ICE, "easy", "dev", 0, 1)
    view, hidden = pack.tasks[0].env().view, pack.world.hidden
    best = pack.domain.policy("informed", pack.world).best(view)
    code = hidden.index(best)
    claims = [*pack.domain.claims(pack.world, "natural").values()]

    def chosen(context):
        policy = pack.domain.policy("random", pack.world)
        policy.read(context)
        return {int(policy.act(view)[8]) - 1 for _ in range(100)}

    assert chosen(claims[code]) == {code}
    assert chosen(claims[code - 1]) == {0, 1, 2, 3} - {(code - 1) % 4}
    assert chosen("") == {0, 1, 2, 3}


contexts = st.text(max_size=80) | st.lists(
    st.sampled_from(["code 1 is ", "left", "up", "2", " ", "not known for certain, so far:", "0.50", "\n"]), max_size=20
).map("".join)


@given(contexts)
def test_any_context_about_codes_can_be_read_and_played_from(context):
    pack = make_pack(ICE, "easy", "dev", 0, 1)
    for name in ("random", "bayes"):
        policy = pack.domain.policy(name, pack.world)
        policy.read(context)
        assert 0 <= play(policy, pack.tasks[0]).reward <= 1


@pytest.mark.parametrize(
    "filler", ["1 ", "1 a", " ", "code 1 is left ", "code 1 is not known for certain, so far:", "."]
)
def test_a_huge_context_about_codes_is_read_in_linear_time(filler):
    pack = make_pack(ICE, "easy", "dev", 0, 1)
    start = time.process_time()
    pack.domain.policy("bayes", pack.world).read(filler * (200_000 // len(filler)))
    assert time.process_time() - start < 2


def test_blackjack_hand_is_described():
    task = make_pack("gymnasium:Blackjack-v1", "easy", "dev", 0, 1).tasks[0]
    assert "Your hand counts" in task.env().observe()
    assert isinstance(task.env().view, View)


# TextWorld.


@pytest.fixture(scope="module")
def house_pack():
    """Return a pack in one house."""
    return make_pack("textworld:house", "easy", "dev", 0, 4)


def test_chores_differ_and_the_house_is_shared(house_pack):
    long = make_pack("textworld:house", "easy", "dev", 0, 16)
    assert len({task.content for task in long.tasks}) == 16
    assert {task.world.hidden for task in long.tasks} == {house_pack.world.hidden}
    assert not [fact for fact in house_pack.world.hidden.facts if fact[0] == "locked"]
    openings = [task.env().observe().partition("\n")[2] for task in house_pack.tasks]
    assert len(set(openings)) == 1


def test_game_facts_include_the_house_facts(house_pack):
    env = house_pack.tasks[0].env()
    assert set(house_pack.world.hidden.facts) <= env.facts


def test_twin_has_the_same_rooms_and_moved_things(house_pack):
    house, twin = house_pack.world.hidden, house_pack.domain.twin(house_pack.world, stream("twin")).hidden
    assert (house.things, house.supporters, house.containers, house.start) == (
        twin.things,
        twin.supporters,
        twin.containers,
        twin.start,
    )
    plan, other = house_plan(house), house_plan(twin)
    assert (plan.ways, plan.room_of) == (other.ways, other.room_of)
    assert plan.holder != other.holder


def house_plan(of):
    return house.plan_of(of)


def brute_force_length(of, chore, most):
    """Return the length of a shortest solution, found by trying every move."""
    plan, furniture = house.plan_of(of), {*of.supporters, *of.containers}
    start = (of.start, frozenset(plan.shut), tuple(sorted(plan.holder.items())))
    seen, level = {start}, [start]
    for steps in range(1, most + 1):
        after = set()
        for room, shut, held in level:
            at, reach = dict(held), {room, *(p for p in furniture if plan.room_of[p] == room and p not in shut)}
            if at[chore.thing] == "I" and chore.target in reach:
                return steps
            doors = [door for _, door in plan.ways[room].values() if door] + [
                p for p in furniture if plan.room_of[p] == room
            ]
            after |= {(room, shut - {x}, held) for x in doors if x in shut}
            after |= {(to, shut, held) for to, door in plan.ways[room].values() if door not in shut}
            after |= {
                (room, shut, tuple(sorted((at | {chore.thing: "I"}).items()))) for _ in [0] if at[chore.thing] in reach
            }
        level = [state for state in after if state not in seen]
        seen |= after
    return None


def test_solution_length_matches_brute_force():
    for index in range(6):
        of = make_pack("textworld:house", "easy", "train", index, 1).world.hidden
        for chore in house.chores(of, 4, 12)[::5]:
            commands = house.solution(of, chore)
            assert len(commands) == brute_force_length(of, chore, 12)


def test_invalid_commands_never_reach_the_game(house_pack, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    env = house_pack.tasks[0].env()
    opened = env.observe()
    monkeypatch.setattr(env.game, "step", lambda command: pytest.fail(command))
    for command in ("save", "restore", "quit", "restart", "script", "xyzzy", "\x00", "go nowhere"):
        step = env.step(f"<action>{command}</action>")
        assert step.observation.startswith("That cannot be done here.")
    assert list(tmp_path.iterdir()) == []
    assert env.view.turn == 8
    assert opened == house_pack.tasks[0].env().observe()


def test_commands_are_case_insensitive(house_pack):
    command = house.solution(house_pack.world.hidden, house_pack.tasks[0].content)[0]
    step = house_pack.tasks[0].env().step(f"<action>  {command.upper()} </action>")
    assert "cannot be done" not in step.observation


def test_game_files_are_written_atomically(monkeypatch, tmp_path):
    monkeypatch.setenv("CODOTS_CACHE", str(tmp_path))
    size = SPECS["house"]["easy"].size
    of = upstream.draw_house(size, 1, (1,))

    def fail_halfway(game, path):
        path.write_text("half a file")
        raise RuntimeError("the compiler was killed")

    monkeypatch.setattr(upstream, "_compile", fail_halfway)
    with pytest.raises(RuntimeError, match="killed"):
        upstream.game_file(size, of)
    assert list((tmp_path / "textworld").iterdir()) == []
    monkeypatch.setattr(upstream, "_compile", lambda game, path: path.write_text("whole"))
    path = upstream.game_file(size, of)
    assert path.read_text() == "whole"
    monkeypatch.setattr(upstream, "_compile", fail_halfway)
    assert upstream.game_file(size, of) == path


def test_a_concurrent_compile_may_win(monkeypatch, tmp_path):
    monkeypatch.setenv("CODOTS_CACHE", str(tmp_path))
    size = SPECS["house"]["easy"].size
    of = upstream.draw_house(size, 2, (2,))

    def slow_compile(game, path):
        path.write_text("mine")
        monkeypatch.setattr(upstream, "_compile", lambda game, path: path.write_text("theirs"))
        upstream.game_file(size, of)

    monkeypatch.setattr(upstream, "_compile", slow_compile)
    assert upstream.game_file(size, of).read_text() == "theirs"
    assert len(list((tmp_path / "textworld").iterdir())) == 1


def test_bayes_needs_no_more_commands_once_it_knows_the_house(house_pack):
    first, *_, last = (played.turns for played in rollout(house_pack, "bayes", "natural"))
    again = replace(
        house_pack, tasks=(house_pack.tasks[0], *house_pack.tasks[1:], replace(house_pack.tasks[0], position=4))
    )
    *_, after = (played.turns for played in rollout(again, "bayes", "natural"))
    assert after[-1][1].stop == "done"
    assert len(after) <= len(first)
    assert last[-1][1].reward >= 0


def test_facts_count_claims_about_places(house_pack):
    plan, facts = house.plan_of(house_pack.world.hidden), house_pack.domain.facts
    thing, other = list(plan.holder)[:2]
    wrong = next(place for place in plan.room_of if place != plan.holder[other])
    context = f"- {thing}: in {plan.holder[thing]}\nThe {other.upper()} is on the {wrong}."
    exits = sum(len(ways) for ways in plan.ways.values())
    assert facts(house_pack.world, context) == (1, 1, len(plan.holder) + len(plan.room_of) + exits)
    assert facts(house_pack.world, "spoon " * 20_000)[:2] == (0, 0)


def test_exits_lead_back(house_pack):
    back = {"north": "south", "south": "north", "east": "west", "west": "east"}
    ways = house.plan_of(house_pack.world.hidden).ways
    for room, way, (to, door) in [(r, w, e) for r, exits in ways.items() for w, e in exits.items()]:
        assert ways[to][back[way]] == (room, door)
    assert all(a != b for a, b in pairwise(sorted(ways)))


@pytest.mark.parametrize(
    ("line", "claims"),
    [
        (
            "- kitchen: north to hall through oak door, east to pantry",
            [("kitchen", "north", "hall", "oak door"), ("kitchen", "east", "pantry", None)],
        ),
        ("The kitchen: north to the hall", [("kitchen", "north", "hall", None)]),
        ("- safe stands in hall, closed, searched", [("safe", "hall", True, True)]),
        ("The safe stands in the hall.", [("safe", "hall", False, False)]),
        ("- nest of beetles: in safe", [("nest of beetles", "safe", False)]),
        ("I saw that the worm is on the stand; worm: on stand", [("worm", "stand", True)] * 2),
        ("Quote of the Day Calendar: in hall", [("Quote of the Day Calendar", "hall", False)]),
        ("north of here is a room", []),
    ],
)
def test_claims_about_a_house_are_read_from_the_sentences_of_a_model(line, claims):
    assert house_notes.read_claims(line) == claims


def test_the_claims_of_a_house_are_read_back(house_pack):
    plan = house.plan_of(house_pack.world.hidden)
    reader = house_pack.domain.policy("bayes", house_pack.world)
    reader.read(house_pack.domain.oracle_context(house_pack.world, "natural"))
    assert (reader.belief.ways, reader.belief.holder, reader.belief.room_of) == (plan.ways, plan.holder, plan.room_of)


@pytest.mark.parametrize("name", ["random", "bayes"])
def test_readers_of_the_plan_of_a_house_do_chores_like_the_informed_policy(house_pack, name):
    context = house_pack.domain.oracle_context(house_pack.world, "natural")
    assert life(house_pack, name, context) == life(house_pack, "informed")


def test_notes_of_a_house_carry_what_a_whole_life_knows(house_pack):
    contexts = []
    assert noted_life(house_pack, contexts) == pytest.approx(life(house_pack, "bayes"), abs=0.05)
    found = [house_pack.domain.facts(house_pack.world, context) for context in contexts]
    assert not any(wrong for _, wrong, _ in found)
    assert found[-1][0] > found[0][0]


def test_own_eyes_overrule_wrong_claims_about_a_house(house_pack):
    twin = house_pack.domain.twin(house_pack.world, stream("twin"))
    policy = house_pack.domain.policy("bayes", house_pack.world)
    policy.read(house_pack.domain.oracle_context(twin, "natural"))
    rewards = [play(policy, task).reward for task in house_pack.tasks * 2]
    assert np.mean(rewards[4:]) > 0.7
    seen = house_pack.domain.note(policy.notes("natural").values(), "natural")
    right, wrong, _ = house_pack.domain.facts(house_pack.world, seen)
    assert right > 5 * wrong


def test_random_draws_the_same_commands_whether_or_not_it_has_read_an_empty_context(house_pack):
    view, policies = (
        house_pack.tasks[0].env().view,
        [house_pack.domain.policy("random", house_pack.world) for _ in "ab"],
    )
    policies[1].read("nothing is known")
    assert [policies[0].act(view) for _ in range(20)] == [policies[1].act(view) for _ in range(20)]


def test_guesses_about_a_house_are_claims_that_are_right_only_by_chance(house_pack):
    domain, world, rng = house_pack.domain, house_pack.world, stream("guess")
    found = [domain.facts(world, domain.guess(world, s, "natural", rng)) for s in domain.claims(world, "natural")] * 20
    assert all(right + wrong <= 4 for right, wrong, _ in found)
    assert sum(right for right, _, _ in found) < sum(wrong for _, wrong, _ in found)


@settings(max_examples=40, deadline=None)
@given(
    hostile_text(
        "attic:", "north to", "somewhere", "stands in", "closed", "on", "in", "the ", "worm", "a" * 600, ":", ","
    )
)
def test_any_context_about_a_house_is_read_and_leads_to_a_command(house_pack, context):
    view = house_pack.tasks[0].env().view
    for name in ("random", "bayes"):
        policy = house_pack.domain.policy(name, house_pack.world)
        policy.read(f"{context}\n{view.room}: {context}")
        assert policy.act(view).startswith("<action>")
    assert all(len(line.splitlines()) == 1 for line in policy.notes("natural").values())


@pytest.mark.parametrize("filler", ["north to a ", "a stands in b, ", "a: on b\n", " ", "the ", "a: north to b\n"])
def test_huge_contexts_about_a_house_are_read_quickly(filler):
    start = time.perf_counter()
    assert len(house_notes.read_claims(filler * 50_000)) <= house_notes.LINES
    assert time.perf_counter() - start < 2


# The docs.


def episode_text(task, line):
    """Return an episode as plain text without empty lines."""
    shown = [f"> {task.env().observe()}"]
    for text, step in line:
        shown += [f"< {text}", f"> {step.observation}"]
    last = line[-1][1]
    shown += [last.feedback, f"reward {last.reward:.2f}, {last.stop}"]
    return "\n".join(row.rstrip() for row in "\n".join(shown).split("\n") if row.strip())


@pytest.mark.parametrize(
    ("id", "index", "tasks"),
    [(ICE, 1, slice(0, 2)), ("reasoning-gym:syllogism", 1, slice(1, 3)), ("textworld:house", 3, slice(1, 2))],
)
def test_docs_lives_are_reproducible(id, index, tasks):
    pack = make_pack(id, "easy", "dev", index, 3)
    lines = [played.turns for played in rollout(pack, "bayes", "natural")]
    life = "\n".join(episode_text(task, line) for task, line in list(zip(pack.tasks, lines, strict=True))[tasks])
    assert f"```\n{life}\n```" in (Path(__file__).parents[3] / "docs/domains/bridges.md").read_text()
