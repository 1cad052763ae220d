"""Print the tables of docs/results/loop.md from the reports of loop.sh: `python benchmarks/loop_table.py [FOLDER]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)


def read(path: Path) -> dict[str, Any] | None:
    """Read a report, or return None if it does not exist."""
    return json.loads(path.read_text()) if path.is_file() else None


def curve(values: list[float] | None) -> str:
    """Format numbers by position."""
    return " ".join(f"{value:.3f}" for value in values or [])


def interval(report: dict[str, Any], name: str, j: int = -1) -> str:
    """Format a difference at a position, with its interval."""
    if report[name] is None:
        return ""
    low, high = report[f"{name}_ci95"][j]
    return f"{report[name][j]:+.3f} [{low:+.3f}, {high:+.3f}]"


def own_at_end(report: dict[str, Any]) -> str:
    """Format the own reward at the last position, with its interval."""
    low, high = report["arms"]["own"]["ci95"][-1]
    return f"{report['arms']['own']['reward'][-1]:.3f} [{low:.3f}, {high:.3f}]"


def row(*cells: object) -> None:
    """Print a row."""
    print("| " + " | ".join(map(str, cells)) + " |")


def header(*cells: str) -> None:
    """Print the header of a table."""
    print()
    row(*cells)
    row(*("---" for _ in cells))


def arms(title: str, report: dict[str, Any] | None) -> None:
    """Print a row for every arm of a report."""
    if report is None:
        return
    for arm, figures in report["arms"].items():
        facts = f"{curve(figures['right'])} / {curve(figures['wrong'])}" if figures["right"] else ""
        row(title, arm, curve(figures["reward"]), curve(figures["success"]), facts)


def measured(title: str, report: dict[str, Any] | None, seconds: str = "") -> None:
    """Print a row with the figures of the last position."""
    if report is None:
        return
    shuffled = interval(report, "shuffled_lift")
    own = report["arms"]["own"]["reward"]
    row(title, curve(own), own_at_end(report), interval(report, "lift"), interval(report, "share"), shuffled, seconds)


def matrix(out: Path, seed: int) -> None:
    """Print a row with the reward of every writer and reader at the last position."""
    names = {"base": "base", "base-reads": f"lake-{seed}-base-reads", "reads-base": f"lake-{seed}-reads-base"}
    base, base_reads, base_writes = (read(out / f"{name}.json") for name in names.values())
    own = read(out / f"lake-{seed}.json")
    if base and base_reads and base_writes and own:
        figures = own["arms"]["own"]
        right, wrong = figures["right"][-1], figures["wrong"][-1]
        share_right = f"{right / (right + wrong):.3f}"
        row(seed, own_at_end(base), own_at_end(base_reads), own_at_end(base_writes), own_at_end(own), share_right)


def main() -> None:
    """Print every table."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/loop")

    def seconds(name: str) -> str:
        path = out / "clock.txt"
        return dict(line.split() for line in path.read_text().splitlines()).get(name, "") if path.is_file() else ""

    columns = ("own by position", "own at the end", "lift at the end", "share at the end", "shuffled - null", "seconds")
    header("demo, seed", *columns)
    for seed in SEEDS:
        summary = read(out / f"demo-{seed}" / "summary.json")
        spent = f"{sum(summary['seconds'].values()):.0f}" if summary else ""
        measured(f"{seed}, test", summary and summary["after"], spent)
    header("lake, seed", *columns)
    for seed in SEEDS:
        measured(str(seed), read(out / f"lake-{seed}.json"), seconds(f"lake-{seed}"))
    header("lake on hard, seed", *columns)
    for seed in SEEDS:
        measured(str(seed), read(out / f"lake-{seed}-hard.json"))
    header("v0, seed", *columns)
    measured("base", read(out / "base-v0.json"))
    for seed in SEEDS:
        measured(str(seed), read(out / f"v0-{seed}.json"), seconds(f"v0-{seed}"))
    header(
        "seed",
        "base / base",
        "trained writer, base reader",
        "base writer, trained reader",
        "trained / trained",
        "claims right",
    )
    for seed in SEEDS:
        matrix(out, seed)
    header("model", "arm", "reward by position", "success", "right / wrong facts")
    for name in ("base", "base-greedy", *(f"lake-{seed}" for seed in SEEDS)):
        arms(name, read(out / f"{name}.json"))
    header("control on dev", *columns)
    for path in sorted(out.glob("*-dev.json")):
        measured(path.stem.removesuffix("-dev"), read(path))
    header("control on test", *columns)
    for recipe in ("coarse", "task-by-task"):
        for path in sorted(out.glob(f"{recipe}-*e-*.json")):
            if not path.stem.endswith("-dev"):
                measured(path.stem, read(path))


if __name__ == "__main__":
    main()
