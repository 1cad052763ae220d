"""Compare a training step of the demo, or of another recipe, with one of TRL's GRPOTrainer.

    python benchmarks/trl.py --trl PYTHON [--cores 1] [--recipe recipes/smollm2-bandit.yaml --set packs_per_step=4
                                --micro 14 --rounds 1 --apart]

PYTHON is an interpreter of another environment, made with `pip install trl==1.16.0 torch==2.13.0`; without it the
script skips TRL. Our step is the first step of the recipe, by default `recipes/demo.yaml`: rollout, credit, gradient,
optimizer, weight sync. TRL's is one step of `GRPOTrainer` (`contestants/grpo.py`): sampling, gradient, optimizer.

Equal: the model; the precision of forward and backward; the number of episodes and the group size; first prompts,
turns, environment texts and token limits; temperature 1; a whole episode as one masked sequence; AdamW with a clipped
gradient; no reference model; no gradient checkpointing; the number of processes, with one thread each.

In TRL's favor: with a model in half precision, its optimizer is in half precision too; it runs no environment and reads
recorded replies of ours, and it starts all episodes at once, where a life must wait for its own context. In our favor:
a shared prefix is read once, a turn reads only new ids, nothing is padded, and episodes with a credit of 0 are not
trained on (`skipped`). TRL reads the whole episode again in every turn, as its own tool loop does, pads to the longest
prompt and the longest completion of the step, and trains on every episode with its default loss. It samples with plain
`generate` (continuous batching is far slower on CPU) through `rollout_func`, and its processes share a batch through
DDP.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contest import ROUNDS, Figures, RunOnce, contest, in_process, median, options, show
from one_step import DEMO, credited, demo, engine_of, learn, rolled_out

from codots.config.schema import TrainConfig
from codots.core.transcript import Transcript
from codots.model.load import model_folder
from codots.rollout.life import Life

GRPO = Path(__file__).parent / "contestants" / "grpo.py"
MICRO = 112
"""Episodes per forward pass of TRL; for the demo the fastest of 32, 112 and 448."""
COLUMNS = {
    "seconds": "seconds",
    "live": "sampling, s",
    "sampled": "sampled tokens",
    "sampled_per_s": "sampled/s",
    "total": "all tokens",
    "total_per_s": "all/s",
    "skipped": "episodes skipped",
}


def codots_step(config: TrainConfig) -> RunOnce:
    """Prepare our step, with the same packs every time."""
    engine = engine_of(config)

    def step() -> Figures:
        start = time.perf_counter()
        blocks = rolled_out(engine, config)
        rollout = time.perf_counter() - start
        credit = credited(config, blocks)
        learn(engine, config, blocks, credit)
        seconds = time.perf_counter() - start
        transcripts = [episode.transcript for block in blocks for life in block.lives for episode in life.episodes]
        skipped = sum((c.solve_PGS == 0).sum() + (c.update_PGS == 0).sum() for c in credit)
        return {
            "seconds": seconds,
            "live": rollout,
            "sampled": sum(t.tokens for t in transcripts),
            "total": sum(len(t.ids) for t in transcripts),
            "skipped": int(skipped),
        }

    return step


def recorded_episodes(config: TrainConfig, lives: Sequence[Life], limits: dict[str, int]) -> list[dict[str, Any]]:
    """Return what TRL needs of each episode, with the episodes of a group next to each other."""
    groups = [lives[i : i + config.group_size] for i in range(0, len(lives), config.group_size)]
    return [
        {"given": inputs_by_turn(e.transcript), "limit": limits[e.kind], "reward": e.reward}
        for group in groups
        for episodes in zip(*(life.episodes for life in group), strict=True)
        for e in episodes
    ]


def inputs_by_turn(transcript: Transcript) -> list[list[int]]:
    """Return the ids that the policy read in each turn."""
    turns: list[list[int]] = []
    new_turn = True
    for id, sampled in zip(transcript.ids, transcript.mask, strict=True):
        if not sampled and new_turn:
            turns.append([])
        if not sampled:
            turns[-1].append(id)
        new_turn = sampled
    return turns


def write_plan(config: TrainConfig, folder: Path, rounds: int, micro: int) -> tuple[Path, int]:
    """Roll out once and write the input of TRL; return its path and the number of episodes."""
    engine = engine_of(config)
    params, blocks = engine.plan.profile.episode_params(), rolled_out(engine, config)
    dtype = engine.plan.place.dtype
    engine.close()
    episodes = recorded_episodes(
        config,
        [life for block in blocks for life in block.lives],
        {"solve": params.solve.max_tokens, "update": params.update.max_tokens},
    )
    plan = {
        "model": str(model_folder(config.model).resolve()),
        "dtype": dtype,
        "folder": str(folder / "out"),
        "episodes": episodes,
        "group": config.group_size,
        "lr": config.learner.lr,
        "cuts": max(1, len(episodes) // config.workers // micro),
        "steps": 1 + rounds,
    }
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    return path, len(episodes)


@contextmanager
def trl(python: str, plan: Path, processes: int) -> Iterator[RunOnce]:
    """Start TRL in its own processes and yield a function that takes one step."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [python, *(launcher if processes > 1 else []), str(GRPO), str(plan)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=plan.parent
    ) as process:

        def run() -> Figures:
            process.stdin.write("again\n")
            process.stdin.flush()
            while (line := process.stdout.readline()) and not line.startswith("{"):
                print(line, end="", file=sys.stderr)
            if not line:
                raise RuntimeError(f"TRL ended with exit code {process.wait()}")
            return json.loads(line)

        yield run


