"""Compare the forecast of `codots estimate` with a run of the recipe on one worker: peak memory and seconds per step.

python benchmarks/estimate.py recipes/demo.yaml recipes/lake-v0.yaml steps=5
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

CODOTS = str(Path(sys.executable).with_name("codots"))
QUIET = ("workers=1", "eval_every=0", "loggers=[]")


def estimated(recipe: str, changes: list[str]) -> tuple[float, float]:
    """Return the forecast of `codots estimate`: bytes, and seconds per step."""
    done = subprocess.run([CODOTS, "estimate", recipe, *changes, "--json"], capture_output=True, text=True, check=True)
    forecast = json.loads(done.stdout)
    return sum(forecast["parts"].values()), sum(forecast["seconds"].values())


def measured(recipe: str, changes: list[str]) -> tuple[float, float]:
    """Run the recipe and return its peak bytes and the median seconds per step, without the first step."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        started = subprocess.Popen([CODOTS, "train", recipe, *changes, f"run={run}"], stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
        if started.returncode:
            raise SystemExit(f"the run of {recipe} failed")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    unit = 1 if sys.platform == "darwin" else 1024
    return float(usage.ru_maxrss * unit), median(line["time/step"] for line in lines[1:])


def compare(recipe: str, changes: list[str]) -> dict[str, Any]:
    """Return forecast, measurement and their ratios."""
    (size, seconds), (peak, spent) = estimated(recipe, changes), measured(recipe, changes)
    figures = {"planned_gib": size / 2**30, "taken_gib": peak / 2**30, "planned_s": seconds, "taken_s": spent}
    return {"recipe": recipe, **figures, "memory": size / peak, "time": seconds / spent}


def main() -> None:
    """Compare every named recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", help="recipes, and key=value changes for all of them")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    recipes = [word for word in args.words if "=" not in word]
    changes = [*QUIET, *(word for word in args.words if "=" in word)]
    rows = [compare(recipe, changes) for recipe in recipes]
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("recipe", "estimated", "measured", "ratio", "estimated", "measured", "ratio")
    for row in rows:
        memory = f"{row['planned_gib']:.2f} GiB", f"{row['taken_gib']:.2f} GiB", f"{row['memory']:.2f}"
        table.add_row(
            row["recipe"], *memory, f"{row['planned_s']:.2f} s", f"{row['taken_s']:.2f} s", f"{row['time']:.2f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
