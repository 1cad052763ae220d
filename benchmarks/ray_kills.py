"""Kill the driver, the learner and the samplers of an asynchronous run on Ray at random moments.

    python benchmarks/ray_kills.py --kills 20

A run whose driver or learner died is resumed. A run whose sampler died must go on by itself; it is stopped after its
next step, and resumed as well. At the end every pack must be in the record exactly once and, since the run has one
sampler, weights, metrics and rollouts must equal those of an undisturbed run bit for bit. With `--sampler continuous`
lives run on while weights are loaded, so that results depend on timing and only the record is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

from kills import CODOTS, command_for, compare, ended_before, read, run_undisturbed, start, steps

VICTIMS = ("driver", "learner", "sampler")
PACKS, GROUP = 2, 4
RECIPE = [f"packs_per_step={PACKS}", f"group_size={GROUP}", "save_every=2", "eval_every=4", "eval_packs=2"]
ENGINE = ["engine.kind=ray", "engine.mode=async"]
MARK = "CODOTS_KILLS"
"""Environment variable by which the processes of this script are found."""
SECONDS = 300
"""Timeout of a step, and of the end of a run, in seconds."""


def main() -> None:
    """Print each kill, whether all packs are in the record once, and whether the results are equal."""
    args = arguments()
    rng = random.Random(args.seed)
    victims = [VICTIMS[i % len(VICTIMS)] for i in range(args.kills)]
    rng.shuffle(victims)
    changes = [*RECIPE, *ENGINE, f"engine.max_staleness={args.max_staleness}", f"steps={args.steps}"]
    changes += [f"sampler={args.sampler}"]
    command = [CODOTS, "train", "recipes/demo.yaml", "rollout_log_every=1", *changes]
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, disturbed = Path(folder) / "undisturbed", Path(folder) / "disturbed"
        _, seconds = run_undisturbed(command, undisturbed)
        for number, victim in enumerate(victims, start=1):
            message = disturb(victim, command, disturbed, rng, seconds)
            print(f"{number} {victim}: {message}", flush=True)
        subprocess.run(command_for(command, disturbed), check=True, capture_output=True)
        print(f"every pack in the record once: {packs(disturbed) == expected(args.steps)}")
        if args.sampler == "lockstep":
            compare(undisturbed, disturbed)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=80, help="more than are taken between all kills")
    parser.add_argument("--max-staleness", type=int, default=2)
    parser.add_argument("--sampler", choices=("lockstep", "continuous"), default="lockstep")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments, not of the run")
    return parser.parse_args()


def disturb(victim: str, command: list[str], run: Path, rng: random.Random, step_seconds: float) -> str:
    """Start or resume the run, kill one of its processes after one to three steps, and wait for what must follow."""
    mark = uuid.uuid4().hex
    process = start(command, run, **{MARK: mark})
    if ended_before(process, run, rng.randint(1, 3), rng.uniform(0, step_seconds)):
        why = process.communicate()[1] if process.returncode else "expected more --steps"
        raise SystemExit(f"the run ended by itself with code {process.returncode}: {why}")
    at = steps(run)
    if victim == "driver":
        process.kill()
        process.communicate()
        wait_for_end(mark)
        return f"killed after {at} steps"
    os.kill(actor(victim, mark), signal.SIGKILL)
    if victim == "sampler":
        until, size = time.monotonic() + SECONDS, len(read(run))
        while len(read(run)) <= size and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.terminate()
    _, stderr = process.communicate(timeout=SECONDS)
    lines = [line for line in stderr.splitlines() if f"{victim} 0 died" in line]
    if process.returncode != (1 if victim == "learner" else 128 + signal.SIGTERM) or not lines or "Traceback" in stderr:
        raise SystemExit(f"exit code {process.returncode} after the {victim} was killed:\n{stderr}")
    wait_for_end(mark)
    return f"killed after {at} steps, ended with code {process.returncode} after {steps(run)}"


def actor(role: str, mark: str) -> int:
    """Return the process of an actor of a run, which Ray names after its class."""
    for process in marked(mark):
        with suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(f"ray::{role.title()}".encode()):
                return process
    raise SystemExit(f"the run has no {role}")


def marked(mark: str) -> list[int]:
    """Return the processes of a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def wait_for_end(mark: str) -> None:
    """Wait until all processes of a run have ended."""
    until = time.monotonic() + SECONDS
    while left := marked(mark):
        if time.monotonic() > until:
            raise SystemExit(f"processes stayed behind: {left}")
        time.sleep(0.1)


def packs(run: Path) -> Counter[tuple[int, int, int]]:
    """Count the lives in the record, by step, index of the pack, and index of the life."""
    rows = (json.loads(line) for file in (run / "rollouts").glob("step-*.jsonl") for line in file.open())
    return Counter(
        (row["step"], row["pack"][-1], row["life"]) for row in rows if (row["kind"], row["position"]) == ("solve", 0)
    )


def expected(last: int) -> Counter[tuple[int, int, int]]:
    """Return the lives of a whole run, each once."""
    indices = [(step, PACKS * (step - 1) + i) for step in range(1, last + 1) for i in range(PACKS)]
    return Counter((*index, life) for index in indices for life in range(GROUP))


if __name__ == "__main__":
    main()
