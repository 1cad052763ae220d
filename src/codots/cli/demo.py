"""The demonstration: measure a tiny model, train it, measure it again on worlds it never met."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from codots.cli.display import counting, run_training
from codots.config.schema import EvalConfig, TrainConfig
from codots.core.files import claimed, write_atomically
from codots.evaluation.evaluate import ARMS, Report, evaluate, without_nan
from codots.report.page import REPORT, write_report


@dataclass(frozen=True)
class Shown:
    """What the demonstration found."""

    before: Report
    after: Report
    seconds: dict[str, float]
    page: Path


def demo(config: TrainConfig, *, packs: int = 500) -> Shown | None:
    """Measure, train, measure, and leave `summary.json`, `model` and `report.html` in the run folder; None on Ctrl-C.

    An earlier demonstration in that folder is set aside, not overwritten.
    """
    if len(config.worlds) > 1:
        raise ValueError(f"a demonstration shows one domain; the recipe has {len(config.worlds)} worlds")
    folder = Path(config.run)
    seconds: dict[str, float] = {}
    with TemporaryDirectory() as spare:  # training starts in an empty folder
        rows = Path(spare) / "before.jsonl"
        with timed("evaluate before", seconds):
            before = measure(config, config.model, packs, ("own", "null"), "before", rows)
        set_aside(folder)
        with timed("train", seconds):
            if run_training(config) is not None:
                return None
        shutil.move(rows, folder)
    with timed("evaluate after", seconds):
        after = measure(config, folder / "model", packs, ARMS, "after", folder / "after.jsonl")
    summary = summarise(config, before, after, seconds)
    write_atomically(folder / "summary.json", json.dumps(without_nan(summary), indent=2, allow_nan=False))
    [page] = write_report([folder], folder / REPORT)
    return Shown(before, after, seconds, page)


def measure(config: TrainConfig, model: str | Path, packs: int, arms: tuple[str, ...], when: str, rows: Path) -> Report:
    """Evaluate on `test`."""
    with counting(when) as on_progress:
        world = config.worlds[0]
        asked = EvalConfig(
            model=str(model),
            domain=world.domain,
            preset=world.preset,
            split="test",
            packs=packs,
            pack_size=world.pack_size,
            arms=list(arms),
            profile=world.profile,
            seed=config.seed,
            workers=config.workers,
            rows=str(rows),
            device=config.device,
        )
        return evaluate(asked, on_progress=on_progress)


def summarise(config: TrainConfig, before: Report, after: Report, seconds: dict[str, float]) -> dict[str, Any]:
    """Everything that the report says, as plain data."""
    last = (Path(config.run) / "metrics.jsonl").read_text().splitlines()[-1]
    return {
        "domain": config.worlds[0].domain,
        "preset": config.worlds[0].preset,
        "seed": config.seed,
        "steps": config.steps,
        "before": asdict(before),
        "after": asdict(after),
        "arms": list(after.arms),
        "floor": after.floor,
        "bayes": after.bayes,
        "ceiling": after.ceiling,
        "seconds": {stage: round(spent, 1) for stage, spent in seconds.items()},
        "tokens": json.loads(last)["tokens/total"],
    }


def set_aside(folder: Path) -> None:
    """Give an earlier run another name; ValueError if it still goes on."""
    if folder.exists():
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}-{n}").exists())
        with claimed(folder):
            folder.rename(folder.with_name(f"{folder.name}-{number}"))


@contextmanager
def timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    """Write down how long a stage took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
