"""Rehearsed lives: scripted policies stand in for a model, to count what a run will read and write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from codots.context.rewrite import CLOSE, OPEN, Trajectory, Turn
from codots.core.transcript import Sample, Sampled, StopReason, Transcript
from codots.domains.base import Pack, Policy, Task
from codots.domains.scripted import turns
from codots.model.renderer import Render
from codots.rollout.profile import Profile


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
        raise ValueError(f"no prompt of {domain} fits into the {profile.length} ids that the model may read")
    return lives


@dataclass(frozen=True)
class _Rehearsal:
    profile: Profile
    render: Render
    share: float

    def life(self, pack: Pack, policy: str, rewrites: bool) -> Rehearsed:
        start = time.process_time()
        samples = [transcript.sample(1.0) for transcript in self._episodes(pack, policy, rewrites)]
        return Rehearsed(samples, time.process_time() - start)

    def _episodes(self, pack: Pack, policy: str, rewrites: bool) -> Iterator[Transcript]:
        domain, style, strategy = pack.domain, self.profile.style, self.profile.strategy()
        player, memory, z = domain.policy(policy, pack.world), domain.make_memory(pack.world), ""
        for task in pack.tasks:
            transcript, trajectory = self._solve(task, player, memory, z)
            if transcript.tokens:
                yield transcript
            if rewrites and task.position + 1 < len(pack.tasks):
                prompt = strategy.prompt(trajectory, z, style)
                z, transcript = domain.oracle_context(pack.world, style), Transcript()
                ids = self.render.opening(prompt.system, prompt.user)
                if self._answer(transcript, ids, f"{OPEN}{z}{CLOSE}", self.profile.update_tokens):
                    yield transcript

    def _solve(self, task: Task, player: Policy, memory: object | None, z: str) -> tuple[Transcript, Trajectory]:
        domain, style = task.domain, self.profile.style
        env, rules = task.env(style=style, memory=memory), domain.rules_text(task, style)
        observation, transcript, said = env.observe(), Transcript(), []
        prompt = self.profile.strategy().solve(rules, z, observation, style)
        ids = self.render.opening(prompt.system, prompt.user)

        def act(view: Any) -> str:
            text = player.act(view)
            room = self._answer(transcript, ids, text, self.profile.solve_tokens)
            return text if room else ""  # what a model without room would say

        for text, step in turns(env, act):
            said.append(Turn(observation, text))
            observation = step.observation
            if not step.done:
                ids = self.render.turn(observation, StopReason.STOP)
        player.end(step)
        told = step.reward if domain.reveals_reward else None
        return transcript, Trajectory(rules, tuple(said), step.observation, told, step.feedback)

    def _answer(self, transcript: Transcript, ids: list[int], text: str, most: int) -> bool:
        """Read, say the text, and where that is short go on in ids that mean nothing; False without room."""
        reply, room = self.render.reply(text), self.profile.length - len(transcript.ids) - len(ids)
        count = min(max(len(reply), int(most * self.share)), most, room)
        if count < 1:
            return False
        transcript.read(ids)
        said = (reply * (count // len(reply) + 1))[:count]
        transcript.wrote(Sampled(said, [0.0] * count, StopReason.STOP, 0))
        return True


def grouped(lives: list[Rehearsed], group: int) -> list[Sample]:
    """The episodes of a group for each life: alike up to the first reply, and no further."""
    return [_marked(sample, k) for life in lives for sample in life.samples for k in range(group)]


def _marked(sample: Sample, k: int) -> Sample:
    at = sample.mask.index(True)
    return replace(sample, ids=[*sample.ids[:at], k, *sample.ids[at + 1 :]])
