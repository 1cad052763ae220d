"""Compare the local sampler with other engines on the same lives, in sampled tokens per second.

    python benchmarks/sampler.py --vllm path/to/python
    python benchmarks/sampler.py --recipe recipes/smollm2-bandit.yaml --lives 16 --times 3 --engines codots,generate

`demo` replays lives of the shipped base on frozen lakes: the ids read and the number of ids sampled in each turn.
`long` has sessions of several turns with answers of 1 to 64 ids. The model is a Qwen3 of 0.5 million random weights.
With `--recipe`, the lives are those of the first step of a recipe, and its model samples in its own precision. Every
engine runs in its own single-threaded process, and the engines take turns, so that a slow minute affects all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from codots.core.rng import Names, stream

Life = list[list[tuple[list[int], int]]]
"""Consecutive sessions, each a list of turns: the ids read, and the number of ids to sample."""
Rates = dict[str, dict[str, list[float]] | None]
ENGINES = ("codots", "generate", "padded loop", "generate_batch", "vllm", "vllm eager")
TARGETS = {
    "generate": {"demo": 5.0, "long": 2.0},
    "padded loop": {"demo": 1.3, "long": 1.3},
    "generate_batch": {"demo": 2.0, "long": 2.0},
    "vllm": {"demo": 2.0, "long": 2.0},
    "vllm eager": {"demo": 2.0, "long": 2.0},
}
"""Target speed of the sampler, as a multiple of each engine's."""


def main() -> None:
    """Print a table, or JSON, of every installed engine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engines", default=",".join(ENGINES), help="comma-separated engines")
    parser.add_argument("--loads", default="demo,long", help="comma-separated loads")
    parser.add_argument("--recipe", type=Path, help="a recipe whose model and lives replace those of --loads")
    parser.add_argument("--times", type=int, default=5, help="timings of each engine; the script prints the median")
    parser.add_argument("--lives", type=int, default=64, help="concurrent lives")
    parser.add_argument("--vllm", metavar="PYTHON", help="a Python interpreter with vLLM")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu is steadier on a shared machine")
    parser.add_argument("--quick", action="store_true", help="few lives, one timing")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.lives, args.times = 4, 1
    with tempfile.TemporaryDirectory() as folder:
        if args.recipe:
            setup, loads = of_recipe(args.recipe, args.lives)
        else:
            save_model(Path(folder) / "model")
            setup = Setup(str(Path(folder) / "model"), "float32")
            loads = {name: LOADS[name](args.lives) for name in args.loads.split(",")}
        lives = Path(folder) / "lives.json"
        lives.write_text(json.dumps(loads))
        running = start(args.engines.split(","), setup, lives, args.vllm, args.clock)
        found = measure(running, args.engines.split(","), list(loads), args.times)
    if args.json:
        print(json.dumps({"loads": {name: counts(lives) for name, lives in loads.items()}, "tokens_per_s": found}))
    else:
        print(table(found, loads, args.clock))


@dataclass(frozen=True)
class Setup:
    """What every engine loads: the folder of the model and the name of its dtype."""

    model: str
    dtype: str


def demo(n: int) -> list[Life]:
    """Roll out the shipped base as in the first step of `recipes/demo.yaml` and record the turns."""
    from codots.config.schema import TrainConfig, WorldConfig

    group = min(8, n)
    config = TrainConfig(worlds=[WorldConfig(packs_per_step=-(-n // group))], group_size=group)
    return recorded(config, "float32", n)


def of_recipe(path: Path, n: int) -> tuple[Setup, dict[str, list[Life]]]:
    """Return what a recipe loads, and the first lives of its first step, named after it."""
    from codots.config.load import load_recipe
    from codots.config.schema import TrainConfig
    from codots.model.load import model_folder
    from codots.training.setup import engine_plan, profile_of

    config = load_recipe(TrainConfig, path, [])
    folder = model_folder(config.model)
    dtype = engine_plan(config, folder, profile_of(config, folder)).place.dtype
    return Setup(str(folder.resolve()), dtype), {path.stem: recorded(config, dtype, n)}


def recorded(config: Any, dtype: str, n: int) -> list[Life]:
    """Roll out the first lives of a config's first step in this process and record the turns."""
    from codots.model.device import Place
    from codots.model.load import load_model, model_folder
    from codots.rollout.life import rollouts
    from codots.sampler.local import LocalSampler
    from codots.training.batch import step_jobs
    from codots.training.setup import entries_of, profile_of

    folder = model_folder(config.model)
    model, render = load_model(folder, Place("cpu", dtype))
    recorder = Recorder(LocalSampler(model, render.stop_ids))
    jobs = step_jobs(entries_of(config, profile_of(config, folder)), config.seed, 1)[:n]
    for life in asyncio.run(rollouts(jobs, recorder, render)):  # type: ignore[arg-type]
        if life.failure:
            raise RuntimeError(life.failure)
    lives: dict[Names, Life] = {}
    for names, session in recorder.sessions:
        lives.setdefault(names[:-2], []).append(session)
    return [lives[job.names] for job in jobs]


