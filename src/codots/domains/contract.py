"""The promises of a domain, one function for each. A broken promise raises DomainError."""

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

MAX_TURNS = 10_000  # a longer episode counts as endless
MAX_PROMPT = 32_000  # characters of a prompt with all turns and a full context, about 8,000 tokens
TWINS = 4  # per world, since one twin may look the same by chance
ERRORS = 3  # standard errors of slack when two averages are compared
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
    """Error for a domain that breaks its contract."""


def expect(holds: bool, got: object, expected: str) -> None:
    """Raise DomainError with a one-line message unless the promise holds."""
    if not holds:
        raise DomainError(f"got {got!r:.300}, expected {expected}")


# Checks of a pack, independent of the style.


def a_name_is_one_pack(pack: Pack) -> None:
    """A pack's name determines its world and tasks, whatever the pack's size and however often it is drawn."""
    for more in (0, 3):
        again = redraw(pack, len(pack.tasks) + more)
        expect(again.world == pack.world, again.world, f"the world that this name drew before, {pack.world!r:.300}")
        for task, before in zip(again.tasks, pack.tasks, strict=False):
            expect(task == before, task.content, f"the task that this name drew before, {before.content!r:.300}")


def packs_pickle(pack: Pack) -> None:
    """A pack equals its copy after pickling."""
    expect(pickle.loads(pickle.dumps(pack)) == pack, "another pack", "a pack to be equal after pickling")


def a_twin_hides_another_rule(pack: Pack) -> None:
    """A twin has a different hidden part, but the same dials and the same rules text."""
    twin = _twin(pack)
    expect(twin.hidden != pack.world.hidden, twin.hidden, "a twin that hides something else")
    expect(twin.dials == pack.world.dials, twin.dials, f"a twin of the same dials, {pack.world.dials!r:.300}")
    for task, style in product(pack.tasks, pack.domain.styles):
        rules = pack.domain.rules_text(replace(task, world=twin), style)
        expect(rules == pack.domain.rules_text(task, style), rules, "rules that are the same in a twin")


PACK_CHECKS = (a_name_is_one_pack, packs_pickle, a_twin_hides_another_rule)


# Checks of a pack in one style.


def rules_hide_the_world(pack: Pack, style: str) -> None:
    """The rules and the first observation do not contain the oracle's context."""
    oracle = pack.domain.oracle_context(pack.world, style)
    for task in pack.tasks:
        for text in (pack.domain.rules_text(task, style), _open(task, style).observe()):
            expect(isinstance(text, str), text, "text")
            expect(not oracle or oracle not in text, text, f"no trace of the oracle's {oracle!r:.300}")


def prompts_hide_the_position(pack: Pack, style: str) -> None:
    """The first prompt of a task does not depend on the position of the task."""
    prompts = []
    for position in range(len(pack.tasks) + 3):
        task = replace(pack.tasks[0], position=position)
        rules, opening = pack.domain.rules_text(task, style), _open(task, style).observe()
        prompts.append(Rewrite().solve(rules, "some notes", opening, style))
        expect(prompts[-1] == prompts[0], prompts[-1], f"one prompt at every position, {prompts[0]!r:.300}")


