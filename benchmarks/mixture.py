"""Time steps on a mixture of domains beside steps on one domain: `python benchmarks/mixture.py [ROUNDS]`.

Three domains give twelve packs each. Three steps on the mixture take four packs of every domain; three steps on one
domain each take its twelve packs. Both roll out and learn the same lives, id for id, because the learning rate is too
small to change a weight. Further contestants take three steps on one of the domains alone, with as many lives as it
takes to sample as many ids as the mixture does. A round times all, in changing order, and prints the ratios.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from one_step import engine_of

from codots.config.schema import TrainConfig
from codots.core.deadline import STAGE_TIMEOUT
from codots.core.transcript import Sample
from codots.engine.local import LocalEngine
from codots.learner.batch import normalizer
from codots.rollout.life import Job
from codots.training.batch import step_jobs
from codots.training.setup import entries_of

DOMAINS = ("frozen-lake-v1", "bandit-v1", "alchemy-v1")
PACKS, GROUP, MORE = 12, 4, 4
"""Packs of each domain, lives of each pack, and how many times as many packs a domain alone may need."""
Steps = Sequence[Sequence[Job]]


def step(engine: LocalEngine, jobs: Sequence[Job]) -> list[Sample]:
    """Roll out jobs, learn from every episode, and return the samples."""
    lives = engine.rollout(jobs, STAGE_TIMEOUT)
    samples = [episode.transcript.sample(1.0) for life in lives for episode in life.episodes]
    engine.forward_backward(samples, normalizer(samples, engine.first.learner.config), STAGE_TIMEOUT)
    engine.optim_step(STAGE_TIMEOUT)
    engine.sync(STAGE_TIMEOUT)
    return samples


def timed(engine: LocalEngine, steps: Steps) -> tuple[float, list[Sample]]:
    """Return the seconds of some steps and all their samples."""
    start = time.perf_counter()
    samples = [sample for jobs in steps for sample in step(engine, jobs)]
    return time.perf_counter() - start, samples


def ids(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Return the ids of all samples, sorted."""
    return sorted(tuple(sample.ids) for sample in samples)


def sampled(samples: Sequence[Sample]) -> int:
    """Count the sampled ids."""
    return sum(sum(sample.mask) for sample in samples)


def alone(engine: LocalEngine, jobs: Sequence[Job], budget: int) -> list[Job]:
    """Return as many of the jobs as it takes for a number of sampled ids."""
    lives = engine.rollout(jobs, STAGE_TIMEOUT)
    total = list(accumulate(sum(episode.transcript.tokens for episode in life.episodes) for life in lives))
    return list(jobs[: int(np.abs(np.array(total) - budget).argmin()) + 1])


def main(rounds: int = 5) -> None:
    """Print the seconds of each round and the median ratios."""
    worlds = [{"domain": domain, "packs_per_step": MORE * PACKS, "pack_size": 4} for domain in DOMAINS]
    config = TrainConfig(worlds=worlds, group_size=GROUP, workers=2, learner={"lr": 1e-30})
    engine = engine_of(config)
    jobs = step_jobs(entries_of(config, engine.plan.profile), config.seed, 1)
    size, third = PACKS * GROUP, PACKS * GROUP // len(DOMAINS)
    stock = [jobs[first : first + MORE * size] for first in range(0, len(jobs), MORE * size)]
    apart = [part[:size] for part in stock]
    mixed = [[job for part in apart for job in part[k * third : (k + 1) * third]] for k in range(len(DOMAINS))]
    _, samples = timed(engine, mixed)  # the first steps allocate
    budget = sampled(samples) // len(mixed)
    contestants: dict[str, Steps] = {"mixed": mixed, "apart": apart}
    contestants |= {name: [alone(engine, part, budget)] * len(mixed) for name, part in zip(DOMAINS, stock, strict=True)}
    ratios: dict[str, list[float]] = {name: [] for name in contestants if name != "mixed"}
    for k in range(rounds):
        found = {name: timed(engine, contestants[name]) for name in list(contestants)[:: 1 if k % 2 else -1]}
        if ids(found["mixed"][1]) != ids(found["apart"][1]):
            raise RuntimeError("the lives differ, so their times cannot be compared")
        print(", ".join(f"{name} {found[name][0]:.2f} s, {sampled(found[name][1]):,} sampled" for name in contestants))
        for name, values in ratios.items():
            values.append(found["mixed"][0] / found[name][0])
    engine.close()
    for name, values in ratios.items():
        print(f"median ratio of mixed over {name}: {np.median(values):.3f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
