"""Time steps of an environment in the event loop, in a thread and in a process: `python benchmarks/environments.py`.

The domain needs almost no time itself, so that the rest is what the thread or the process costs. The script also prints
how long processes take to start, and how much memory they do not share.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codots.domains.base import Pack
from codots.domains.registry import get_domain, make_pack
from codots.domains.scripted import play_pack
from codots.rollout.environments import Environments, EnvProcesses

Texts = list[list[str]]
"""Replies of one life, by task."""


def main() -> None:
    """Print the time of a step in each place, the time of a start, and the memory of a process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--domain", default="frozen-lake-v1")
    parser.add_argument("--lives", type=int, default=64, help="lives at the same time")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    preset = next(iter(get_domain(args.domain).presets))
    packs = [make_pack(args.domain, preset, "dev", i, 4) for i in range(args.lives)]
    asyncio.run(measure(packs, args.rounds))


async def measure(packs: Sequence[Pack], rounds: int) -> None:
    """Play the same texts in each place, as one life alone and as all lives together."""
    domain, style, processes = packs[0].domain, packs[0].domain.styles[0], EnvProcesses()
    lives = [
        (pack, [[text for text, _ in played.turns] for played in play_pack(pack, "random", style)]) for pack in packs
    ]
    await start(packs, processes)
    for place, blocking, used in (("loop", False, None), ("thread", True, None), ("process", True, processes)):
        domain.blocking = blocking
        for crowd in (lives[:1] * 10, lives):
            steps, seconds = sum(len(texts) for _, life in crowd for texts in life), []
            for _ in range(rounds):
                begin = time.perf_counter()
                if crowd is lives:
                    await asyncio.gather(*(play(pack, life, used) for pack, life in crowd))
                else:
                    for pack, life in crowd:
                        await play(pack, life, used)
                seconds.append(time.perf_counter() - begin)
            together = f"{len(lives)} lives together" if crowd is lives else "one life alone"
            best, median = (1e6 * value / steps for value in (min(seconds), float(np.median(seconds))))
            print(f"{place}, {together}: best {best:.0f} us a step, median {median:.0f}")
    report_memory(processes)
    processes.close()


async def start(packs: Sequence[Pack], processes: EnvProcesses) -> None:
    """Start a process for each life, and print how long it takes."""
    for some in (packs[:1], packs[1:]):
        begin = time.perf_counter()
        found = await asyncio.gather(*(processes.begin(pack, False) for pack in some))
        print(f"{len(some)} processes with the domain after {time.perf_counter() - begin:.3f} s")
    for process in found:
        assert process is not None
        processes.give_back(process)


async def play(pack: Pack, life: Texts, processes: EnvProcesses | None) -> None:
    """Play the replies of one life."""
    async with Environments(pack, pack.domain.styles[0], processes) as env:
        for number, texts in enumerate(life):
            await env.open(number)
            for text in texts:
                await env.step(text)


def report_memory(processes: EnvProcesses) -> None:
    """Print the memory that the fork server, and the median of its processes, share with no other process."""
    assert processes._server is not None
    server = processes._server.pid
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    median = float(np.median([private(child) for child in children]))
    print(f"private memory: {median:.1f} MiB a process, {private(server):.1f} MiB the fork server")


def private(pid: int | str) -> float:
    """Return the memory in MiB that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


if __name__ == "__main__":
    main()
