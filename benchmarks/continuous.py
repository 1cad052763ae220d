"""Time the continuous sampler with and without a session that sleeps, and against lockstep.

    python benchmarks/continuous.py

The load is `long` of `benchmarks/sampler.py`: sessions of 4 turns, answers of 1 to 64 ids. The sleeper is one further
session whose environment sleeps between its turns for as long as the others live; only the others' ids are counted. The
three ways to play take turns, each time in another order, and a ratio is that of two of the same round. Both clocks are
read: wall time tells what waiting costs, and process time is the steadier where others use the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from sampler import Life, long, save_model

BAR = 0.95
"""Least throughput of the others beside a sleeper, as a share of that without one."""
Rates = dict[str, dict[str, list[float]]]
"""Sampled tokens a second, by clock, by way to play, and in order."""
WAYS = ("continuous", "beside a sleeper", "lockstep")


def main() -> None:
    """Print throughputs round by round, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=64, help="open at once, without the sleeper")
    parser.add_argument("--lives", type=int, default=1, help="sessions one after the other in each of their places")
    parser.add_argument("--times", type=int, default=15, help="rounds, of which the median is told")
    parser.add_argument("--nap", type=float, default=0.5, metavar="SECONDS", help="that the sleeper sleeps at a time")
    parser.add_argument("--quick", action="store_true", help="few sessions, once")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.quick:
        asked.sessions, asked.lives, asked.times, asked.nap = 4, 1, 1, 0.01
    sessions = long(asked.sessions * asked.lives)
    lives = [list(chain(*sessions[i :: asked.sessions])) for i in range(asked.sessions)]
    found = measure(lives, asked.times, asked.nap)
    print(json.dumps(found) if asked.json else table(found))


def measure(lives: Sequence[Life], times: int, nap: float) -> Rates:
    """Play in every way, so many times."""
    import torch

    from codots.model.load import load_model
    from codots.sampler.continuous import ContinuousSampler
    from codots.sampler.local import LocalSampler

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model")
        model, _ = load_model(Path(folder) / "model")
    continuous = ContinuousSampler(model, frozenset())
    samplers = {"continuous": continuous, "beside a sleeper": continuous, "lockstep": LocalSampler(model, frozenset())}
    for way, sampler in samplers.items():  # warms up
        asyncio.run(play(sampler, lives[:8], nap if "sleeper" in way else None))
    found: Rates = {clock: {way: [] for way in WAYS} for clock in ("wall", "cpu")}
    for i in range(times):
        for way in (*WAYS[i % 3 :], *WAYS[: i % 3]):
            rates = asyncio.run(play(samplers[way], lives, nap if "sleeper" in way else None))
            for clock, rate in zip(found, rates, strict=True):
                found[clock][way].append(rate)
    return found


async def play(sampler: Any, lives: Sequence[Life], nap: float | None) -> tuple[float, float]:
    """Play lives at once, beside a sleeper unless its nap is None; gives their tokens a second of wall and CPU time."""
    sleeper = asyncio.create_task(sleep(sampler, nap)) if nap is not None else None
    wall, cpu = perf_counter(), process_time()
    sampled = sum(await asyncio.gather(*(live(sampler, i, life) for i, life in enumerate(lives))))
    wall, cpu = perf_counter() - wall, process_time() - cpu
    if sleeper:
        sleeper.cancel()
        await asyncio.wait([sleeper])
    return sampled / wall, sampled / cpu


async def live(sampler: Any, name: int, life: Life) -> int:
    """Play the sessions of a life, and count what it sampled."""
    from codots.sampler.base import SamplingParams

    sampled = 0
    for j, turns in enumerate(life):
        async with sampler.session(("life", name, j)) as session:
            for ids, count in turns:
                sampled += len((await session.sample(ids, SamplingParams(count))).ids)
    return sampled


async def sleep(sampler: Any, nap: float) -> None:
    """Hold a session open whose environment sleeps between its turns."""
    from codots.sampler.base import SamplingParams

    async with sampler.session(("sleeper",)) as session:
        while True:
            await session.sample([1, 2, 3, 4], SamplingParams(4))
            await asyncio.sleep(nap)


def table(found: Rates) -> str:
    """Lay out each round, and the medians of its ratios."""
    columns: dict[str, list[float]] = {}
    for clock, rates in found.items():
        for ratio, one, other in (("sleeper / none", WAYS[1], WAYS[0]), ("continuous / lockstep", WAYS[0], WAYS[2])):
            columns[f"{ratio}, {clock}"] = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
    rounds = zip(*found["wall"].values(), *columns.values(), strict=True)
    lines = ["| " + " | ".join([*WAYS, *columns]) + " |", "|---" * (len(WAYS) + len(columns)) + "|"]
    lines += [
        "| " + " | ".join([f"{n:,.0f}" for n in row[:3]] + [f"{n:.3f}" for n in row[3:]]) + " |" for row in rounds
    ]
    lines += [
        "",
        f"tokens a second of wall time, and ratios; their medians, of which the first is to be {BAR:g} or more:",
    ]
    return "\n".join([*lines, *(f"{name}: {median(values):.3f}" for name, values in columns.items())])


if __name__ == "__main__":
    main()
