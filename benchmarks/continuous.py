"""Time the continuous sampler with and without a sleeping session, and against lockstep.

    python benchmarks/continuous.py

The load is `long` of `benchmarks/sampler.py`: sessions of 4 turns, answers of 1 to 64 ids. The sleeper is one extra
session whose environment sleeps between turns until the others are done; only the ids of the others count. The three
modes run in turns, in a different order each round, and each ratio compares two modes of the same round. The script
reads both clocks: wall time includes waiting, and process time is steadier on a shared machine.
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

TARGET = 0.95
"""Minimum throughput of the other sessions next to a sleeper, as a share of the throughput without one."""
Rates = dict[str, dict[str, list[float]]]
"""Sampled tokens per second, by clock, mode and round."""
MODES = ("continuous", "beside a sleeper", "lockstep")


def main() -> None:
    """Print the throughput of each round, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=64, help="concurrent sessions, without the sleeper")
    parser.add_argument("--lives", type=int, default=1, help="consecutive sessions in each slot")
    parser.add_argument("--times", type=int, default=15, help="rounds; the script prints the median")
    parser.add_argument("--nap", type=float, default=0.5, metavar="SECONDS", help="sleep between turns of the sleeper")
    parser.add_argument("--quick", action="store_true", help="few sessions, one round")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.sessions, args.lives, args.times, args.nap = 4, 1, 1, 0.01
    sessions = long(args.sessions * args.lives)
    lives = [list(chain(*sessions[i :: args.sessions])) for i in range(args.sessions)]
    found = measure(lives, args.times, args.nap)
    print(json.dumps(found) if args.json else table(found))


def measure(lives: Sequence[Life], times: int, nap: float) -> Rates:
    """Run every mode in every round."""
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
    for mode, sampler in samplers.items():  # warm-up
        asyncio.run(roll_out(sampler, lives[:8], nap if "sleeper" in mode else None))
    found: Rates = {clock: {mode: [] for mode in MODES} for clock in ("wall", "cpu")}
    for i in range(times):
        for mode in (*MODES[i % 3 :], *MODES[: i % 3]):
            rates = asyncio.run(roll_out(samplers[mode], lives, nap if "sleeper" in mode else None))
            for clock, rate in zip(found, rates, strict=True):
                found[clock][mode].append(rate)
    return found


async def roll_out(sampler: Any, lives: Sequence[Life], nap: float | None) -> tuple[float, float]:
    """Run lives concurrently, with a sleeper unless `nap` is None; return tokens per second of wall and CPU time."""
    sleeper = asyncio.create_task(sleep(sampler, nap)) if nap is not None else None
    wall, cpu = perf_counter(), process_time()
    sampled = sum(await asyncio.gather(*(roll_out_one(sampler, i, life) for i, life in enumerate(lives))))
    wall, cpu = perf_counter() - wall, process_time() - cpu
    if sleeper:
        sleeper.cancel()
        await asyncio.wait([sleeper])
    return sampled / wall, sampled / cpu


async def roll_out_one(sampler: Any, name: int, life: Life) -> int:
    """Run the sessions of a life and return the number of sampled ids."""
    from codots.sampler.base import SamplingParams

    sampled = 0
    for j, turns in enumerate(life):
        async with sampler.session(("life", name, j)) as session:
            for ids, count in turns:
                sampled += len((await session.sample(ids, SamplingParams(count))).ids)
    return sampled


async def sleep(sampler: Any, nap: float) -> None:
    """Keep a session open whose environment sleeps between its turns."""
    from codots.sampler.base import SamplingParams

    async with sampler.session(("sleeper",)) as session:
        while True:
            await session.sample([1, 2, 3, 4], SamplingParams(4))
            await asyncio.sleep(nap)


def table(found: Rates) -> str:
    """Format the rounds and the median ratios."""
    columns: dict[str, list[float]] = {}
    for clock, rates in found.items():
        for ratio, a, b in (("sleeper / none", MODES[1], MODES[0]), ("continuous / lockstep", MODES[0], MODES[2])):
            columns[f"{ratio}, {clock}"] = [x / y for x, y in zip(rates[a], rates[b], strict=True)]
    rounds = zip(*found["wall"].values(), *columns.values(), strict=True)
    lines = ["| " + " | ".join([*MODES, *columns]) + " |", "|---" * (len(MODES) + len(columns)) + "|"]
    lines += [
        "| " + " | ".join([f"{n:,.0f}" for n in row[:3]] + [f"{n:.3f}" for n in row[3:]]) + " |" for row in rounds
    ]
    lines += [
        "",
        f"tokens per second of wall time, and ratios; their medians, the first with a target of {TARGET:g} or more:",
    ]
    return "\n".join([*lines, *(f"{name}: {median(values):.3f}" for name, values in columns.items())])


if __name__ == "__main__":
    main()
