"""The promises of a domain about claims, one function for each: what is true, what is counted, and what is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from codots.core.rng import stream
from codots.domains.base import Domain, Pack, Reader, Writer
from codots.domains.contract import expect
from codots.domains.scripted import turns

MISREAD = 0.05
"""Maximum loss of mean reward from reading rounded numbers, as a fraction of the range of rewards."""


def facts_are_right(pack: Pack, style: str) -> None:
    """`facts` counts every claim of the oracle's context as right, and some claim of a twin's oracle as wrong."""
    domain, world, oracle = pack.domain, pack.world, pack.domain.oracle_context(pack.world, style)
    found = domain.facts(world, oracle)
    if found is None or not oracle:
        return
    expect(found[0] == found[2] and found[1] == 0, found, "all right and none wrong in the oracle's context")
    twin = domain.twin(world, stream(*pack.names, "twin", 0))
    found = domain.facts(world, domain.oracle_context(twin, style))
    expect(found is not None and found[1] > 0, found, "something wrong in the context of a twin's oracle")


def claims_are_true(pack: Pack, style: str) -> None:
    """Every claim is one line of the oracle's context and is right by itself. A twin has the same subjects.

    A partial context says nothing wrong.
    """
    domain, world = pack.domain, pack.world
    claims, oracle = domain.claims(world, style), domain.oracle_context(world, style)
    for claim in claims.values():
        expect(bool(claim.strip()) and len(claim.splitlines()) == 1, claim, "a claim of one line")
        expect(claim in oracle, claim, f"a claim that is part of the oracle's {oracle!r:.300}")
        found = domain.facts(world, domain.note([claim], style))
        expect(found is None or (found[0] > 0 and found[1] == 0), found, f"{claim!r} to count as right")
    rng = stream(*pack.names, "guess")
    there = domain.claims(domain.twin(world, rng), style)
    expect([*there] == [*claims], [*there], f"a twin of the same subjects, {[*claims]!r:.300}")
    for subject in claims:
        guess = domain.guess(world, subject, style, rng)
        expect(bool(guess.strip()) and len(guess.splitlines()) == 1, guess, f"a guess about {subject!r} of one line")
    found = domain.facts(world, domain.partial_context(world, style, rng))
    expect(found is None or found[1] == 0, found, "nothing wrong in a context that says a part of what is hidden")


def notes_are_right(pack: Pack, style: str) -> None:
    """What `bayes` knows after each task counts as right, if it states what it knows.

    This ends at a change of the hidden part, which `bayes` may not have noticed.
    """
    domain, policy = pack.domain, pack.domain.policy("bayes", pack.world)
    memory = domain.make_memory(pack.world)
    for task in pack.tasks if isinstance(policy, Writer) else ():
        if pack.world.at(task.position) != pack.world.at(0):
            return
        *_, (_, last) = turns(task.env(style=style, memory=memory), policy.act)
        policy.end(last)
        notes = cast(Writer, policy).notes(style)
        subjects = [*domain.claims(pack.world, style)]
        expect(set(notes) <= set(subjects), [*notes], f"notes about {subjects!r:.300}")
        found = domain.facts(pack.world.at(0), domain.note(notes.values(), style))
        expect(found is None or found[1] == 0, found, "nothing wrong in what `bayes` knows")


CLAIM_CHECKS = (facts_are_right, claims_are_true, notes_are_right)


def reading_pays(packs: Sequence[Pack]) -> None:
    """Policies that read the oracle's context do as well as `informed`, up to rounding, in every style."""
    domain = packs[0].domain
    low, high = domain.bounds
    for style in domain.styles:
        for name in ("random", "bayes"):
            if isinstance(domain.policy(name, packs[0].world), Reader):
                read = np.mean([_mean_reward(pack, name, style, read=True) for pack in packs])
                knows = np.mean([_mean_reward(pack, "informed", style) for pack in packs])
                got = f"{name} {read:.3f} after reading in style {style}"
                least = knows - MISREAD * (high - low)
                expect(bool(read >= least), got, f"at least {least:.3f}, as informed gets {knows:.3f}")


def _mean_reward(pack: Pack, name: str, style: str, *, read: bool = False) -> float:
    """Return the mean reward of a policy. If `read`, each task has a new policy that has read the oracle's context."""
    domain: Domain = pack.domain
    policy, memory, rewards = domain.policy(name, pack.world), domain.make_memory(pack.world), []
    for task in pack.tasks:
        if read:
            policy = domain.policy(name, pack.world)
            cast(Reader, policy).read(domain.oracle_context(pack.world.at(task.position), style))
        *_, (_, last) = turns(task.env(style=style, memory=memory), policy.act)
        policy.end(last)
        rewards.append(last.reward)
    return float(np.mean(rewards))
