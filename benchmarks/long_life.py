"""What a task costs in a long life: `python benchmarks/long_life.py [--quick] [--json]`.

Some lives of one step, of 4, 16 and 64 tasks each, in easy worlds of frozen-lake-v1, lived by the shipped base and
learnt from as a training does, in one process. Contexts are capped, so that an episode does not grow with the position.

Seconds are the processor's own, so that other work on the machine matters less.

- A task: seconds of living and learning over all tasks. A life of S tasks rewrites its context S - 1 times, and the
  first task comes without one, so that a task of a longer life has a little more in it: beside it stand its ids.
- A sampled token, and an id that is processed: seconds over the ids that were sampled, and over all ids of episodes.
- The next task: what a life of 16 costs more than one of 4, and one of 64 more than one of 16, for each task more.
- Memory: the peak of the process's resident memory while it lives, and while it learns, after it was reset (on Linux
  alone). What grows in it by right is what the lives leave behind: their ids, logprobs and texts.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

from contest import ROUNDS, Ask, Told, apart, contest, median, options, show
from one_step import credited, demo, engine_of, learn, rolled_out

from codots.config.schema import TrainConfig

SIZES = (4, 16, 64)
COLUMNS = {
    "tasks": "tasks",
    "live_ms_a_task": "live, ms a task",
    "learn_ms_a_task": "learn, ms a task",
    "ms_a_task": "both",
    "sampled_a_task": "sampled a task",
    "ids_a_task": "ids a task",
    "ms_a_sampled": "ms a sampled token",
    "us_an_id": "us an id",
    "live_mb": "peak living, MB",
    "learn_mb": "peak learning, MB",
}
STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Give back what is free, and let the peak of memory begin anew."""
    if REFS.exists():
        ctypes.CDLL(None).malloc_trim(0)
        REFS.write_text("5")


def peak_mb() -> float:
    """The most memory that was resident since, 0 where the system does not tell."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), 0.0)


def life(config: TrainConfig) -> Ask:
    """Prepare lives of one length."""
    engine = engine_of(config)

    def step() -> Told:
        forget_peak()
        start = time.process_time()
        blocks = rolled_out(engine, config)
        live, live_mb = time.process_time() - start, peak_mb()
        forget_peak()
        start = time.process_time()
        learn(engine, config, blocks, credited(config, blocks))
        learnt = time.process_time() - start
        lives = [life for block in blocks for life in block.lives]
        return {
            "live": live,
            "learn": learnt,
            "tasks": sum(len(life.of("solve")) for life in lives),
            "sampled": sum(episode.transcript.tokens for life in lives for episode in life.episodes),
            "ids": sum(len(episode.transcript.ids) for life in lives for episode in life.episodes),
            "live_mb": live_mb,
            "learn_mb": peak_mb(),
        }

    return step


def per(row: Told) -> Told:
    """Costs by what they are for."""
    seconds = row["live"] + row["learn"]
    return {
        "live_ms_a_task": 1e3 * row["live"] / row["tasks"],
        "learn_ms_a_task": 1e3 * row["learn"] / row["tasks"],
        "ms_a_task": 1e3 * seconds / row["tasks"],
        "sampled_a_task": row["sampled"] / row["tasks"],
        "ids_a_task": row["ids"] / row["tasks"],
        "ms_a_sampled": 1e3 * seconds / row["sampled"],
        "us_an_id": 1e6 * seconds / row["ids"],
    }


def next_task(fewer: Told, more: Told) -> float:
    """Milliseconds of each task that one kind of life has more than the other."""
    return 1e3 * sum(more[part] - fewer[part] for part in ("live", "learn")) / (more["tasks"] - fewer["tasks"])


def measure(sizes: tuple[int, ...], packs: int, group: int, rounds: int) -> dict[str, Any]:
    """Live lives of each length in turn."""
    same = (f"packs_per_step={packs}", f"group_size={group}", "workers=1")
    contestants = {f"{size} tasks": apart(life, demo(*same, f"pack_size={size}")) for size in sizes}
    rows = {name: median([row | per(row) for row in told]) for name, told in contest(contestants, rounds).items()}
    short, middle, long = rows.values()
    nexts = next_task(short, middle), next_task(middle, long)
    bars = {
        what: (long[key] / short[key], bar)
        for what, key, bar in (
            ("a task", "ms_a_task", "at most 1.1"),
            ("a sampled token", "ms_a_sampled", "at most 1.1"),
            ("an id", "us_an_id", "at most 1.1"),
            ("peak while living", "live_mb", "at most 1.05"),
            ("peak while learning", "learn_mb", "at most 1.05"),
        )
        if short[key]
    }
    bars["the next task, later over earlier"] = (nexts[1] / nexts[0], "at most 1.1")
    notes = [
        f"The next task costs {nexts[0]:.3g} ms early, {nexts[1]:.3g} ms late. Below: the longest over the shortest."
    ]
    what = f"{packs * group} lives of one step, of so many tasks"
    return {"what": what, "contestants": rows, "notes": notes, "bars": bars}


def main() -> None:
    """Run the contest."""
    asked = options(__doc__).parse_args()
    found = measure((1, 2, 4), 1, 2, 1) if asked.quick else measure(SIZES, 2, 8, ROUNDS)
    show(found, COLUMNS, asked.json)


if __name__ == "__main__":
    main()
