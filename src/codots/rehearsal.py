"""Lives as long as a model's, before there is a model: what a recipe will read and write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from codots.config import TrainConfig
from codots.context import CLOSE, OPEN, Trajectory, Turn
from codots.domain import make_pack
from codots.model import Profile
from codots.pack import Pack
from codots.render import Render
from codots.transcript import Sample, Sampled, StopReason, Transcript

PACKS = 4
"""Packs that are rehearsed."""


@dataclass(frozen=True)
class Life:
    """One rehearsed life, episode by episode."""

    samples: list[Sample]
    room: list[int]
    """Ids that the replies of each episode might have taken besides."""
    seconds: float
    """That environments, policies and words took."""
    profile: Profile

    @property
    def passes(self) -> int:
        """Passes of the model, one for each sampled id."""
        return sum(sum(sample.mask) for sample in self.samples)

    @property
    def longest(self) -> int:
        """Ids of the longest episode if every reply took all it may."""
        most = (len(sample.ids) + room for sample, room in zip(self.samples, self.room, strict=True))
        return min(max(most), self.profile.length)


def rehearse(config: TrainConfig, profile: Profile, render: Render) -> list[Life]:
    """Live some lives by scripted policies, of which half learn and half do not.

    What is read is what a model would read; what is said is half as long as it may be, or as long as the policy's.
    """
    packs = [make_pack(config.domain, config.preset, "train", i, config.size) for i in range(PACKS)]
    return [_rehearsed(config, profile, render, pack, "random" if i % 2 else "bayes") for i, pack in enumerate(packs)]


def _rehearsed(config: TrainConfig, profile: Profile, render: Render, pack: Pack, name: str) -> Life:
    start = time.process_time()
    episodes = list(_episodes(config, profile, render, pack, name))
    samples = [transcript.sample(1.0) for transcript, _ in episodes]
    return Life(samples, [room for _, room in episodes], time.process_time() - start, profile)


def _episodes(
    config: TrainConfig, profile: Profile, render: Render, pack: Pack, name: str
) -> Iterator[tuple[Transcript, int]]:
    """Give each episode, and how many ids more its replies might have taken."""
    domain, style, strategy = pack.domain, profile.style, profile.strategy()
    policy, memory, z = domain.policy(name, pack.world), domain.make_memory(pack.world), ""
    for task in pack.tasks:
        env, transcript, room, turns = task.env(style=style, memory=memory), Transcript(), 0, []
        observation, rules = env.observe(), domain.rules_text(task, style)
        prompt = strategy.solve(rules, z, observation, style)
        transcript.read(render.opening(prompt.system, prompt.user))
        while True:
            text = policy.act(env.view)
            room += _say(transcript, render.reply(text), profile.solve_tokens)
            turns.append(Turn(observation, text))
            step = env.step(text)
            if step.done:
                break
            observation = step.observation
            transcript.read(render.turn(observation, StopReason.STOP))
        policy.end(step)
        yield transcript, room
        if config.contexts == "own" and task.position + 1 < len(pack.tasks):
            told = step.reward if domain.reveals_reward else None
            prompt = strategy.prompt(Trajectory(rules, tuple(turns), step.observation, told, step.feedback), z, style)
            z, transcript = domain.oracle_context(pack.world, style), Transcript()
            transcript.read(render.opening(prompt.system, prompt.user))
            yield transcript, _say(transcript, render.reply(f"{OPEN}{z}{CLOSE}"), profile.update_tokens)


def _say(transcript: Transcript, ids: list[int], most: int) -> int:
    """Say what the policy says, or half of what may be said in ids that mean nothing; gives what is left."""
    count = min(max(len(ids), most // 2), most)
    said = (ids * (count // len(ids) + 1))[:count]
    transcript.wrote(Sampled(said, [0.0] * count, StopReason.STOP, 0))
    return most - count
