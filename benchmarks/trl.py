"""A training step of the demo against one of TRL's GRPOTrainer: `python benchmarks/trl.py --trl PYTHON [--cores 1]`.

PYTHON is an interpreter of another environment, made with `pip install trl==1.16.0 torch==2.13.0`; without it TRL is
not run. Ours is the first step of `recipes/demo.yaml`: live, credit, gradient, optimiser, new weights served. TRL's is
one step of `GRPOTrainer` (`contestants/grpo.py`): sample, gradient, optimiser.

Equal are the model (the shipped base, float32), the episodes (as many, in groups of as many, with the same first
prompts, turns, words of the world and greatest lengths), temperature 1, a whole episode as one masked sequence, AdamW
with a clipped gradient, no reference model, no gradient checkpointing, and the number of processes, of one thread each.

Not equal, in TRL's favour: it plays no world and reads what ours answered; it begins all episodes at once, where a life
has to wait for its own context. In ours: what episodes begin with is read once, a turn reads only what is new, nothing
is padding, and an episode whose credit is 0 is not trained on (`skipped`). TRL reads the whole episode again at every
turn, as its own loop over tools does, pads to the longest prompt and the longest completion of the step, and trains
every episode by its default loss. It samples by plain `generate` (continuous batching is far slower on CPU), through
`rollout_func`, and its processes share a batch by DDP.
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

from contest import ROUNDS, Ask, Told, apart, contest, median, options, show
from one_step import credited, demo, engine_of, learn, rolled_out

from codots.config.schema import TrainConfig
from codots.core.transcript import Transcript
from codots.model.load import model_folder
from codots.rollout.life import Life

GRPO = Path(__file__).parent / "contestants" / "grpo.py"
MICRO = 112
"""Episodes of a pass of TRL's learner; the fastest of 32, 112 and 448."""
COLUMNS = {
    "seconds": "seconds",
    "live": "of them sampling",
    "sampled": "sampled tokens",
    "sampled_per_s": "sampled/s",
    "total": "all tokens",
    "total_per_s": "all/s",
    "skipped": "episodes skipped",
}


def ours(config: TrainConfig) -> Ask:
    """Prepare our step; the same packs every time."""
    engine = engine_of(config)

    def step() -> Told:
        start = time.perf_counter()
        blocks = rolled_out(engine, config)
        live = time.perf_counter() - start
        credit = credited(config, blocks)
        learn(engine, config, blocks, credit)
        seconds = time.perf_counter() - start
        transcripts = [episode.transcript for block in blocks for life in block.lives for episode in life.episodes]
        skipped = sum((of.solve_PGS == 0).sum() + (of.update_PGS == 0).sum() for of in credit)
        return {
            "seconds": seconds,
            "live": live,
            "sampled": sum(t.tokens for t in transcripts),
            "total": sum(len(t.ids) for t in transcripts),
            "skipped": int(skipped),
        }

    return step


def recorded(config: TrainConfig, lives: Sequence[Life], limits: dict[str, int]) -> list[dict[str, Any]]:
    """What TRL is given of each episode, the episodes of a group side by side."""
    groups = [lives[i : i + config.group_size] for i in range(0, len(lives), config.group_size)]
    return [
        {"given": given(e.transcript), "limit": limits[e.kind], "reward": e.reward}
        for group in groups
        for same in zip(*(life.episodes for life in group), strict=True)
        for e in same
    ]


def given(transcript: Transcript) -> list[list[int]]:
    """The ids that the policy was given, turn by turn."""
    turns: list[list[int]] = []
    fresh = True
    for id, sampled in zip(transcript.ids, transcript.mask, strict=True):
        if not sampled and fresh:
            turns.append([])
        if not sampled:
            turns[-1].append(id)
        fresh = sampled
    return turns


def write_plan(config: TrainConfig, folder: Path, rounds: int) -> tuple[Path, int]:
    """Live once, and leave for TRL what it needs; gives the number of episodes as well."""
    engine = engine_of(config)
    play, blocks = engine.plan.profile.episode_params(), rolled_out(engine, config)
    engine.close()
    episodes = recorded(
        config,
        [life for block in blocks for life in block.lives],
        {"solve": play.solve.max_tokens, "update": play.update.max_tokens},
    )
    plan = {
        "model": str(model_folder(config.model)),
        "folder": str(folder / "out"),
        "episodes": episodes,
        "group": config.group_size,
        "lr": config.learner.lr,
        "cuts": max(1, len(episodes) // config.workers // MICRO),
        "steps": 1 + rounds,
    }
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    return path, len(episodes)


@contextmanager
def trl(python: str, plan: Path, processes: int) -> Iterator[Ask]:
    """TRL in processes of its own."""
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [python, *(many if processes > 1 else []), str(GRPO), str(plan)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=plan.parent
    ) as process:

        def ask() -> Told:
            process.stdin.write("again\n")
            process.stdin.flush()
            while (line := process.stdout.readline()) and not line.startswith("{"):
                print(line, end="", file=sys.stderr)
            if not line:
                raise RuntimeError(f"TRL ended with exit code {process.wait()}")
            return json.loads(line)

        yield ask


def measure(config: TrainConfig, folder: Path, python: str | None, rounds: int) -> dict[str, Any]:
    """Let both take steps in turn."""
    plan, episodes = write_plan(config, folder, rounds)
    contestants = {"codots": apart(ours, config)}
    if python:
        contestants["TRL"] = trl(python, plan, config.workers)
    found = {name: median(rows) for name, rows in contest(contestants, rounds).items()}
    for row in found.values():
        row |= {f"{name}_per_s": row[name] / row["seconds"] for name in ("sampled", "total")}
    notes, bars = [], {}
    if python:
        bars = {
            f"{what} tokens a second, codots over TRL": (found["codots"][key] / found["TRL"][key], bar)
            for what, key, bar in (("sampled", "sampled_per_s", "at least 3"), ("all", "total_per_s", "at least 3"))
        }
    else:
        notes = ["TRL was not run: --trl names the Python of an environment that has it."]
    what = f"One training step of {episodes} episodes, {config.workers} process(es) of one thread each"
    return {"what": what, "contestants": found, "notes": notes, "bars": bars}


def main() -> None:
    """Run the contest."""
    parser = options(__doc__)
    parser.add_argument("--trl", metavar="PYTHON", help="of an environment with TRL")
    parser.add_argument("--cores", type=int, default=2, help="processes of each")
    asked = parser.parse_args()
    config = demo(f"workers={asked.cores}", *(["packs_per_step=2", "group_size=4", "workers=1"] if asked.quick else []))
    with TemporaryDirectory() as folder:
        show(measure(config, Path(folder), asked.trl, 1 if asked.quick else ROUNDS), COLUMNS, asked.json)


if __name__ == "__main__":
    main()
