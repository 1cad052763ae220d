"""How long a pass takes here: a few are run, by a model of random weights and, where that is large, of two layers."""

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
from codots.learner.batch import micro_batches
from codots.learner.config import LearnerConfig
from codots.learner.local import LocalLearner
from codots.preflight.model_shape import Shape
from codots.rollout.fit import Rehearsed
from codots.sampler.base import SamplingParams
from codots.sampler.local import LocalSampler

SMALL = 5_000_000
"""Weights up to which the whole model is tried."""
IDS = 2048
"""Ids that a trial reads, and learns from."""
REPLY = 16
"""Ids that a trial samples of each row."""


@dataclass(frozen=True)
class Pace:
    """Seconds of one worker."""

    sampled: float
    """Of a pass that samples an id for every life."""
    read: float
    """Of reading one id."""
    learned: float
    """Of one id, there and back."""


def try_passes(shape: Shape, lives: Sequence[Rehearsed], rows: int, recompute: bool) -> Pace:
    """Time the passes of a recipe whose workers live `rows` lives at once."""
    torch.set_num_threads(1)
    if shape.weights <= SMALL:
        return Pace(*_timed(shape, shape.layers, lives, rows, recompute))
    one, two = (_timed(shape, layers, lives, rows, recompute) for layers in (1, 2))
    return Pace(*(a + max(0.0, b - a) * (shape.layers - 1) for a, b in zip(one, two, strict=True)))


def _timed(
    shape: Shape, layers: int, lives: Sequence[Rehearsed], rows: int, recompute: bool
) -> tuple[float, float, float]:
    model = shape.with_layers(layers, shape.place.device).eval()
    samples = [sample for life in lives for sample in life.samples]
    openings = [(samples[i % len(samples)].ids)[: max(16, IDS // rows)] for i in range(rows)]
    clock = time.process_time if shape.place.device == "cpu" else time.perf_counter  # other programs may be busy
    first = _median(clock, lambda: _sample(model, openings, 1))
    more = _median(clock, lambda: _sample(model, openings, 1 + REPLY))
    sampled = max(0.0, more - first) / REPLY
    read = max(0.0, first - sampled) / sum(map(len, openings))
    learner = LocalLearner(model, LearnerConfig(gradient_checkpointing=recompute, max_microbatch_tokens=IDS))
    batch = _some(samples)
    ids = sum(len(part.ids) for part in micro_batches(batch, IDS))
    return sampled, read, _median(clock, lambda: learner.forward_backward(batch, ids)) / ids


def _some(samples: Sequence[Sample]) -> list[Sample]:
    """The first episodes, up to `IDS` ids, and one at least."""
    taken, ids = [samples[0]], len(samples[0].ids)
    for sample in samples[1:]:
        ids += len(sample.ids)
        if ids > IDS:
            break
        taken.append(sample)
    return taken


def _median(clock: Callable[[], float], call: Callable[[], Any]) -> float:
    call()
    spent = []
    for _ in range(3):
        start = clock()
        call()
        spent.append(clock() - start)
    return median(spent)


def _sample(model: Any, openings: Sequence[list[int]], count: int) -> None:
    sampler = LocalSampler(model, frozenset(), max_sessions=len(openings))

    async def one(i: int) -> None:
        ids = [i % model.config.vocab_size, *openings[i]]  # rows that begin alike would be read once
        async with sampler.session(("trial", i)) as session:
            await session.sample(ids, SamplingParams(count, 1.0))

    async def together() -> None:
        await asyncio.gather(*(one(i) for i in range(len(openings))))

    run_loop(together())
