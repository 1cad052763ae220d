"""Time steps on a mixture of domains beside steps on one domain each: `python benchmarks/mixture.py [ROUNDS]`.

Three domains give twelve packs each. Three steps on the mixture take four packs of every domain; three steps on one
domain each take its twelve packs. Both roll out and learn the same lives, id for id, because the learning rate is too
small to change a weight. A round times both, in alternating order, and prints the ratio.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

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
PACKS, GROUP = 12, 4
Lives = list[tuple[int, ...]]


def step(engine: LocalEngine, jobs: Sequence[Job]) -> list[Sample]:
    """Roll out jobs, learn from every episode, and return the samples."""
    lives = engine.rollout(jobs, STAGE_TIMEOUT)
    samples = [episode.transcript.sample(1.0) for life in lives for episode in life.episodes]
    engine.forward_backward(samples, normalizer(samples, engine.first.learner.config), STAGE_TIMEOUT)
    engine.optim_step(STAGE_TIMEOUT)
    engine.sync(STAGE_TIMEOUT)
    return samples


def timed(engine: LocalEngine, steps: Sequence[Sequence[Job]]) -> tuple[float, Lives]:
    """Return the seconds of some steps and all their ids, sorted."""
    start = time.perf_counter()
    samples = [sample for jobs in steps for sample in step(engine, jobs)]
    return time.perf_counter() - start, sorted(tuple(sample.ids) for sample in samples)


def main(rounds: int = 5) -> None:
    """Print the seconds of each round and the median ratio."""
    worlds = [{"domain": domain, "packs_per_step": PACKS, "pack_size": 4} for domain in DOMAINS]
    config = TrainConfig(worlds=worlds, group_size=GROUP, workers=2, learner={"lr": 1e-30})
    engine = engine_of(config)
    jobs = step_jobs(entries_of(config, engine.plan.profile), config.seed, 1)
    size, third = PACKS * GROUP, PACKS * GROUP // len(DOMAINS)
    apart = [jobs[first : first + size] for first in range(0, len(jobs), size)]
    mixed = [[job for part in apart for job in part[k * third : (k + 1) * third]] for k in range(len(DOMAINS))]
    timed(engine, [mixed[0]])  # the first step allocates
    ratios = []
    for k in range(rounds):
        order = [("mixed", mixed), ("apart", apart)][:: 1 if k % 2 else -1]
        found = {name: timed(engine, steps) for name, steps in order}
        if found["mixed"][1] != found["apart"][1]:
            raise RuntimeError("the lives differ, so their times cannot be compared")
        seconds = {name: value for name, (value, _) in found.items()}
        ratios.append(seconds["mixed"] / seconds["apart"])
        ids = sum(map(len, found["mixed"][1]))
        print(f"{ids} ids: mixed {seconds['mixed']:.2f} s, apart {seconds['apart']:.2f} s, ratio {ratios[-1]:.3f}")
    engine.close()
    print(f"median ratio {np.median(ratios):.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
