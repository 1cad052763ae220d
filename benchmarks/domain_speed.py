"""Steps a second of process time of random play, all observations rendered: `python benchmarks/domain_speed.py ID`."""

from __future__ import annotations

import argparse
import time

from codots.domains.base import Pack
from codots.domains.registry import get_domain, make_pack
from codots.domains.scripted import play_pack


def main() -> None:
    """Print the best and the median of some timings, the acting of the policy included and left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("id", help="versioned id of a domain")
    parser.add_argument("--preset", help="the first one if left out")
    parser.add_argument("--style", help="compact where the domain has it")
    parser.add_argument("--packs", type=int, default=50)
    parser.add_argument("--times", type=int, default=7)
    asked = parser.parse_args()
    domain = get_domain(asked.id)
    preset = asked.preset or next(iter(domain.presets))
    style = asked.style or ("compact" if "compact" in domain.styles else domain.styles[0])
    packs = [make_pack(asked.id, preset, "dev", i, 4) for i in range(asked.packs)]
    timed = sorted(timing(packs, style) for _ in range(asked.times))
    replayed = sorted(replay(packs, style) for _ in range(asked.times))
    print(f"{asked.id} {preset} {style}: {asked.packs} packs of 4, {asked.times} timings")
    for what, rates in (("with the random policy's own time", timed), ("of the environment alone", replayed)):
        print(f"  steps a second {what}: best {rates[-1]:,.0f}, median {rates[len(rates) // 2]:,.0f}")


def timing(packs: list[Pack], style: str) -> float:
    """Play every task once, policy and environment."""
    steps, start = 0, time.process_time()
    for pack in packs:
        steps += sum(map(len, lives(pack, style)))
    return steps / (time.process_time() - start)


def replay(packs: list[Pack], style: str) -> float:
    """Play the same texts again, which costs the policy nothing."""
    written = [(pack, lives(pack, style)) for pack in packs]
    steps, start = 0, time.process_time()
    for pack, texts in written:
        memory = pack.domain.make_memory(pack.world)
        for task, line in zip(pack.tasks, texts, strict=True):
            env = task.env(style=style, memory=memory)
            env.observe()
            for text in line:
                env.step(text)
            steps += len(line)
    return steps / (time.process_time() - start)


def lives(pack: Pack, style: str) -> list[list[str]]:
    """Live one life at random and give the texts of each task."""
    return [[text for text, _ in played.turns] for played in play_pack(pack, "random", style)]


if __name__ == "__main__":
    main()
