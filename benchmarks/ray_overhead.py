"""Time the same training steps on a local engine and on Ray, in turns: `python benchmarks/ray_overhead.py`.

The local engine has one worker, and Ray one sampler and one learner. Both roll out and learn the same lives, id for id,
which the script checks. A round times one step of each, in changing order; its parts are the rollout, the passes and
optimizer step, and the weight sync. The bar is an overhead of at most 0.15 s + 10% of a local step.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from one_step import demo

from codots.config.schema import TrainConfig
from codots.core.deadline import STAGE_TIMEOUT
from codots.engine.local import LocalEngine
from codots.engine.ray import RayEngine
from codots.learner.batch import normalizer
from codots.model.load import model_folder
from codots.rollout.life import Life
from codots.training.batch import blocks_of, credit_of, minibatches, step_jobs
from codots.training.setup import engine_plan, entries_of, make_engine, profile_of

PARTS = ("rollout", "update", "sync", "step")
SECONDS, SHARE = 0.15, 0.10
"""Bar: this many seconds and this fraction of a local step."""


@dataclass
class Contestant:
    """An engine, and the seconds of each part of its steps."""

    engine: LocalEngine | RayEngine
    seconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})

    def step(self, config: TrainConfig, step: int) -> list[Life]:
        """Take a training step and return its lives."""
        engine, entries = self.engine, entries_of(config, self.engine.plan.profile)
        jobs = step_jobs(entries, config.seed, step)
        start = time.perf_counter()
        lives = engine.rollout(jobs, STAGE_TIMEOUT)
        rolled_out = time.perf_counter()
        blocks = blocks_of(entries, step, lives)
        for batch in minibatches(blocks, credit_of(config, blocks), config.minibatches):
            engine.forward_backward(batch, normalizer(batch, config.learner), STAGE_TIMEOUT)
            engine.optim_step(STAGE_TIMEOUT)
        updated = time.perf_counter()
        engine.sync(STAGE_TIMEOUT)
        end = time.perf_counter()
        for part, value in zip(
            PARTS, (rolled_out - start, updated - rolled_out, end - updated, end - start), strict=True
        ):
            self.seconds[part].append(value)
        return lives


def main() -> None:
    """Time all rounds and print the medians. The first round, which warms up, is left out."""
    args = arguments()
    small = [f"packs_per_step={args.packs}", f"group_size={args.group}", "workers=1"]
    configs = {kind: demo(*small, f"engine.kind={kind}") for kind in ("local", "ray")}
    contestants = {kind: Contestant(start(config)) for kind, config in configs.items()}
    try:
        for number in range(args.rounds + 1):
            kinds = list(configs)[:: -1 if number % 2 else 1]
            lives = {kind: contestants[kind].step(configs[kind], number + 1) for kind in kinds}
            if lives["local"] != lives["ray"]:
                sys.exit(f"the lives of step {number + 1} differ, expected equal ids and logprobs")
    finally:
        for contestant in contestants.values():
            contestant.engine.close()
    report({kind: contestant.seconds for kind, contestant in contestants.items()})


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--packs", type=int, default=4, help="packs per step")
    parser.add_argument("--group", type=int, default=4, help="lives per pack")
    return parser.parse_args()


def start(config: TrainConfig) -> LocalEngine | RayEngine:
    """Start the engine of a recipe."""
    folder = model_folder(config.model, config.base)
    engine = make_engine(config, engine_plan(config, folder, profile_of(config, folder)))
    assert isinstance(engine, LocalEngine | RayEngine)
    return engine


def report(seconds: dict[str, dict[str, Sequence[float]]]) -> None:
    """Print the median seconds of each part, and whether the overhead of a step is within the bar."""
    medians = {kind: {part: float(np.median(values[part][1:])) for part in PARTS} for kind, values in seconds.items()}
    local, ray = medians["local"], medians["ray"]
    print("| | local, s | Ray, s | difference, s |\n|---|---|---|---|")
    for part in PARTS:
        print(f"| {part} | {local[part]:.3f} | {ray[part]:.3f} | {ray[part] - local[part]:+.3f} |")
    overhead, bar = ray["step"] - local["step"], SECONDS + SHARE * local["step"]
    print(f"overhead {overhead:.3f} s, bar {bar:.3f} s: {'met' if overhead <= bar else 'missed'}")


if __name__ == "__main__":
    main()