def garbage_is_malformed(pack: Pack, style: str) -> None:
    """Text that contains no action ends the episode as `malformed`. Hostile text leads to a valid step."""
    for text in GARBAGE:
        step = _open(pack.tasks[0], style).step(text)
        check_step(pack.domain, step)
        expect(step.done and step.stop == "malformed", step, f"a last step that stops as 'malformed' on {text!r:.40}")
    good = pack.domain.policy("informed", pack.world).act(_open(pack.tasks[0], style).view)
    altered = (good[: len(good) // 2], good + good, good.upper(), good.replace(" ", " " * 100_000))
    for text in (*HOSTILE, *altered):
        check_step(pack.domain, _open(pack.tasks[0], style).step(text))


def episodes_end(pack: Pack, style: str) -> None:
    """Every episode ends, even if the policy repeats one action."""
    for policy in POLICIES:
        env = _open(pack.tasks[0], style)
        text = pack.domain.policy(policy, pack.world).act(env.view)
        done = any(env.step(text).done for _ in range(MAX_TURNS))
        expect(done, f"{MAX_TURNS} turns of {text!r:.100}", "an end to every episode")


def replays_are_equal(pack: Pack, style: str) -> None:
    """If a pack is drawn and played twice by the same policy, all observations, actions and steps are equal."""
    for policy in POLICIES:
        expect_same_life(rollout(pack, policy, style), rollout(redraw(pack, len(pack.tasks)), policy, style))


def twins_look_alike(pack: Pack, style: str) -> None:
    """Twins look the same until an action leads to a different view, a different reward or a different end."""
    for twin, policy in product(map(partial(_twin, pack), range(TWINS)), ("random", "bayes")):
        policies = pack.domain.policy(policy, pack.world), pack.domain.policy(policy, twin)
        for task in pack.tasks:
            here, there = _open(task, style), _open(replace(task, world=twin), style)
            one, other = here.observe(), there.observe()
            expect(one == other, other, f"the opening of its twin, {one!r:.300}")
            expect(views_equal(here.view, there.view), there.view, f"the first view of its twin, {here.view!r:.300}")
            step = _in_step(policies, here, there)
            if step is None:  # from here on, the policies have seen different things
                break
            for scripted in policies:
                scripted.end(step)
        for text in GARBAGE:
            here, there = _open(pack.tasks[0], style), _open(replace(pack.tasks[0], world=twin), style)
            a, b = replace(here.step(text), view=None), replace(there.step(text), view=None)
            expect(a == b, b, f"what the same text returned in its twin, {a!r:.300}")


def _in_step(policies: Any, here: Env, there: Env) -> Step | None:
    """Play both environments to the end. Return the last step, or None as soon as an action has different effects."""
    while True:
        text, other = policies[0].act(here.view), policies[1].act(there.view)
        expect(text == other, other, f"what the same policy says in a twin, {text!r:.300}")
        a, b = here.step(text), there.step(text)
        if (a.reward, a.done, a.stop) != (b.reward, b.done, b.stop) or not views_equal(here.view, there.view):
            return None
        expect(a.observation == b.observation, b.observation, f"the answer of its twin, {a.observation!r:.300}")
        if a.done:
            return a


STYLE_CHECKS = (
    rules_hide_the_world,
    prompts_hide_the_position,
    garbage_is_malformed,
    episodes_end,
    replays_are_equal,
    twins_look_alike,
)


def prompts_fit(pack: Pack, style: str) -> int:
    """Prompts stay short enough, even with all turns of an episode and a full context.

    Returns the length of the longest prompt in characters.
    """
    domain, strategy, longest = pack.domain, Rewrite(), 0
    pack = redraw(pack, max(domain.sizes))
    oracle = domain.oracle_context(pack.world, style)
    expect(len(oracle) <= strategy.cap, f"{len(oracle)} characters", f"an oracle's context of at most {strategy.cap}")
    context = "z" * strategy.cap
    for task, played in zip(pack.tasks, rollout(pack, "random", style), strict=True):
        rules, shown = domain.rules_text(task, style), [played.opening, *(step.observation for _, step in played.turns)]
        turns = tuple(Turn(seen, text) for seen, (text, _) in zip(shown, played.turns, strict=False))
        trajectory = Trajectory(rules, turns, shown[-1], played.reward, played.turns[-1][1].feedback)
        update = strategy.prompt(trajectory, context, style)
        for prompt in (strategy.solve(rules, context, "\n".join(shown), style), update):
            for part in (rules, context, shown[0]):
                expect(part.strip() in prompt.system + prompt.user, prompt, f"a prompt that shows {part!r:.100}")
            longest = max(longest, len(prompt.system) + len(prompt.user))
    expect(longest <= MAX_PROMPT, f"{longest} characters", f"prompts of at most {MAX_PROMPT}")
    return longest


# Checks of many packs.


def splits_stay_apart(packs: Sequence[Pack]) -> None:
    """A domain that keeps train and held-out tasks apart decides so by task content alone.

    `dev` and `test` share worlds, and `train` shares all of them or none.
    """
    for pack in packs:
        here, there = ("train", "held-out") if pack.split == "train" else ("held-out", "train")
        for task in pack.tasks:
            side = pack.domain.side(task)
            expect(side in (None, here), side, f"a task of the side {here} in {pack.split}")
            moved = replace(task, position=7, world=replace(task.world, split=there, names=("elsewhere",)))
            expect(pack.domain.side(moved) == side, pack.domain.side(moved), "a side that depends on the content alone")
    for pack in packs:
        held_out = {split: pack.domain.belongs(pack.world.hidden, split) for split in ("dev", "test")}
        expect(len({*held_out.values()}) == 1, held_out, "dev and test to share their worlds, as they differ by seed")
    shared = [pack.domain.belongs(pack.world.hidden, "dev" if pack.split == "train" else "train") for pack in packs]
    got = f"{sum(shared)} of {len(shared)} worlds on both sides"
    expect(len({*shared}) == 1, got, "every world on one side, or on both where splits share worlds")


def knowledge_pays(packs: Sequence[Pack]) -> None:
    """Average rewards rise in this order, up to noise: floor, `random`, `bayes`, `informed`, ceiling.

    Every floor is at most its ceiling, and both are within the domain's bounds. `informed` reaches the ceiling if the
    domain defines one.
    """
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
        # In addition to the measured noise, n tasks may miss an event as rare as a few in n.
        slack = ERRORS * gap.std(ddof=1) / math.sqrt(len(packs)) + ERRORS * (high - low) / len(tasks)
        got = f"{more} {reward[more].mean():.3f}, {less} {reward[less].mean():.3f}"
        expect(gap.mean() >= -slack, got, f"{more} to reach {less} on average, within {slack:.3f}")


def redraw(pack: Pack, size: int) -> Pack:
    """Draw the pack of the same name again, with `size` tasks."""
    return make_pack(pack.domain.id, pack.preset, pack.split, pack.index, size)


def rollout(pack: Pack, policy: str, style: str) -> list[Played]:
    """Roll out one life with a scripted policy, and check every step."""
    return list(play_pack(pack, policy, style, check_turn))


def check_turn(domain: Domain, turns: Sequence[tuple[str, Step]]) -> None:
    """Raise DomainError if the latest turn is invalid or the episode is too long."""
    check_step(domain, turns[-1][1])
    expect(turns[-1][1].done or len(turns) < MAX_TURNS, f"an episode of {MAX_TURNS} turns", "an end")


def expect_same_life(life: list[Played], again: list[Played]) -> None:
    """Raise DomainError unless two lives have equal observations, actions and steps."""
    for first, second in zip(life, again, strict=True):
        expect(second.opening == first.opening, second.opening, f"the same opening as before, {first.opening!r:.300}")
        for (text_before, before), (text, step) in zip(first.turns, second.turns, strict=False):
            expect(text == text_before, text, f"what the same policy said before, {text_before!r:.300}")
            same = replace(step, view=None) == replace(before, view=None) and views_equal(step.view, before.view)
            expect(same, step, f"what the first rollout returned, {before!r:.300}")


def check_step(domain: Domain, step: Step) -> None:
    """Raise DomainError if a step returned by an environment is invalid."""
    low, high = domain.bounds
    expect(isinstance(step, Step), step, "a Step")
    for text in (step.observation, step.feedback):
        expect(isinstance(text, str), text, "text")
    expect(isinstance(step.done, bool), step.done, "True or False for done")
    expect(step.stop is None or (step.done and isinstance(step.stop, str)), step.stop, "a word for the end, at the end")
    expect(bool(low <= step.reward <= high), step.reward, f"a reward within {domain.bounds}")
    expect(step.done or step.reward == 0, step.reward, "no reward before the last step, as only the last one counts")


def views_equal(one: Any, other: Any) -> bool:
    """Return whether two views are equal, by their pickled bytes or by `==`."""
    return bool(pickle.dumps(one) == pickle.dumps(other) or one == other)


def _twin(pack: Pack, which: int = 0) -> World:
    return pack.domain.twin(pack.world, stream(*pack.names, "twin", which))


def _mean_reward(pack: Pack, policy: str) -> float:
    return float(np.mean([played.reward for played in rollout(pack, policy, pack.domain.styles[0])]))


def _open(task: Task, style: str) -> Env:
    return task.env(style=style, memory=task.domain.make_memory(task.world))
