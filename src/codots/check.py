"""Hold a domain to its contract; the first broken promise is one line: what came, and what was expected."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import numpy as np

from codots.context import Rewrite
from codots.domain import Domain, Env, Step, get_domain, make_pack, register
from codots.pack import Pack, Task, stream

TURNS = 10_000  # an episode that lasts longer is taken to be endless
ERRORS = 3  # standard errors by which an average may miss what it is compared with
GARBAGE = ("", " \n\t", "z" * 100_000, " " * 100_000, "\x00\ufffd\u202e\U0001f9ca \u00b2\u0663\u2460", "<<>></>{{}}")
Line = list[tuple[str, Step]]  # the texts of an episode and what each led to


class DomainError(AssertionError):
    """A domain breaks its contract."""


def check_domain(domain: str | Domain, packs: int = 32, size: int = 4) -> None:
    """Check every preset and style of a domain on its first packs, of which half are held out.

    A domain that is given as an object is registered. A preset that lacks something is left out. Averages over policies
    allow for the noise of so few tasks: more packs make a stricter check. Raises DomainError at the first broken
    promise, ValueError for fewer than two packs.
    """
    if packs < 2:
        raise ValueError(f"{packs} packs; expected at least 2, to know the noise of an average")
    domain = register(domain) if isinstance(domain, Domain) else get_domain(domain)
    for preset in (preset for preset in domain.presets if domain.lacks(preset) is None):
        with promised(f"{domain.id} {preset}"):
            drawn = [make_pack(domain.id, preset, ("train", "dev")[i % 2], i, size) for i in range(packs)]
        for check, pack in product((a_name_is_one_pack, packs_travel, a_twin_hides_another_rule), drawn[:2]):
            with promised(f"{domain.id} {preset}, {check.__name__}"):
                check(pack)
        for in_style, pack, style in product(IN_STYLE, drawn[:2], domain.styles):
            with promised(f"{domain.id} {preset} {style}, {in_style.__name__}"):
                in_style(pack, style)
        with promised(f"{domain.id} {preset}, knowledge_pays"):
            knowledge_pays(drawn)


@contextmanager
def promised(what: str) -> Iterator[None]:
    """Name the promise that breaks inside, by a failed expectation, an exception or a draw from a global generator."""
    before = pickle.dumps((random.getstate(), np.random.get_state()))
    try:
        yield
    except DomainError as error:
        raise DomainError(f"{what}: {error}") from None
    except Exception as error:
        line = " ".join(str(error).split())
        raise DomainError(f"{what}: got {type(error).__name__}: {line:.300}, expected no exception") from error
    if pickle.dumps((random.getstate(), np.random.get_state())) != before:
        raise DomainError(f"{what}: got a draw from a global random generator, expected the given `rng` alone")


def expect(holds: bool, got: object, expected: str) -> None:
    """Word a broken promise in one line."""
    if not holds:
        raise DomainError(f"got {got!r:.300}, expected {expected}")


def a_name_is_one_pack(pack: Pack) -> None:
    """Whatever its size, and however often it is drawn."""
    for more in (0, 3):
        again = make_pack(pack.domain.id, pack.preset, pack.split, pack.index, len(pack.tasks) + more)
        expect(again.world == pack.world, again.world, f"the world that this name gave before, {pack.world!r:.300}")
        for task, before in zip(again.tasks, pack.tasks, strict=False):
            expect(task == before, task.content, f"the task that this name gave before, {before.content!r:.300}")


def packs_travel(pack: Pack) -> None:
    expect(pickle.loads(pickle.dumps(pack)) == pack, "another pack", "a pickled pack to be equal on arrival")


def a_twin_hides_another_rule(pack: Pack) -> None:
    twin = pack.domain.twin(pack.world, stream(*pack.names, "twin"))
    expect(twin.hidden != pack.world.hidden, twin.hidden, "a twin that hides something else")
    expect(twin.dials == pack.world.dials, twin.dials, f"a twin of the same dials, {pack.world.dials!r:.300}")
    for task, style in product(pack.tasks, pack.domain.styles):
        told = pack.domain.rules_text(replace(task, world=twin), style)
        expect(told == pack.domain.rules_text(task, style), told, "rules that are the same in a twin")


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
    twin = pack.domain.twin(world, stream(*pack.names, "twin"))
    found = pack.domain.facts(world, pack.domain.oracle_context(twin, style))
    expect(found is not None and found[1] > 0, found, "something wrong in the context of a twin's oracle")


def garbage_is_malformed(pack: Pack, style: str) -> None:
    for text in GARBAGE:
        step = _open(pack.tasks[0], style).step(text)
        _sound(pack.domain, step)
        expect(step.done and step.stop == "malformed", step, f"a last step that stops as 'malformed' on {text!r:.40}")
    good = pack.domain.policy("informed", pack.world).act(_open(pack.tasks[0], style).view)
    for text in (good[: len(good) // 2], good + good, good.upper(), good.replace(" ", " " * 100_000)):
        _sound(pack.domain, _open(pack.tasks[0], style).step(text))


def replays_are_equal(pack: Pack, style: str) -> None:
    for policy in ("random", "informed", "bayes"):
        memory = pack.domain.make_memory(pack.world)
        for task, line in zip(pack.tasks, play(pack, policy, style), strict=True):
            env = task.env(style=style, memory=memory)
            env.observe()
            for text, step in line:
                again = replace(env.step(text), view=None)
                expect(again == replace(step, view=None), again, f"what the first playing gave, {step!r:.300}")


IN_STYLE = (rules_hide_the_world, prompts_hide_the_position, facts_are_right, garbage_is_malformed, replays_are_equal)


def knowledge_pays(packs: Sequence[Pack]) -> None:
    """Order the policies by what they know, and hold the floor and the ceiling against them."""
    domain, tasks = packs[0].domain, [task for pack in packs for task in pack.tasks]
    low, high = domain.bounds
    for task in tasks:
        ends = domain.floor(task), domain.ceiling(task)
        expect(low <= ends[0] <= ends[1] <= high, ends, f"a floor and a ceiling in order within {domain.bounds}")
    reward = {name: np.array([_mean_reward(p, name) for p in packs]) for name in ("random", "informed", "bayes")}
    for name, bound in (("floor", domain.floor), ("ceiling", domain.ceiling)):
        reward[name] = np.array([np.mean([bound(task) for task in pack.tasks]) for pack in packs])
    order = [("informed", "bayes"), ("bayes", "random"), ("random", "floor"), ("ceiling", "informed")]
    order += [("informed", "ceiling")] if type(domain).ceiling is not Domain.ceiling else []
    for more, less in order:
        gap = reward[more] - reward[less]
        # Besides the noise that shows, n tasks may miss an event as rare as a few in n.
        slack = ERRORS * gap.std(ddof=1) / math.sqrt(len(packs)) + ERRORS * (high - low) / len(tasks)
        got = f"{more} {reward[more].mean():.3f}, {less} {reward[less].mean():.3f}"
        expect(gap.mean() >= -slack, got, f"{more} to reach {less} on average, within {slack:.3f}")


def play(pack: Pack, policy: str, style: str) -> list[Line]:
    """Live one life with a scripted policy, every step looked at."""
    player, memory, lines = pack.domain.policy(policy, pack.world), pack.domain.make_memory(pack.world), []
    for task in pack.tasks:
        env = task.env(style=style, memory=memory)
        line: Line = []
        env.observe()
        while not line or not line[-1][1].done:
            expect(len(line) < TURNS, f"an episode of {TURNS} turns", "an end")
            text = player.act(env.view)
            line.append((text, env.step(text)))
            _sound(pack.domain, line[-1][1])
        player.end(line[-1][1])
        lines.append(line)
    return lines


def _mean_reward(pack: Pack, policy: str) -> float:
    return float(np.mean([line[-1][1].reward for line in play(pack, policy, pack.domain.styles[0])]))


def _open(task: Task, style: str) -> Env:
    return task.env(style=style, memory=task.domain.make_memory(task.world))


def _sound(domain: Domain, step: Step) -> None:
    low, high = domain.bounds
    expect(isinstance(step, Step), step, "a Step")
    for text in (step.observation, step.feedback):
        expect(isinstance(text, str), text, "text")
    expect(isinstance(step.done, bool), step.done, "True or False for done")
    expect(step.stop is None or (step.done and isinstance(step.stop, str)), step.stop, "a word for the end, at the end")
    expect(bool(low <= step.reward <= high), step.reward, f"a reward within {domain.bounds}")
    expect(step.done or step.reward == 0, step.reward, "no reward before the last step, for only the last one counts")
