"""Kill a run at random moments, fill its disk at others, and compare its end with one that nothing happened to.

    python benchmarks/kills.py --kills 100 --full 100

A disk is filled for good: where mounting is permitted the run is on a small tmpfs that is filled up to its last byte,
elsewhere on Linux the running process is forbidden to make any file longer. The run must end by itself, with an error
code and one line; then there is room again and it is resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CODOTS = str(Path(sys.executable).with_name("codots"))
SETTINGS = ["packs_per_step=4", "group_size=4", "save_every=2", "eval_every=4", "eval_packs=2", "rollout_log_every=1"]
SIZE = "24m"


def main() -> None:
    """Print what happened, and whether weights, metrics and rollouts are the same bit for bit."""
    asked = arguments()
    fates = ["kill"] * asked.kills + ["full"] * asked.full
    moments = random.Random(asked.seed)
    moments.shuffle(fates)
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)) as disk:
        scale = [f"preset={asked.preset}", f"steps={asked.steps}", f"workers={asked.workers}"]
        command = [CODOTS, "train", asked.recipe, *scale, *SETTINGS]
        whole, torn = Path(folder) / "whole", (disk or Path(folder)) / "torn"
        start = time.perf_counter()
        subprocess.run([*command, f"run={whole}"], check=True, capture_output=True)
        length = time.perf_counter() - start
        print(f"undisturbed: {length:.1f} s; a full disk is {'a tmpfs' if disk else 'a limit on files'}", flush=True)
        pace = json.loads(last_line(whole))["time/step"]
        for number, fate in enumerate(fates, start=1):
            print(f"{number} {fate}: {suffer(fate, command, torn, disk, moments, length, pace)}", flush=True)
        finished = subprocess.run(order(command, torn), check=True, capture_output=True, text=True)
        for what in (weights, metrics, rollouts):
            print(f"{what.__name__} equal: {what(whole) == what(torn)}")
        print("its last words:", finished.stdout.strip())


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=5, help="SIGKILLs")
    parser.add_argument("--full", type=int, default=5, help="full disks")
    parser.add_argument("--preset", default="easy", help="of the domain")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments, not of the run")
    parser.add_argument("--recipe", default="recipes/demo.yaml")
    return parser.parse_args()


def suffer(
    fate: str, command: list[str], run: Path, disk: Path | None, moments: random.Random, length: float, pace: float
) -> str:
    """Let a run meet its fate after up to four more steps, or while it starts; one that ends before begins anew."""
    while True:
        process = subprocess.Popen(
            order(command, run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        ahead = moments.randint(0, 4)
        if ended_before(process, run, ahead, moments.uniform(0, 2 * pace if ahead else length)):
            if process.returncode:
                raise SystemExit(f"the run ended by itself with code {process.returncode}")
            shutil.rmtree(run)
            continue
        if told := killed(process, run) if fate == "kill" else starved(process, run, disk):
            return told


def ended_before(process: subprocess.Popen[str], run: Path, ahead: int, more: float) -> bool:
    """Wait until so many lines were added to the metrics, and some seconds more, unless the run ends before."""
    size = len(read(run))
    while ahead:
        if process.poll() is not None:
            return True
        now = len(read(run))
        ahead -= now > size  # a resumed run first drops the lines past its checkpoint
        size = now
        time.sleep(0.002)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=more)
        return True
    return False


def killed(process: subprocess.Popen[str], run: Path) -> str:
    """End the first process on the spot; the others of the run notice by themselves."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return f"after {steps(run)} steps"


def starved(process: subprocess.Popen[str], run: Path, disk: Path | None) -> str | None:
    """Leave no room for another byte, wait until the run has noticed, and make room again; None if it did not."""
    filler = disk / "filler" if disk else None
    if filler:
        fill(filler)
    else:
        import resource

        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    _, said = process.communicate(timeout=600)
    if filler:
        filler.unlink()
    if process.returncode == 0:
        shutil.rmtree(run)
        return None
    lines = [line for line in said.splitlines() if line.startswith("codots: ")]
    if process.returncode < 0 or len(lines) != 1 or "Traceback" in said:
        raise SystemExit(f"code {process.returncode}, and not one line:\n{said}")
    return f"after {steps(run)} steps; {lines[0]}"


def fill(filler: Path) -> None:
    """Take every byte that is left."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a small disk, if this is permitted."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not mounted and not hasattr(os, "sched_getaffinity"):
        raise SystemExit("this system neither mounts a small disk nor limits another process's files")
    try:
        yield disk if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def order(command: list[str], run: Path) -> list[str]:
    """The command that starts the run, or goes on with it."""
    return [*command, f"run={run}", *(["--resume"] if (run / "config.yaml").exists() else [])]


def read(run: Path) -> bytes:
    """The metrics as they are now."""
    path = run / "metrics.jsonl"
    return path.read_bytes() if path.exists() else b""


def last_line(run: Path) -> bytes:
    """The last of the metrics."""
    return read(run).splitlines()[-1]


def steps(run: Path) -> int:
    """Count the steps written down."""
    return read(run).count(b"\n")


def weights(run: Path) -> str:
    """Hash the final weights."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def metrics(run: Path) -> list[dict[str, float]]:
    """Read the metrics without the clock's."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def rollouts(run: Path) -> list[tuple[str, bytes]]:
    """Read what was recorded of the lives."""
    return [(path.name, path.read_bytes()) for path in sorted((run / "rollouts").glob("step-*"))]


if __name__ == "__main__":
    main()
