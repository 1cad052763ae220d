"""The tables of docs/results/loop.md from what loop.sh left: `python benchmarks/loop_table.py [FOLDER]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)


def read(path: Path) -> dict[str, Any] | None:
    """Read a report, None if it was not made."""
    return json.loads(path.read_text()) if path.is_file() else None


def curve(values: list[float] | None) -> str:
    """Numbers by position."""
    return " ".join(f"{value:.3f}" for value in values or [])


def interval(report: dict[str, Any], name: str, j: int = -1) -> str:
    """A difference at a position, with its interval."""
    if report[name] is None:
        return ""
    low, high = report[f"{name}_ci95"][j]
    return f"{report[name][j]:+.3f} [{low:+.3f}, {high:+.3f}]"


def own_at_end(report: dict[str, Any]) -> str:
    """Own reward at the last position, with its interval."""
    low, high = report["arms"]["own"]["ci95"][-1]
    return f"{report['arms']['own']['reward'][-1]:.3f} [{low:.3f}, {high:.3f}]"


def row(*cells: object) -> None:
    """Print a row."""
    print("| " + " | ".join(map(str, cells)) + " |")


def head(*cells: str) -> None:
    """Print the head of a table."""
    print()
    row(*cells)
    row(*("---" for _ in cells))


def arms(title: str, report: dict[str, Any] | None) -> None:
    """Every arm of one report."""
    if report is None:
        return
    for arm, found in report["arms"].items():
        facts = f"{curve(found['right'])} / {curve(found['wrong'])}" if found["right"] else ""
        row(title, arm, curve(found["reward"]), curve(found["success"]), facts)


def measured(title: str, report: dict[str, Any] | None, seconds: str = "") -> None:
    """What a report says of the last position."""
    if report is None:
        return
    shuffled = interval(report, "shuffled_lift")
    own = report["arms"]["own"]["reward"]
    row(title, curve(own), own_at_end(report), interval(report, "lift"), interval(report, "share"), shuffled, seconds)


def matrix(out: Path, seed: int) -> None:
    """Writer x reader at the last position."""
    names = {"base": "base", "base-reads": f"lake-{seed}-base-reads", "reads-base": f"lake-{seed}-reads-base"}
    base, reads, by_base = (read(out / f"{name}.json") for name in names.values())
    own = read(out / f"lake-{seed}.json")
    if base and reads and by_base and own:
        found = own["arms"]["own"]
        right, wrong = found["right"][-1], found["wrong"][-1]
        truth = f"{right / (right + wrong):.3f}"
        row(seed, own_at_end(base), own_at_end(reads), own_at_end(by_base), own_at_end(own), truth)


def main() -> None:
    """Print every table."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/loop")

    def clock(name: str) -> str:
        path = out / "clock.txt"
        return dict(line.split() for line in path.read_text().splitlines()).get(name, "") if path.is_file() else ""

    columns = ("own by position", "own at the end", "lift at the end", "share at the end", "shuffled - null", "seconds")
    head("demo, seed", *columns)
    for seed in SEEDS:
        summary = read(out / f"demo-{seed}" / "summary.json")
        spent = f"{sum(summary['seconds'].values()):.0f}" if summary else ""
        measured(f"{seed}, test", summary and summary["after"], spent)
    head("lake, seed", *columns)
    for seed in SEEDS:
        measured(str(seed), read(out / f"lake-{seed}.json"), clock(f"lake-{seed}"))
    head("lake on hard, seed", *columns)
    for seed in SEEDS:
        measured(str(seed), read(out / f"lake-{seed}-hard.json"))
    head("v0, seed", *columns)
    measured("base", read(out / "base-v0.json"))
    for seed in SEEDS:
        measured(str(seed), read(out / f"v0-{seed}.json"), clock(f"v0-{seed}"))
    head(
        "seed",
        "base / base",
        "trained writer, base reader",
        "base writer, trained reader",
        "trained / trained",
        "claims right",
    )
    for seed in SEEDS:
        matrix(out, seed)
    head("model", "arm", "reward by position", "success", "right / wrong facts")
    for name in ("base", "base-greedy", *(f"lake-{seed}" for seed in SEEDS)):
        arms(name, read(out / f"{name}.json"))
    head("control on dev", *columns)
    for path in sorted(out.glob("*-dev.json")):
        measured(path.stem.removesuffix("-dev"), read(path))
    head("control on test", *columns)
    for recipe in ("coarse", "task-by-task"):
        for path in sorted(out.glob(f"{recipe}-*e-*.json")):
            if not path.stem.endswith("-dev"):
                measured(path.stem, read(path))


if __name__ == "__main__":
    main()
