"""The demo: train a model, and evaluate it before and after on unseen worlds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codots.cli.display import counting
from codots.cli.watch import run_training
from codots.config.evaluate import EvalConfig
from codots.config.schema import ENTRY_PROFILE_KEYS, TrainConfig
from codots.core.files import claimed, write_atomically
from codots.evaluation.evaluate import Report, evaluate, without_nan
from codots.report.page import REPORT, write_report
from codots.rollout.arms import CONTROLS
from codots.rollout.profile import Profile
from codots.runs.checkpoint import start_folder
from codots.training.setup import entry_profile, profile_of


@dataclass(frozen=True)
class DemoResult:
    """Result of the demo: the evaluations before and after training, the seconds of each stage, and the report page."""

    before: Report
    after: Report
    seconds: dict[str, float]
    page: Path


def demo(config: TrainConfig, *, packs: int = 500, resume: bool = False) -> DemoResult | None:
    """Train, evaluate before and after, and write `summary.json`, `model` and `report.html` to the run folder.

    Returns None if training is stopped with Ctrl-C; `resume` continues a stopped demo, in any of its stages. Otherwise
    an existing run folder is renamed, not overwritten. Raises ValueError if the recipe has more than one world.
    """
    if len(config.worlds) > 1:
        raise ValueError(f"a demo trains on one domain; the recipe has {len(config.worlds)} worlds")
    profile = profile_of(config, start_folder(config.model, config.init_from, config.base))
    folder = Path(config.run)
    before = settings(config, profile, config.model, packs, ("own", "null"), folder / "before.jsonl")
    after = settings(config, profile, folder / "model", packs, CONTROLS, folder / "after.jsonl")
    if not resume:
        rename_existing(folder)
    seconds: dict[str, float] = {}
    with timed("train", seconds):
        if run_training(config, resume=resume) is not None:
            return None
    found = (measure("before", before, seconds), measure("after", after, seconds))
    write_atomically(folder / "summary.json", json.dumps(summarize(config, *found, seconds), indent=2, allow_nan=False))
    [page] = write_report([folder], folder / REPORT)
    return DemoResult(*found, seconds, page)


def measure(when: str, evaluation: EvalConfig, seconds: dict[str, float]) -> Report:
    """Evaluate with a progress bar."""
    with timed(f"evaluate {when}", seconds), counting(when) as on_progress:
        return evaluate(evaluation, on_progress=on_progress)


def settings(
    config: TrainConfig, profile: Profile, model: str | Path, packs: int, arms: tuple[str, ...], rows: Path
) -> EvalConfig:
    """Return the settings of an evaluation on the `test` split, with the profile of the training."""
    world = config.worlds[0]
    own_profile = entry_profile(profile, world)
    return EvalConfig(
        model=str(model),
        domain=world.domain,
        preset=world.preset,
        split="test",
        packs=packs,
        pack_size=world.pack_size,
        arms=list(arms),
        profile={key: getattr(own_profile, key) for key in ENTRY_PROFILE_KEYS},
        temperature=profile.temperature,
        seed=config.seed,
        workers=config.workers,
        rows=str(rows),
        device=config.device,
        base=config.base if model == config.model else None,
    )


def summarize(config: TrainConfig, before: Report, after: Report, seconds: dict[str, float]) -> dict[str, Any]:
    """Return the content of `summary.json`, in which a value that is not a number is null."""
    last = (Path(config.run) / "metrics.jsonl").read_text().splitlines()[-1]
    summary = {
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
    plain: dict[str, Any] = without_nan(summary)
    return plain


def rename_existing(folder: Path) -> None:
    """Rename the folder of an earlier run if it exists. Raises ValueError if that run is still in progress."""
    if folder.exists():
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}-{n}").exists())
        with claimed(folder):
            folder.rename(folder.with_name(f"{folder.name}-{number}"))


@contextmanager
def timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the duration of a stage, in seconds, to `seconds`."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