def measure(
    config: TrainConfig, folder: Path, python: str | None, rounds: int, micro: int, apart: bool
) -> dict[str, Any]:
    """Run both in turns or, with `apart`, one after the other."""
    plan, episodes = write_plan(config, folder, rounds, micro)
    contestants = {"codots": in_process(codots_step, config)}
    if python:
        contestants["TRL"] = trl(python, plan, config.workers)
    contests = [{name: contestants[name]} for name in contestants] if apart else [contestants]
    found = {name: median(rows) for one in contests for name, rows in contest(one, rounds).items()}
    for row in found.values():
        row |= {f"{name}_per_s": row[name] / row["seconds"] for name in ("sampled", "total")}
    notes, bars = [], {}
    if python:
        bars = {
            f"{what} tokens per second, codots over TRL": (found["codots"][key] / found["TRL"][key], target)
            for what, key, target in (("sampled", "sampled_per_s", "at least 3"), ("all", "total_per_s", "at least 3"))
        }
    else:
        notes = ["TRL was not run; pass --trl the Python of an environment that has it."]
    what = f"One training step of {episodes} episodes, {config.workers} process(es) of one thread each"
    return {"what": what, "contestants": found, "notes": notes, "bars": bars}


def main() -> None:
    """Run the contest."""
    parser = options(__doc__)
    parser.add_argument("--trl", metavar="PYTHON", help="Python interpreter of an environment with TRL")
    parser.add_argument("--cores", type=int, default=2, help="processes of each contestant")
    parser.add_argument("--recipe", type=Path, default=DEMO, help="recipe whose first step is taken")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--micro", type=int, default=MICRO, help="episodes per forward pass of TRL")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="timings of each contestant, after a first one")
    parser.add_argument("--apart", action="store_true", help="one after the other, where memory does not hold both")
    args = parser.parse_args()
    small = ["packs_per_step=2", "group_size=4", "workers=1"] if args.quick else []
    config = demo(f"workers={args.cores}", *args.set, *small, recipe=args.recipe)
    with TemporaryDirectory() as folder:
        rounds = 1 if args.quick else args.rounds
        show(measure(config, Path(folder), args.trl, rounds, args.micro, args.apart), COLUMNS, args.json)


if __name__ == "__main__":
    main()
