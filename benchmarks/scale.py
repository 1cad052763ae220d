"""Time what the driver of a Ray run does for each life of a step: `python benchmarks/scale.py [--lives 192] [--quick]`.

Lives and samples pass through the driver, in one thread: it reads the lives that samplers return, assigns credit, sorts
samples into fair shares and sends them to the learners. So its time grows with the number of lives of a step, however
many GPUs there are. The lives are random, of the size of setting A with an 8B model: four tasks and three updates, each
with some observed and some sampled ids. Seconds are CPU times, the fastest of some rounds.
"""

from __future__ import annotations

import argparse
import json
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from codots.config.schema import TrainConfig, WorldConfig
from codots.context.rewrite import Turn
from codots.core.transcript import Sample, Transcript
from codots.learner.batch import fair_shares
from codots.rollout.life import Life
from codots.rollout.profile import Profile
from codots.rollout.steps import Episode
from codots.training.batch import Block, blocks_of, credit_of, minibatches
from codots.training.setup import entries_of

GROUP, TASKS, LEARNERS, ROUNDS = 8, 4, 16, 3
IDS = 150_000
"""Number of ids in the vocabulary, as Qwen3 has them."""


def episode(rng: np.random.Generator, kind: Any, position: int, head: list[int], own: int, sampled: int) -> Episode:
    """Draw an episode: the shared ids `head`, `own` ids that are read and `sampled` ids that are sampled."""
    counts, total = (len(head) + own, sampled), len(head) + own + sampled
    ids = [*head, *rng.integers(0, IDS, own + sampled).tolist()]
    mask, versions = [False] * counts[0] + [True] * counts[1], [0] * counts[0] + [7] * counts[1]
    logprobs = [0.0] * counts[0] + (-rng.random(sampled)).tolist()
    reply = "word " * (sampled * 4 // 5)  # about four characters an id
    reward = float(rng.integers(2)) if kind == "solve" else 0.0
    written = None if kind == "solve" else "word " * 100
    transcript = Transcript(ids[:total], mask, logprobs, versions)
    return Episode(kind, position, reward, "word " * 100, written, "ok", (Turn("", reply),), "", transcript)


def lives_of(count: int, read: int, sampled: int) -> list[Life]:
    """Draw the lives of a step."""
    rng = np.random.default_rng(0)
    head = rng.integers(0, IDS, read // 2).tolist()

    def kinds() -> Sequence[tuple[Any, int]]:
        return [(kind, j) for j in range(TASKS) for kind in ("solve", "update") if (kind, j) != ("update", TASKS - 1)]

    return [
        Life(("life", i), tuple(episode(rng, kind, j, head, read - read // 2, sampled) for kind, j in kinds()))
        for i in range(count)
    ]


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """Return the CPU seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def measure(count: int, read: int, sampled: int, rounds: int) -> dict[str, float]:
    """Return milliseconds of the driver for each life, by part, and megabytes that a life has on its way."""
    packs = count // GROUP
    config = TrainConfig(
        worlds=[WorldConfig(domain="frozen-lake-v1", packs_per_step=packs, pack_size=TASKS)], group_size=GROUP
    )
    lives = lives_of(count, read, sampled)
    sent = pickle.dumps(lives, 5)
    blocks: list[Block] = blocks_of(entries_of(config, Profile()), 1, lives)
    credit = credit_of(config, blocks)
    (batch,) = minibatches(blocks, credit, 1)
    shares: list[list[Sample]] = fair_shares(batch, LEARNERS)
    parts = {
        "read lives": lambda: pickle.loads(sent),
        "assign credit": lambda: credit_of(config, blocks),
        "make samples": lambda: list(minibatches(blocks, credit, 1)),
        "sort into shares": lambda: fair_shares(batch, LEARNERS),
        "send samples": lambda: pickle.dumps(shares, 5),
    }
    found = {name: 1000 * seconds(work, rounds) / count for name, work in parts.items()}
    return found | {"all": sum(found.values()), "MB of a life": len(sent) / count / 1e6}


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lives", type=int, nargs="+", default=[192, 768], help="numbers of lives of a step")
    parser.add_argument("--read", type=int, default=600, help="ids that an episode reads, half of them shared")
    parser.add_argument("--sampled", type=int, default=2000, help="ids that an episode samples")
    parser.add_argument("--quick", action="store_true", help="few short lives, one round")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.lives, args.read, args.sampled = [16], 60, 100
    found = {n: measure(n, args.read, args.sampled, 1 if args.quick else ROUNDS) for n in args.lives}
    if args.json:
        print(json.dumps(found))
        return
    columns = list(next(iter(found.values())))
    print(f"| lives | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for n, row in found.items():
        print(f"| {n} | {' | '.join(f'{row[name]:.2f}' for name in columns)} |")


if __name__ == "__main__":
    main()