class Recorder:
    """A sampler that records the ids that each session reads and the number that it samples."""

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.sessions = sampler, []

    def session(self, names: Names) -> Recording:
        """Open a recorded session."""
        turns: list[tuple[list[int], int]] = []
        self.sessions.append((names, turns))
        return Recording(self.sampler.session(names), turns)


class Recording:
    """One recorded session."""

    def __init__(self, session: Any, turns: list[tuple[list[int], int]]) -> None:
        self.session, self.turns = session, turns

    async def __aenter__(self) -> Recording:
        await self.session.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.session.__aexit__(*error)

    async def sample(self, ids: list[int], params: Any) -> Any:
        """Sample from the session and record the turn."""
        answer = await self.session.sample(ids, params)
        self.turns.append((ids, len(answer.ids)))
        return answer


def long(n: int) -> list[Life]:
    """Draw sessions of 4 turns: openings of 100 to 160 ids, 60 of them shared, then 8 to 40 ids per turn."""
    rng, lives = stream("benchmark", "long"), []
    head = rng.integers(0, 800, 60).tolist()
    for _ in range(n):
        opening = [*head, *rng.integers(0, 800, rng.integers(40, 101)).tolist()]
        news = [opening, *(rng.integers(0, 800, rng.integers(8, 41)).tolist() for _ in range(3))]
        lives.append([[(new, int(rng.integers(1, 65))) for new in news]])
    return lives


LOADS = {"demo": demo, "long": long}


def save_model(folder: Path) -> None:
    """Write a Qwen3 of 2 layers, 128 wide."""
    from codots.model import tiny

    tokenizer = tiny.make_tokenizer()
    tiny.save(tiny.make_model(tokenizer, width=128, layers=2, heads=4, seed=0), tokenizer, folder)


def start(engines: Sequence[str], setup: Setup, lives: Path, vllm: str | None, clock: str) -> dict[str, Engine]:
    """Start a process for every engine whose Python interpreter is known."""
    pythons = {engine: vllm if engine.startswith("vllm") else sys.executable for engine in engines}
    return {engine: Engine(engine, python, setup, lives, clock) for engine, python in pythons.items() if python}


def measure(running: dict[str, Engine], engines: Sequence[str], loads: Sequence[str], times: int) -> Rates:
    """Return sampled tokens per second by engine, load and round; None for an engine that is not running."""
    found: Rates = {engine: {load: [] for load in loads} if engine in running else None for engine in engines}
    try:
        for load in loads:
            for engine in running:
                running[engine].replay(load)  # warm-up
            for _ in range(times):
                for engine in running:
                    found[engine][load].append(running[engine].replay(load))
    finally:
        for engine in running.values():
            engine.close()
    return found


class Engine:
    """One engine in its own process."""

    def __init__(self, name: str, python: str, setup: Setup, lives: Path, clock: str) -> None:
        script = Path(__file__).with_name("sampler_engines.py")
        command = [python, str(script), name, setup.model, setup.dtype, str(lives)]
        self.name, self.clock = name, clock
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )

    def replay(self, load: str) -> float:
        """Replay the lives once and return the sampled tokens per second."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(load + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")
        wall, cpu, sampled = json.loads(line)
        return float(sampled / (cpu if self.clock == "cpu" else wall))

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=60)


def counts(lives: Sequence[Life]) -> dict[str, int]:
    """Count lives, sessions, turns, and ids read and sampled."""
    turns = [turn for life in lives for session in life for turn in session]
    read, sampled = sum(len(ids) for ids, _ in turns), sum(count for _, count in turns)
    sessions = sum(map(len, lives))
    return {"lives": len(lives), "sessions": sessions, "turns": len(turns), "read": read, "sampled": sampled}


def table(found: Rates, loads: dict[str, list[Life]], clock: str) -> str:
    """Format the median tokens per second, and the median speed of the sampler as a multiple of each engine's."""
    lines = [
        f"{name}: {', '.join(f'{n:,} {what}' for what, n in counts(lives).items())}" for name, lives in loads.items()
    ]
    headers = "".join(f" {load}, tokens per second of {clock} time | speedup, and its target |" for load in loads)
    lines += ["", f"| engine |{headers}", "|---" * (1 + 2 * len(loads)) + "|"]
    for engine, rates in found.items():
        cells = [" not run | |"] * len(loads)
        if rates is not None:
            cells = [f" {median(rates[load]):,.0f} | {speedup(engine, found, load)} |" for load in loads]
        lines.append(f"| {engine} |{''.join(cells)}")
    return "\n".join(lines)


def speedup(engine: str, found: Rates, load: str) -> str:
    """Format the speedup of the sampler over an engine, and its target."""
    ours, rates, target = found.get("codots"), found[engine], TARGETS.get(engine, {}).get(load)
    if not (ours and rates and target):
        return ""
    return f"{median(a / b for a, b in zip(ours[load], rates[load], strict=True)):.2f}, {target:g}"


if __name__ == "__main__":
    main()
