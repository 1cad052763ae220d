"""Measure what a task costs in lives of different lengths: `python benchmarks/long_life.py [--quick] [--json]`.

One training step with lives of 4, 16 and 64 tasks in easy worlds of frozen-lake-v1: the shipped base rolls them out and
learns from them, in one process. Contexts are capped, so that an episode does not grow with the position.

Seconds are process time, so that other work on the machine matters less.

- A task: seconds of rollout and learning per task. A life of S tasks rewrites its context S - 1 times, and its first
  task has no context. So a task of a longer life has slightly more ids; the table shows them next to it.
- A sampled token, and a processed id: seconds per sampled id, and per id of all episodes.
- The next task: the extra cost of a life of 16 tasks over one of 4, and of 64 over 16, per additional task.
- Memory: peak resident memory of the process during rollout and during learning, reset before each (Linux only). The
  ids, logprobs and texts of the lives are expected to grow with the number of tasks.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

from contest import ROUNDS, Figures, RunOnce, contest, in_process, median, options, show
from one_step import credited, demo, engine_of, learn, rolled_out

from codots.config.schema import TrainConfig

SIZES = (4, 16, 64)
COLUMNS = {
    "tasks": "tasks",
    "live_ms_a_task": "rollout, ms per task",
    "learn_ms_a_task": "learn, ms per task",
    "ms_a_task": "both",
    "sampled_a_task": "sampled per task",
    "ids_a_task": "ids per task",
    "ms_a_sampled": "ms per sampled token",
    "us_an_id": "us per id",
    "live_mb": "peak in rollout, MB",
    "learn_mb": "peak in learning, MB",
}
STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Return free memory to the system and reset the peak."""
    if REFS.exists():
        ctypes.CDLL(None).malloc_trim(0)
        REFS.write_text("5")


def peak_mb() -> float:
    """Return the peak resident memory since the last reset, 0 where the system does not report it."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")), 0.0)


def prepare(config: TrainConfig) -> RunOnce:
    """Prepare a step with lives of one length."""
    engine = engine_of(config)

    def step() -> Figures:
        reset_peak()
        start = time.process_time()
        blocks = rolled_out(engine, config)
        rollout, rollout_mb = time.process_time() - start, peak_mb()
        reset_peak()
        start = time.process_time()
        learn(engine, config, blocks, credited(config, blocks))
        learning = time.process_time() - start
        lives = [life for block in blocks for life in block.lives]
        return {
            "live": rollout,
            "learn": learning,
            "tasks": sum(len(life.of("solve")) for life in lives),
            "sampled": sum(episode.transcript.tokens for life in lives for episode in life.episodes),
            "ids": sum(len(episode.transcript.ids) for life in lives for episode in life.episodes),
            "live_mb": rollout_mb,
            "learn_mb": peak_mb(),
        }

    return step


def unit_costs(row: Figures) -> Figures:
    """Return the cost per task, per sampled token and per id."""
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


def next_task(fewer: Figures, more: Figures) -> float:
    """Return the milliseconds per additional task of the longer lives."""
    return 1e3 * sum(more[part] - fewer[part] for part in ("live", "learn")) / (more["tasks"] - fewer["tasks"])


def measure(sizes: tuple[int, ...], packs: int, group: int, rounds: int) -> dict[str, Any]:
    """Run steps with lives of each length in turns."""
    same = (f"packs_per_step={packs}", f"group_size={group}", "workers=1")
    contestants = {f"{size} tasks": in_process(prepare, demo(*same, f"pack_size={size}")) for size in sizes}
    found = contest(contestants, rounds)
    rows = {name: median([row | unit_costs(row) for row in figures]) for name, figures in found.items()}
    short, middle, long = rows.values()
    nexts = next_task(short, middle), next_task(middle, long)
    bars = {
        what: (long[key] / short[key], target)
        for what, key, target in (
            ("per task", "ms_a_task", "at most 1.1"),
            ("per sampled token", "ms_a_sampled", "at most 1.1"),
            ("per id", "us_an_id", "at most 1.1"),
            ("peak in rollout", "live_mb", "at most 1.05"),
            ("peak in learning", "learn_mb", "at most 1.05"),
        )
        if short[key]
    }
    bars["the next task, late over early"] = (nexts[1] / nexts[0], "at most 1.1")
    notes = [
        f"The next task costs {nexts[0]:.3g} ms early, {nexts[1]:.3g} ms late. Below: longest over shortest lives."
    ]
    what = f"One step of {packs * group} lives, by tasks per life"
    return {"what": what, "contestants": rows, "notes": notes, "bars": bars}


def main() -> None:
    """Run the contest."""
    args = options(__doc__).parse_args()
    found = measure((1, 2, 4), 1, 2, 1) if args.quick else measure(SIZES, 2, 8, ROUNDS)
    show(found, COLUMNS, args.json)


if __name__ == "__main__":
    main()
