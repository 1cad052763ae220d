"""Lessons as chats in JSON lines, which any trainer for supervised fine-tuning reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from codots.config.imitate import ImitateConfig
from codots.core.deadline import run_loop
from codots.domains.registry import get_domain
from codots.model.alphabet import make_render, messages_of
from codots.rollout.life import Life, rollouts
from codots.rollout.profile import Profile
from codots.sampler.scripted import ScriptedSampler
from codots.training.lessons import Lessons

AT_ONCE = 64
"""Number of lives that are rolled out together."""


def chat_rows(config: ImitateConfig, style: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield one row per episode of the lessons of a recipe's first step, with the chat as `messages`.

    `style` defaults to the first style of the domain. Raises RuntimeError if the teacher failed.
    """
    (stage,), (world,) = config.stages, config.stages[0].worlds
    chosen = replace(Profile(), style=style or get_domain(world.domain).styles[0]).fits(world.domain)
    jobs, render = Lessons(config, stage, chosen).jobs(1), make_render()
    for first in range(0, len(jobs), AT_ONCE):
        some = jobs[first : first + AT_ONCE]
        for job, life in zip(
            some, run_loop(rollouts(some, ScriptedSampler(render, lambda names: str), render)), strict=True
        ):
            if life.failure:
                raise RuntimeError(f"the teacher failed: {life.failure}")
            yield from rows_of(list(job.pack.names), life)


def rows_of(pack: list[str | int], life: Life) -> Iterator[dict[str, Any]]:
    """Yield one row per episode of a life that was rolled out with the renderer of `model.alphabet`."""
    domain, preset, split, index = pack
    for episode in life.episodes:
        yield {
            "messages": messages_of(episode.transcript.ids),
            "domain": domain,
            "preset": preset,
            "split": split,
            "index": index,
            "kind": episode.kind,
            "position": episode.position,
            "reward": episode.reward,
        }
