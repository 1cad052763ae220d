"""Kill a run at random moments, compare its end with one that never was: `python benchmarks/kills.py [KILLS]`."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CODOTS = str(Path(sys.executable).with_name("codots"))
RECIPE = [CODOTS, "train", "recipes/demo.yaml", "steps=12", "packs=4", "group=4", "save_every=2", "look_every=0"]


def main() -> None:
    """Print whether weights and metrics are the same, bit for bit."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        whole, torn = Path(folder) / "whole", Path(folder) / "torn"
        start = time.perf_counter()
        subprocess.run([*RECIPE, f"run={whole}"], check=True, capture_output=True)
        length = time.perf_counter() - start
        moments, done = random.Random(0), 0
        while done < kills:
            process = start_run(torn)
            try:
                process.wait(timeout=moments.uniform(0.3, 1.0) * length)
                shutil.rmtree(torn)  # it came to its end before the kill: once more from the start
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                print(f"kill {done} after {steps(torn)} steps")
        start_run(torn).wait()
        print("weights equal:", weights(whole) == weights(torn))
        print("metrics equal:", metrics(whole) == metrics(torn))


def start_run(run: Path) -> subprocess.Popen[bytes]:
    """Start the run, or go on with it."""
    resume = ["--resume"] if (run / "config.yaml").exists() else []
    return subprocess.Popen([*RECIPE, f"run={run}", *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def steps(run: Path) -> int:
    """Count the steps written down."""
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def weights(run: Path) -> str:
    """Hash the final weights."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def metrics(run: Path) -> list[dict[str, float]]:
    """Read the metrics without the clock's."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("clock/")} for row in rows]


if __name__ == "__main__":
    main()
