"""Kill a run and fill its disk at random moments, and compare the result with an undisturbed run.

    python benchmarks/kills.py --kills 100 --full 100
    python benchmarks/kills.py --kills 20 --full 0 --recipe recipes/tiny-base.yaml    # imitation, --steps in each stage

Where mounting is permitted, the run is on a small tmpfs, which the script fills to the last byte. Elsewhere on Linux it
sets the file size limit of the running process to 0. The run must end by itself, with an error code and a one-line
message; then the script makes room again and resumes it.
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
SAVING = ["save_every=2", "eval_every=4", "eval_packs=2", "rollout_log_every=1"]
SIZE = "24m"


def main() -> None:
    """Print each fault, and whether weights, metrics and rollouts are equal bit for bit."""
    args = arguments()
    faults = ["kill"] * args.kills + ["full"] * args.full
    rng = random.Random(args.seed)
    rng.shuffle(faults)
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)) as disk:
        command = [CODOTS, *what_to_run(args), f"workers={args.workers}", *SAVING]
        undisturbed, disturbed = Path(folder) / "undisturbed", (disk or Path(folder)) / "disturbed"
        print(f"a full disk is {'a tmpfs' if disk else 'a file size limit'}")
        run_seconds, step_seconds = run_undisturbed(command, undisturbed)
        for number, fault in enumerate(faults, start=1):
            message = disturb(fault, command, disturbed, disk, rng, run_seconds, step_seconds)
            print(f"{number} {fault}: {message}", flush=True)
        finished = subprocess.run(command_for(command, disturbed), check=True, capture_output=True, text=True)
        compare(undisturbed, disturbed)
        print("final output:", finished.stdout.strip())


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=5, help="number of SIGKILLs")
    parser.add_argument("--full", type=int, default=5, help="number of full disks")
    parser.add_argument("--preset", default="easy", help="preset of the domain")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments, not of the run")
    parser.add_argument("--recipe", default="recipes/demo.yaml")
    return parser.parse_args()


def what_to_run(args: argparse.Namespace) -> list[str]:
    """Return the command and the changes that make its recipe small."""
    recipe = Path(args.recipe).read_text()
    if "teacher:" in recipe:
        return ["imitate", args.recipe, *(f"stages.{i}.steps={args.steps}" for i in range(recipe.count("- steps:")))]
    small = [f"preset={args.preset}", f"steps={args.steps}", "packs_per_step=4", "group_size=4"]
    return ["train", args.recipe, *small]


def run_undisturbed(command: list[str], run: Path) -> tuple[float, float]:
    """Run a command that is not killed; print and return its seconds, and return those of its last step."""
    start = time.perf_counter()
    subprocess.run([*command, f"run={run}"], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    print(f"undisturbed: {seconds:.1f} s", flush=True)
    return seconds, json.loads(last_line(run))["time/step"]


def compare(undisturbed: Path, disturbed: Path) -> None:
    """Print whether weights, metrics and rollouts of two runs are equal."""
    for read_part in (weights, metrics, rollouts):
        print(f"{read_part.__name__} equal: {read_part(undisturbed) == read_part(disturbed)}")


def disturb(
    fault: str,
    command: list[str],
    run: Path,
    disk: Path | None,
    rng: random.Random,
    run_seconds: float,
    step_seconds: float,
) -> str:
    """Kill a run or fill its disk during its start or after up to four more steps; restart a run that ends earlier."""
    while True:
        process = start(command, run)
        ahead = rng.randint(0, 4)
        if ended_before(process, run, ahead, rng.uniform(0, 2 * step_seconds if ahead else run_seconds)):
            if process.returncode:
                raise SystemExit(f"the run ended by itself with code {process.returncode}")
            shutil.rmtree(run)
            continue
        if message := kill(process, run) if fault == "kill" else fill_disk(process, run, disk):
            return message


def start(command: list[str], run: Path, **variables: str) -> subprocess.Popen[str]:
    """Start or resume a run, with these environment variables in addition to those of this process."""
    return subprocess.Popen(
        command_for(command, run),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | variables,
    )


def ended_before(process: subprocess.Popen[str], run: Path, ahead: int, more: float) -> bool:
    """Wait for `ahead` new lines of metrics and `more` seconds; return whether the run ended before that."""
    size = len(read(run))
    while ahead:
        if process.poll() is not None:
            return True
        now = len(read(run))
        ahead -= now > size  # a resumed run first drops the lines after its checkpoint
        size = now
        time.sleep(0.002)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=more)
        return True
    return False


def kill(process: subprocess.Popen[str], run: Path) -> str:
    """Send SIGKILL to the main process; the other processes of the run notice by themselves."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return f"after {steps(run)} steps"


def fill_disk(process: subprocess.Popen[str], run: Path, disk: Path | None) -> str | None:
    """Fill the disk, wait for the run to fail, and make room again; return None if the run ended without failing."""
    filler = disk / "filler" if disk else None
    if filler:
        fill_with(filler)
    else:
        import resource

        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    _, stderr = process.communicate(timeout=600)
    if filler:
        filler.unlink()
    if process.returncode == 0:
        shutil.rmtree(run)
        return None
    lines = [line for line in stderr.splitlines() if line.startswith("codots: ")]
    if process.returncode < 0 or len(lines) != 1 or "Traceback" in stderr:
        raise SystemExit(f"exit code {process.returncode}, expected an error code and one line:\n{stderr}")
    return f"after {steps(run)} steps; {lines[0]}"


def fill_with(filler: Path) -> None:
    """Write a file until no space remains."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a small disk and yield it, or yield None where mounting is not permitted."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not mounted and not hasattr(os, "sched_getaffinity"):
        raise SystemExit("this system can neither mount a small disk nor limit the file size of another process")
    try:
        yield disk if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def command_for(command: list[str], run: Path) -> list[str]:
    """Return the command that starts the run, or resumes it if it exists."""
    return [*command, f"run={run}", *(["--resume"] if (run / "config.yaml").exists() else [])]


def read(run: Path) -> bytes:
    """Read the current metrics file, empty if there is none."""
    path = run / "metrics.jsonl"
    return path.read_bytes() if path.exists() else b""


def last_line(run: Path) -> bytes:
    """Return the last line of the metrics."""
    return read(run).splitlines()[-1]


def steps(run: Path) -> int:
    """Count the recorded steps."""
    return read(run).count(b"\n")


def weights(run: Path) -> str:
    """Hash the final weights."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def metrics(run: Path) -> list[dict[str, float]]:
    """Read the metrics except for times and the number of replaced samplers on Ray."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(("time/", "ray/"))} for row in rows]


def rollouts(run: Path) -> list[tuple[str, bytes]]:
    """Read the recorded rollouts."""
    return [(path.name, path.read_bytes()) for path in sorted((run / "rollouts").glob("step-*"))]


if __name__ == "__main__":
    main()
