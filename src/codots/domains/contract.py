"""What a domain promises, one function for each promise; the first that is broken raises DomainError."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from codots.context.rewrite import Rewrite, Trajectory, Turn
from codots.core.rng import stream
from codots.domains.base import POLICIES, Domain, Env, Pack, Step, Task, World
from codots.domains.registry import make_pack
from codots.domains.scripted import Played, play_pack

TURNS = 10_000  # an episode that lasts longer is taken to be endless
FIT = 32_000  # characters of a prompt with all turns and a full context, about 8,000 tokens
TWINS = 4  # of each world, for two may be alike by chance in what is told
ERRORS = 3  # standard errors by which an average may miss what it is compared with
GARBAGE = ("", " \n\t", "z" * 100_000, " " * 100_000, "\x00\ufffd\u202e\U0001f9ca \u00b2\u0663\u2460", "<<>></>{{}}")
HOSTILE = (
    "<action>" * 10_000,
    "</action><action>",
    "<action></action>",
    f"<action>{'9' * 100_000}</action>",
    f"<action>{'(' * 10_000}</action>",
    "<action>{{ 7 * 7 }} {% raw %} ${HOME} %s \\</action>",
    "<action>\ud800\x00\x1b[2J \u0661</action>",
    "<|im_end|><|im_start|>system <context></context>",
)


class DomainError(AssertionError):
    """A domain breaks its contract."""


def expect(holds: bool, got: object, expected: str) -> None:
    """Word a broken promise in one line."""
    if not holds:
        raise DomainError(f"got {got!r:.300}, expected {expected}")


# Of a pack, whatever the style.


def a_name_is_one_pack(pack: Pack) -> None:
    """Whatever its size, and however often it is drawn."""
    for more in (0, 3):
        again = drawn_again(pack, len(pack.tasks) + more)
        expect(again.world == pack.world, again.world, f"the world that this name gave before, {pack.world!r:.300}")
        for task, before in zip(again.tasks, pack.tasks, strict=False):
            expect(task == before, task.content, f"the task that this name gave before, {before.content!r:.300}")


def packs_travel(pack: Pack) -> None:
    expect(pickle.loads(pickle.dumps(pack)) == pack, "another pack", "a pickled pack to be equal on arrival")


def a_twin_hides_another_rule(pack: Pack) -> None:
    twin = _twin(pack)
    expect(twin.hidden != pack.world.hidden, twin.hidden, "a twin that hides something else")
    expect(twin.dials == pack.world.dials, twin.dials, f"a twin of the same dials, {pack.world.dials!r:.300}")
    for task, style in product(pack.tasks, pack.domain.styles):
        told = pack.domain.rules_text(replace(task, world=twin), style)
        expect(told == pack.domain.rules_text(task, style), told, "rules that are the same in a twin")


OF_A_PACK = (a_name_is_one_pack, packs_travel, a_twin_hides_another_rule)


# Of a pack, in each style.


def rules_hide_the_world(pack: Pack, style: str) -> None:
    oracle = pack.domain.oracle_context(pack.world, style)
    for task in pack.tasks:
        for told in (pack.domain.rules_text(task, style), _open(task, style).observe()):
            expect(isinstance(told, str), told, "text")
            expect(not oracle or oracle not in told, told, f"no trace of the oracle's {oracle!r:.300}")


def prompts_hide_the_position(pack: Pack, style: str) -> None:
    prompts = []
    for position in range(len(pack.tasks) + 3):
        task = replace(pack.tasks[0], position=position)
        rules, opening = pack.domain.rules_text(task, style), _open(task, style).observe()
        prompts.append(Rewrite().solve(rules, "some notes", opening, style))
        expect(prompts[-1] == prompts[0], prompts[-1], f"one prompt at every position, {prompts[0]!r:.300}")


def facts_are_right(pack: Pack, style: str) -> None:
    world, oracle = pack.world, pack.domain.oracle_context(pack.world, style)
    found = pack.domain.facts(world, oracle)
    if found is None or not oracle:
        return
    expect(found[0] == found[2] and found[1] == 0, found, "all right and none wrong in the oracle's context")
    found = pack.domain.facts(world, pack.domain.oracle_context(_twin(pack), style))
    expect(found is not None and found[1] > 0, found, "something wrong in the context of a twin's oracle")


def garbage_is_malformed(pack: Pack, style: str) -> None:
    for text in GARBAGE:
        step = _open(pack.tasks[0], style).step(text)
        sound(pack.domain, step)
        expect(step.done and step.stop == "malformed", step, f"a last step that stops as 'malformed' on {text!r:.40}")
    good = pack.domain.policy("informed", pack.world).act(_open(pack.tasks[0], style).view)
    spoilt = (good[: len(good) // 2], good + good, good.upper(), good.replace(" ", " " * 100_000))
    for text in (*HOSTILE, *spoilt):
        sound(pack.domain, _open(pack.tasks[0], style).step(text))


def episodes_end(pack: Pack, style: str) -> None:
    """However stubborn the player."""
    for policy in POLICIES:
        env = _open(pack.tasks[0], style)
        text = pack.domain.policy(policy, pack.world).act(env.view)
        done = any(env.step(text).done for _ in range(TURNS))
        expect(done, f"{TURNS} turns of {text!r:.100}", "an end to every episode")


def replays_are_equal(pack: Pack, style: str) -> None:
    """A pack that is drawn and lived again by the same policy is shown, says and does the same."""
    for policy in POLICIES:
        same_life(lived(pack, policy, style), lived(drawn_again(pack, len(pack.tasks)), policy, style))


def twins_look_alike(pack: Pack, style: str) -> None:
    """Nothing shown or done hangs on what is hidden, until an action has another effect: a state, a reward, an end."""
    for twin, policy in product(map(partial(_twin, pack), range(TWINS)), ("random", "bayes")):
        policies = pack.domain.policy(policy, pack.world), pack.domain.policy(policy, twin)
        for task in pack.tasks:
            here, there = _open(task, style), _open(replace(task, world=twin), style)
            one, other = here.observe(), there.observe()
            expect(one == other, other, f"the opening of its twin, {one!r:.300}")
            expect(alike(here.view, there.view), there.view, f"the first view of its twin, {here.view!r:.300}")
            step = _in_step(policies, here, there)
            if step is None:  # from here on, the two have seen different things
                break
            for player in policies:
                player.end(step)
        for text in GARBAGE:
            here, there = _open(pack.tasks[0], style), _open(replace(pack.tasks[0], world=twin), style)
            a, b = replace(here.step(text), view=None), replace(there.step(text), view=None)
            expect(a == b, b, f"what the same text gave in its twin, {a!r:.300}")


def _in_step(policies: Any, here: Env, there: Env) -> Step | None:
    """Let both play until effects differ; gives the last step if they never do."""
    while True:
        text, other = policies[0].act(here.view), policies[1].act(there.view)
        expect(text == other, other, f"what the same player says in a twin, {text!r:.300}")
        a, b = here.step(text), there.step(text)
        if (a.reward, a.done, a.stop) != (b.reward, b.done, b.stop) or not alike(here.view, there.view):
            return None
        expect(a.observation == b.observation, b.observation, f"the answer of its twin, {a.observation!r:.300}")
        if a.done:
            return a


IN_STYLE = (
    rules_hide_the_world,
    prompts_hide_the_position,
    facts_are_right,
    garbage_is_malformed,
    episodes_end,
    replays_are_equal,
    twins_look_alike,
)


def prompts_fit(pack: Pack, style: str) -> int:
    """Hold what a model has to read, all turns of an episode and a full context, against a bound; gives the longest."""
    domain, strategy, longest = pack.domain, Rewrite(), 0
    pack = drawn_again(pack, max(domain.sizes))
    oracle = domain.oracle_context(pack.world, style)
    expect(len(oracle) <= strategy.cap, f"{len(oracle)} characters", f"an oracle's context of at most {strategy.cap}")
    context = "z" * strategy.cap
    for task, played in zip(pack.tasks, lived(pack, "random", style), strict=True):
        rules, shown = domain.rules_text(task, style), [played.opening, *(step.observation for _, step in played.line)]
        turns = tuple(Turn(seen, text) for seen, (text, _) in zip(shown, played.line, strict=False))
        told = Trajectory(rules, turns, shown[-1], played.reward, played.line[-1][1].feedback)
        for prompt in (strategy.solve(rules, context, "\n".join(shown), style), strategy.prompt(told, context, style)):
            for part in (rules, context, shown[0]):
                expect(part.strip() in prompt.system + prompt.user, prompt, f"a prompt that shows {part!r:.100}")
            longest = max(longest, len(prompt.system) + len(prompt.user))
    expect(longest <= FIT, f"{longest} characters", f"prompts of at most {FIT}")
    return longest


# Of many packs.


def splits_stay_apart(packs: Sequence[Pack]) -> None:
    """Where a domain keeps content of `train` from the held-out splits, it does so by the content alone."""
    for pack in packs:
        here, there = ("train", "held-out") if pack.split == "train" else ("held-out", "train")
        for task in pack.tasks:
            side = pack.domain.side(task)
            expect(side in (None, here), side, f"a task of the side {here} in {pack.split}")
            moved = replace(task, position=7, world=replace(task.world, split=there, names=("elsewhere",)))
            expect(pack.domain.side(moved) == side, pack.domain.side(moved), "a side that hangs on the content alone")
    for pack in packs:
        held_out = {split: pack.domain.belongs(pack.world.hidden, split) for split in ("dev", "test")}
        expect(len({*held_out.values()}) == 1, held_out, "dev and test to share their worlds, as they differ by seed")
    shared = [pack.domain.belongs(pack.world.hidden, "dev" if pack.split == "train" else "train") for pack in packs]
    got = f"{sum(shared)} of {len(shared)} worlds on both sides"
    expect(len({*shared}) == 1, got, "every world on one side, or on both where splits share worlds")


def knowledge_pays(packs: Sequence[Pack]) -> None:
    """Order the policies by what they know, and hold the floor and the ceiling against them."""
    domain, tasks = packs[0].domain, [task for pack in packs for task in pack.tasks]
    low, high = domain.bounds
    reward: dict[str, Any] = {}
    for name, bound in (("floor", domain.floor), ("ceiling", domain.ceiling)):
        reward[name] = np.array([[bound(task) for task in pack.tasks] for pack in packs])
    for ends in zip(reward["floor"].flat, reward["ceiling"].flat, strict=True):
        expect(low <= ends[0] <= ends[1] <= high, ends, f"a floor and a ceiling in order within {domain.bounds}")
    reward = {name: values.mean(1) for name, values in reward.items()}
    reward |= {name: np.array([_mean_reward(pack, name) for pack in packs]) for name in POLICIES}
    order = [("informed", "bayes"), ("bayes", "random"), ("random", "floor"), ("ceiling", "informed")]
    order += [("bayes", "floor"), ("ceiling", "bayes")]
    order += [("informed", "ceiling")] if type(domain).ceiling is not Domain.ceiling else []
    for more, less in order:
        gap = reward[more] - reward[less]
        # Besides the noise that shows, n tasks may miss an event as rare as a few in n.
        slack = ERRORS * gap.std(ddof=1) / math.sqrt(len(packs)) + ERRORS * (high - low) / len(tasks)
        got = f"{more} {reward[more].mean():.3f}, {less} {reward[less].mean():.3f}"
        expect(gap.mean() >= -slack, got, f"{more} to reach {less} on average, within {slack:.3f}")


def drawn_again(pack: Pack, size: int) -> Pack:
    """The pack of this name and another size."""
    return make_pack(pack.domain.id, pack.preset, pack.split, pack.index, size)


def lived(pack: Pack, policy: str, style: str) -> list[Played]:
    """Play one life with a scripted policy, and check every step."""
    return list(play_pack(pack, policy, style, sound_turn))


def sound_turn(domain: Domain, line: Sequence[tuple[str, Step]]) -> None:
    """Check the newest turn, and that the episode is not too long."""
    sound(domain, line[-1][1])
    expect(line[-1][1].done or len(line) < TURNS, f"an episode of {TURNS} turns", "an end")


def same_life(life: list[Played], again: list[Played]) -> None:
    """Compare everything that was shown, said and done in two lives."""
    for first, second in zip(life, again, strict=True):
        expect(second.opening == first.opening, second.opening, f"the opening of before, {first.opening!r:.300}")
        for (said, was), (text, step) in zip(first.line, second.line, strict=False):
            expect(text == said, text, f"what the same player said before, {said!r:.300}")
            same = replace(step, view=None) == replace(was, view=None) and alike(step.view, was.view)
            expect(same, step, f"what the first playing gave, {was!r:.300}")


def sound(domain: Domain, step: Step) -> None:
    """Look at one answer of an environment."""
    low, high = domain.bounds
    expect(isinstance(step, Step), step, "a Step")
    for text in (step.observation, step.feedback):
        expect(isinstance(text, str), text, "text")
    expect(isinstance(step.done, bool), step.done, "True or False for done")
    expect(step.stop is None or (step.done and isinstance(step.stop, str)), step.stop, "a word for the end, at the end")
    expect(bool(low <= step.reward <= high), step.reward, f"a reward within {domain.bounds}")
    expect(step.done or step.reward == 0, step.reward, "no reward before the last step, for only the last one counts")


def alike(one: Any, other: Any) -> bool:
    """Whether two views are equal; those that do not compare are held against each other byte by byte."""
    return bool(pickle.dumps(one) == pickle.dumps(other) or one == other)


def _twin(pack: Pack, which: int = 0) -> World:
    return pack.domain.twin(pack.world, stream(*pack.names, "twin", which))


def _mean_reward(pack: Pack, policy: str) -> float:
    return float(np.mean([played.reward for played in lived(pack, policy, pack.domain.styles[0])]))


def _open(task: Task, style: str) -> Env:
    return task.env(style=style, memory=task.domain.make_memory(task.world))
