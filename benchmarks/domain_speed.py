"""Time a domain under the random policy, all observations rendered: `python benchmarks/domain_speed.py ID`."""

from __future__ import annotations

import argparse
import time

from codots.domains.base import Pack
from codots.domains.registry import get_domain, make_pack
from codots.domains.scripted import play_pack


def main() -> None:
    """Print the best and the median steps per second of process time, with and without the policy's own time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("id", help="versioned id of a domain")
    parser.add_argument("--preset", help="default: the first one")
    parser.add_argument("--style", help="default: compact if the domain has it")
    parser.add_argument("--packs", type=int, default=50)
    parser.add_argument("--times", type=int, default=7)
    args = parser.parse_args()
    domain = get_domain(args.id)
    preset = args.preset or next(iter(domain.presets))
    style = args.style or ("compact" if "compact" in domain.styles else domain.styles[0])
    packs = [make_pack(args.id, preset, "dev", i, 4) for i in range(args.packs)]
    timed = sorted(timing(packs, style) for _ in range(args.times))
    replayed = sorted(replay(packs, style) for _ in range(args.times))
    print(f"{args.id} {preset} {style}: {args.packs} packs of 4, {args.times} timings")
    for what, rates in (("including the random policy", timed), ("of the environment alone", replayed)):
        print(f"  steps per second {what}: best {rates[-1]:,.0f}, median {rates[len(rates) // 2]:,.0f}")


def timing(packs: list[Pack], style: str) -> float:
    """Play every task once and return the steps per second, policy included."""
    steps, start = 0, time.process_time()
    for pack in packs:
        steps += sum(map(len, random_texts(pack, style)))
    return steps / (time.process_time() - start)


def replay(packs: list[Pack], style: str) -> float:
    """Replay recorded texts and return the steps per second of the environment alone."""
    recorded = [(pack, random_texts(pack, style)) for pack in packs]
    steps, start = 0, time.process_time()
    for pack, texts in recorded:
        memory = pack.domain.make_memory(pack.world)
        for task, line in zip(pack.tasks, texts, strict=True):
            env = task.env(style=style, memory=memory)
            env.observe()
            for text in line:
                env.step(text)
            steps += len(line)
    return steps / (time.process_time() - start)


def random_texts(pack: Pack, style: str) -> list[list[str]]:
    """Roll out one life with the random policy and return the texts of each task."""
    return [[text for text, _ in played.turns] for played in play_pack(pack, "random", style)]


if __name__ == "__main__":
    main()
