"""Lives as long as a model's, before there is a model: what a recipe will read and write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from codots.config.schema import TrainConfig
from codots.context.rewrite import CLOSE, OPEN, Trajectory, Turn
from codots.core.transcript import Sample, Sampled, StopReason, Transcript
from codots.domains.base import Pack
from codots.domains.registry import make_pack
from codots.model.renderer import Render
from codots.rollout.profile import Profile

PACKS = 4
"""Packs that are rehearsed."""


@dataclass(frozen=True)
class Life:
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


def rehearse(config: TrainConfig, profile: Profile, render: Render, share: float) -> list[Life]:
    """Live some lives by scripted policies, of which half learn and half do not.

    What is read is what a model would read; what is said takes `share` of what a model may say, or what the policy's
    words take, and no episode is longer than the profile's `length`. Raises ValueError if no prompt fits into that.
    """
    packs = [make_pack(config.domain, config.preset, "train", i, config.size) for i in range(PACKS)]
    lives = [
        _lived(config, profile, render, pack, "random" if i % 2 else "bayes", share) for i, pack in enumerate(packs)
    ]
    if not any(life.samples for life in lives):
        raise ValueError(f"no prompt of {config.domain} fits into the {profile.length} ids that the model may read")
    return lives


def _lived(config: TrainConfig, profile: Profile, render: Render, pack: Pack, name: str, share: float) -> Life:
    start = time.process_time()
    samples = [transcript.sample(1.0) for transcript in _episodes(config, profile, render, pack, name, share)]
    return Life(samples, time.process_time() - start)


def _episodes(
    config: TrainConfig, profile: Profile, render: Render, pack: Pack, name: str, share: float
) -> Iterator[Transcript]:
    domain, style, strategy = pack.domain, profile.style, profile.strategy()
    policy, memory, z = domain.policy(name, pack.world), domain.make_memory(pack.world), ""
    for task in pack.tasks:
        env, transcript, turns = task.env(style=style, memory=memory), Transcript(), []
        observation, rules = env.observe(), domain.rules_text(task, style)
        prompt = strategy.solve(rules, z, observation, style)
        ids = render.opening(prompt.system, prompt.user)
        while True:
            text = policy.act(env.view)
            if not _answer(transcript, ids, render.reply(text), profile.solve_tokens, share, profile.length):
                text = ""  # as of a model that has no more room
            turns.append(Turn(observation, text))
            step = env.step(text)
            if step.done:
                break
            observation = step.observation
            ids = render.turn(observation, StopReason.STOP)
        policy.end(step)
        if transcript.tokens:
            yield transcript
        if config.contexts == "own" and task.position + 1 < len(pack.tasks):
            told = step.reward if domain.reveals_reward else None
            prompt = strategy.prompt(Trajectory(rules, tuple(turns), step.observation, told, step.feedback), z, style)
            z, transcript = domain.oracle_context(pack.world, style), Transcript()
            ids, reply = render.opening(prompt.system, prompt.user), render.reply(f"{OPEN}{z}{CLOSE}")
            if _answer(transcript, ids, reply, profile.update_tokens, share, profile.length):
                yield transcript


def _answer(transcript: Transcript, ids: list[int], reply: list[int], most: int, share: float, length: int) -> bool:
    """Read, say what the policy says, and where that is short go on in ids that mean nothing; False without room."""
    count = min(max(len(reply), int(most * share)), most, length - len(transcript.ids) - len(ids))
    if count < 1:
        return False
    transcript.read(ids)
    said = (reply * (count // len(reply) + 1))[:count]
    transcript.wrote(Sampled(said, [0.0] * count, StopReason.STOP, 0))
    return True


def grouped(lives: list[Life], group: int) -> list[Sample]:
    """The episodes of a group for each life: alike up to the first reply, and no further."""
    return [_marked(sample, k) for life in lives for sample in life.samples for k in range(group)]


def _marked(sample: Sample, k: int) -> Sample:
    at = sample.mask.index(True)
    return replace(sample, ids=[*sample.ids[:at], k, *sample.ids[at + 1 :]])
