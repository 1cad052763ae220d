"""Time a few passes on this machine with random weights. Large models are extrapolated from one and two layers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from codots.core.deadline import run_loop
from codots.core.transcript import Sample
from codots.learner.config import LearnerConfig
from codots.learner.local import LocalLearner
from codots.model.kind import text_config
from codots.preflight.model_shape import Shape
from codots.rollout.fit import DryRun
from codots.sampler.base import SamplingParams
from codots.sampler.local import LocalSampler

SMALL = 200_000_000
"""Maximum number of weights for which the whole model is timed: a few of its layers would stay in the cache of a CPU,
and seem faster than they are."""
TOKENS = 2048
"""Number of tokens that a trial reads, and number that it trains on."""
REPLY = 16
"""Number of tokens that a trial samples per row."""


@dataclass(frozen=True)
class Speed:
    """Seconds that one worker needs for each kind of work."""

    sampled: float
    """Seconds of one pass, which samples one token for each life."""
    read: float
    """Seconds to read one token."""
    learned: float
    """Seconds of the forward and backward pass per token."""


def time_passes(shape: Shape, lives: Sequence[DryRun], rows: int, recompute: bool) -> Speed:
    """Time the passes of a worker that rolls out `rows` lives at once.

    `recompute` is whether training uses gradient checkpointing.
    """
    torch.set_num_threads(1)
    if shape.weights <= SMALL:
        return Speed(*_timed(shape, shape.layers, lives, rows, recompute))
    one, two = (_timed(shape, layers, lives, rows, recompute) for layers in (1, 2))
    return Speed(*(a + max(0.0, b - a) * (shape.layers - 1) for a, b in zip(one, two, strict=True)))


def _timed(
    shape: Shape, layers: int, lives: Sequence[DryRun], rows: int, recompute: bool
) -> tuple[float, float, float]:
    model = shape.with_layers(layers, shape.place.device).eval()
    samples = [sample for life in lives for sample in life.samples]
    prompts = [(samples[i % len(samples)].ids)[: max(16, TOKENS // rows)] for i in range(rows)]
    clock = (
        time.process_time if shape.place.device == "cpu" else time.perf_counter
    )  # CPU time, because other programs may be busy
    one_token = _median(clock, lambda: _sample(model, prompts, 1))
    all_tokens = _median(clock, lambda: _sample(model, prompts, 1 + REPLY))
    sampled = max(0.0, all_tokens - one_token) / REPLY
    read = max(0.0, one_token - sampled) / sum(map(len, prompts))
    learner = LocalLearner(model, LearnerConfig(gradient_checkpointing=recompute, max_microbatch_tokens=TOKENS))
    batch = _first_episodes(samples)
    ids = sum(len(part.ids) for part in shape.micro_batches(batch, TOKENS))
    return sampled, read, _median(clock, lambda: learner.forward_backward(batch, ids)) / ids


def _first_episodes(samples: Sequence[Sample]) -> list[Sample]:
    """Return the first episodes that have at most `TOKENS` tokens in total, but at least one episode."""
    selected, ids = [samples[0]], len(samples[0].ids)
    for sample in samples[1:]:
        ids += len(sample.ids)
        if ids > TOKENS:
            break
        selected.append(sample)
    return selected


def _median(clock: Callable[[], float], call: Callable[[], Any]) -> float:
    call()
    seconds = []
    for _ in range(3):
        start = clock()
        call()
        seconds.append(clock() - start)
    return median(seconds)


def _sample(model: Any, prompts: Sequence[list[int]], count: int) -> None:
    sampler = LocalSampler(model, frozenset(), max_sessions=len(prompts))

    async def one(i: int) -> None:
        ids = [
            i % text_config(model).vocab_size,
            *prompts[i],
        ]  # distinct first tokens, because the sampler reads a shared prefix only once
        async with sampler.session(("trial", i)) as session:
            await session.sample(ids, SamplingParams(count, 1.0))

    async def together() -> None:
        await asyncio.gather(*(one(i) for i in range(len(prompts))))

    run_loop(together())
