"""Measure whether a model reads that options are empty: `python benchmarks/denials.py MODEL [--packs 60]`.

In worlds of `bandit-v1` `easy`, the context denies one, two or three of the four options that do not pay. A reader
chooses one of the others, so that its reward is 1/3, 1/2 and 1; a model that does not read has .25. Intervals are 95%.
"""

from __future__ import annotations

import argparse

import numpy as np

from codots.context.rewrite import Rewrite
from codots.core.deadline import STAGE_TIMEOUT
from codots.domains.bandit.notes import NOT, write_claim
from codots.domains.base import Pack
from codots.domains.drift import holds
from codots.domains.registry import make_pack
from codots.engine.open import OpenModel
from codots.evaluation.stats import mean_ci
from codots.rollout.life import Job
from codots.rollout.steps import Given

DOMAIN, PRESET, TASKS = "bandit-v1", "easy", 2


def denying(pack: Pack, count: int, style: str) -> str:
    """Return a context that denies `count` options of a pack, one on each line."""
    secret = holds(pack.world.hidden)
    wrong = [option for option in secret.options if option != secret.right][:count]
    return "\n".join(write_claim([option], NOT, style) for option in wrong)


def rewards(model: OpenModel, count: int, packs: int) -> np.ndarray:
    """Return the mean reward of each pack, if its contexts deny `count` options."""
    params = model.profile.episode_params()
    jobs = []
    for i in range(packs):
        pack = make_pack(DOMAIN, PRESET, "dev", i, TASKS)
        contexts = (denying(pack, count, params.style),) * TASKS
        jobs.append(Job(pack, Given(Rewrite(), contexts), params, ("denials", count, i)))
    lives = model.rollout(jobs, STAGE_TIMEOUT)
    return np.array([np.mean([episode.reward for episode in life.episodes]) for life in lives])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="model folder, or a run")
    parser.add_argument("--packs", type=int, default=60, help="worlds of dev; each has two tasks")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    args = parser.parse_args()
    model = OpenModel(args.model, DOMAIN, workers=args.workers)
    print("| options denied | mean reward | of a reader |\n|---|---|---|")
    for count in (1, 2, 3):
        found = mean_ci(rewards(model, count, args.packs), 0.0, 1.0)
        low, high = found.interval
        print(f"| {count} | {found.mean:.3f} [{low:.2f}, {high:.2f}] | {1 / (4 - count):.3f} |", flush=True)
    model.close()


if __name__ == "__main__":
    main()
