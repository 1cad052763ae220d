"""Rehearsed lives: scripted policies stand in for a model, to count what a run will read and write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from codots.context.rewrite import CLOSE, OPEN
from codots.core.transcript import Sample, Sampled, StopReason, Transcript
from codots.domains.base import Pack
from codots.model.renderer import Render
from codots.rollout.profile import Profile
from codots.rollout.steps import Given, LifeSteps, Own, SolveSteps, UpdateSteps


@dataclass(frozen=True)
class Rehearsed:
    """One rehearsed life."""

    samples: list[Sample]
    """Its episodes."""
    seconds: float
    """That environments, policies and words took."""

    @property
    def passes(self) -> int:
        """Passes of the model, one for each sampled id."""
        return sum(sum(sample.mask) for sample in self.samples)

    @property
    def longest(self) -> int:
        """Ids of the longest episode."""
        return max((len(sample.ids) for sample in self.samples), default=0)


def rehearse(
    packs: Sequence[Pack], profile: Profile, render: Render, share: float, *, rewrites: bool = True
) -> list[Rehearsed]:
    """Live packs by scripted policies, of which half learn and half do not.

    What is read is what a model would read; what is said takes `share` of what a model may say, or what the policy's
    words take, and no episode is longer than the profile's `length`. Without `rewrites` contexts stay empty. Raises
    ValueError if no prompt fits into that length.
    """
    rehearsal = _Rehearsal(profile, render, share)
    lives = [rehearsal.life(pack, "random" if i % 2 else "bayes", rewrites) for i, pack in enumerate(packs)]
    if not any(life.samples for life in lives):
        domain = packs[0].domain.id
        raise ValueError(f"no prompt of {domain} fits into the {profile.max_model_len} ids that the model may read")
    return lives


@dataclass(frozen=True)
class _Rehearsal:
    profile: Profile
    render: Render
    share: float

    def life(self, pack: Pack, policy: str, rewrites: bool) -> Rehearsed:
        start = time.process_time()
        samples = [one.sample(1.0) for one in self._episodes(pack, policy, rewrites) if one.tokens]
        return Rehearsed(samples, time.process_time() - start)

    def _episodes(self, pack: Pack, policy: str, rewrites: bool) -> Iterator[Transcript]:
        domain, style, strategy = pack.domain, self.profile.style, self.profile.strategy()
        contexts = Own(strategy) if rewrites else Given(strategy, ("",) * len(pack.tasks))
        life = LifeSteps(contexts, self.profile.episode_params(), len(pack.tasks))
        player, memory = domain.policy(policy, pack.world), domain.make_memory(pack.world)
        written = f"{OPEN}{domain.oracle_context(pack.world, style)[: self.profile.max_context_chars]}{CLOSE}"
        for task in pack.tasks:
            env = task.env(style=style, memory=memory)
            solve = life.solve(task.position, domain.rules_text(task, style), env.observe())
            while not solve.done:
                text = player.act(env.view)
                sampled = self._sampled(solve, text)
                action = solve.reply(sampled, text if sampled.ids else "")  # what a model without room would say
                step = env.step(action)
                solve.observe(step)
            player.end(step)
            yield solve.transcript
            if update := life.update(domain.reveals_reward):
                update.reply(self._sampled(update, written), written)  # which is given on even where no room is left
                yield update.transcript

    def _sampled(self, steps: SolveSteps | UpdateSteps, text: str) -> Sampled:
        """Say the text, and where that is short go on in ids that mean nothing; say nothing without room."""
        ids, reply, most = steps.next_ids(self.render), self.render.reply(text), steps.sampling.max_tokens
        room = self.profile.max_model_len - len(steps.transcript.ids) - len(ids)
        count = min(max(len(reply), int(most * self.share)), most, room)
        if count < 1:
            return Sampled([], [], StopReason.FULL, [])
        return Sampled((reply * (count // len(reply) + 1))[:count], [0.0] * count, StopReason.STOP, [0] * count)


def grouped(lives: list[Rehearsed], group: int) -> list[Sample]:
    """The episodes of a group for each life: alike up to the first reply, and no further."""
    return [_marked(sample, k) for life in lives for sample in life.samples for k in range(group)]


def _marked(sample: Sample, k: int) -> Sample:
    at = sample.mask.index(True)
    return replace(sample, ids=[*sample.ids[:at], k, *sample.ids[at + 1 :]])
