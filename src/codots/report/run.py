"""What a run folder holds, whatever part of it is there yet: recipe, numbers by step, evaluations, recorded lives."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from codots.core.renamed import new_metric, with_new_keys
from codots.core.suggest import closest
from codots.domains.registry import get_domain, make_pack
from codots.evaluation.curves import compare
from codots.report.evaluation import REFERENCES, Evaluation, checked, is_evaluation, moment, worlds_of
from codots.rollout.records import HEAD

SUMMARY = "summary.json"
"""What a demonstration found."""
POINTS = 400
"""More steps than these are shown as means of neighbours."""
OF_TOKENS = ("train/entropy", "train/logprob_gap", "train/logprob_gap_max")
"""Means over the tokens that a step learnt from; where it learnt from none they are no numbers."""
REFERENCE_PACKS = 50
"""Packs of `dev` that the references are taken from where no evaluation brings its own."""


@dataclass(frozen=True)
class Run:
    """One run folder, read."""

    folder: Path
    config: dict[str, Any]
    """The recipe, empty if there is none."""
    steps: list[int]
    metrics: dict[str, list[float]]
    """By name, one value per entry of `steps`, NaN where there is none."""
    last_step: int
    totals: dict[str, float]
    """Sampled ids and seconds of the whole training."""
    evaluations: list[Evaluation]
    seconds: dict[str, float]
    """Of each stage of a demonstration."""
    rows: list[tuple[str, Path]] = field(default_factory=list)
    """Files of recorded lives, and what to call them."""

    @property
    def name(self) -> str:
        """How the run is called."""
        return self.folder.resolve().name

    @property
    def size(self) -> int:
        """Tasks in a life, 0 if nothing says so."""
        if self.after:
            return int(self.after.report["size"])
        if self.config:
            return max(int(world.get("size", 0)) for world in worlds_of(self.config))
        return int(self.evaluations[0].report["size"]) if self.evaluations else 0

    @property
    def after(self) -> Evaluation | None:
        """The evaluation after training, of lives as it had them if there is such a one; None if there was none."""
        return next((e for e in self.evaluations if e.when == "after" and e.report["writer"] is None), None)

    @property
    def world(self) -> list[str]:
        """What the recipe says of where the lives were lived."""
        c = self.config
        seed = [f"seed {c['seed']}"] if "seed" in c else []
        worlds = [" ".join(str(w[key]) for key in ("domain", "preset") if key in w) for w in worlds_of(c)]
        return [", ".join(worlds), *seed] if c else []

    @property
    def labels(self) -> list[str]:
        """What stands before the position in the names of metrics, as `frozen-lake-v1/`; one empty word if nothing."""
        found = [name.removeprefix("reward/").rpartition("/") for name in self.metrics if name.startswith("reward/")]
        return list(dict.fromkeys(label + slash for label, slash, _ in found)) or [""]

    @property
    def running(self) -> bool:
        """Whether steps of the recipe are still to come."""
        return 0 < self.last_step < int(self.config.get("steps", 0))

    def column(self, name: str) -> list[float]:
        """The values of a metric, NaN all over if it was never written."""
        return self.metrics.get(name, [math.nan] * len(self.steps))


def apart(runs: Sequence[Run]) -> list[str]:
    """The names of runs, numbered where they are equal."""
    names: list[str] = []
    for run in runs:
        others = (f"{run.name}-{n}" for n in count(2))
        names.append(next(name for name in chain([run.name], others) if name not in names))
    return names


def is_run(folder: Path) -> bool:
    """Whether a folder holds what a report can be made of."""
    return any((folder / name).exists() for name in ("config.yaml", "metrics.jsonl", "summary.json", "rollouts"))


def find_runs(root: Path, depth: int = 3) -> dict[str, Path]:
    """The runs in a folder by relative name, the folder itself if it is one."""
    if is_run(root):
        return {root.resolve().name: root}
    found: dict[str, Path] = {}
    for folder in sorted(root.iterdir()) if depth else ():
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            inner = {"": folder} if is_run(folder) else find_runs(folder, depth - 1)
            found |= {f"{folder.name}/{name}".rstrip("/"): path for name, path in inner.items()}
    return found


def read_run(folder: Path) -> Run:
    """Read a run folder, also one that is still being written; ValueError says what is no run or cannot be read."""
    if not folder.is_dir() or not (is_run(folder) or row_files(folder)):
        raise ValueError(no_run(folder))
    config = read_recipe(folder / "config.yaml")
    metrics = read_metrics(folder / "metrics.jsonl")
    evaluations, seconds = read_evaluations(folder, config)
    return Run(
        folder=folder,
        config=config,
        last_step=int(metrics[-1]["step"]) if metrics else 0,
        totals={
            "tokens": sum(row.get("tokens/sampled", 0) for row in metrics),
            "seconds": sum(row.get("time/step", 0.0) for row in metrics),
        },
        evaluations=evaluations,
        seconds=seconds,
        rows=row_files(folder),
        **columns(metrics),
    )


def no_run(folder: Path) -> str:
    """Word why a folder is no run, with the nearest name that is one."""
    expected = "expected a folder with config.yaml, metrics.jsonl, summary.json or rollouts"
    return f"no run at {folder}; {expected}{closest(folder)}"


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a run's recipe as plain data."""
    if not path.is_file():
        return {}
    try:
        recipe = with_new_keys(dict(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no recipe: expected keys and values") from error
    for key in ("steps", "pack_size"):
        if not isinstance(recipe.get(key, 0), int):
            raise ValueError(f"{path} is no recipe: expected a number of {key}, got {recipe[key]!r}")
    worlds = recipe.get("worlds", [{}])
    if not isinstance(worlds, list) or not worlds or not all(isinstance(world, dict) for world in worlds):
        raise ValueError(f"{path} is no recipe: expected a list of worlds, got {worlds!r}")
    for size in (world.get("pack_size", 0) for world in worlds):
        if not isinstance(size, int):
            raise ValueError(f"{path} is no recipe: expected a number of pack_size, got {size!r}")
    return recipe


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the lines of numbers; one that is being written does not count."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            row = {new_metric(name): value for name, value in json.loads(line).items()}
            unheard = OF_TOKENS if row.get("train/grad_norm") == 0 else ()
            kept = {key: value for key, value in row.items() if key not in ("step", *unheard)}
            rows.append({"step": int(row["step"]), **kept})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: expected the numbers of a step as JSON") from error
    return rows


def columns(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Lay metrics out by name, many steps as means of neighbours."""
    names = sorted({key for row in rows for key in row} - {"step"})
    cut = [part for part in np.array_split(np.arange(len(rows)), min(POINTS, len(rows))) if len(part)] if rows else []
    found = {name: np.array([row.get(name, math.nan) for row in rows], dtype=float) for name in names}
    return {
        "steps": [int(rows[part[-1]]["step"]) for part in cut],
        "metrics": {name: [mean(values[part]) for part in cut] for name, values in found.items()},
    }


def mean(values: np.ndarray) -> float:
    """Mean of what is there, NaN of nothing."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan


def read_evaluations(folder: Path, config: dict[str, Any]) -> tuple[list[Evaluation], dict[str, float]]:
    """Read `summary.json` of a demonstration, and every file that `codots eval --json` was written to."""
    found, seconds = [], {}
    for path in sorted(folder.glob("*.json"), key=lambda path: (path.name != SUMMARY, path.name)):
        if not path.stat().st_size:  # an evaluation that still goes on, or was stopped: its shell has made the file
            continue
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if path.name == SUMMARY:
            try:
                found += [Evaluation(when, when, checked(path, said[when])) for when in ("before", "after")]
                seconds = dict(said["seconds"])
            except (TypeError, KeyError, ValueError) as error:
                raise ValueError(f"{path} is no demonstration's; expected before, after and seconds") from error
        elif is_evaluation(said):
            found.append(Evaluation(path.stem, moment(folder, config, checked(path, said)["model"]), said))
    return sorted(found, key=lambda e: (("before", "after", "other").index(e.when), e.away(config) != "")), seconds


def row_files(folder: Path) -> list[tuple[str, Path]]:
    """The files of recorded lives: of evaluations, those after training first, then of training steps."""
    lives = [path for path in folder.glob("*.jsonl") if holds_rows(path)]
    lives.sort(key=lambda path: (("after", "before").index(path.stem) if path.stem in ("after", "before") else 2, path))
    steps = sorted((folder / "rollouts").glob("step-*.jsonl"))
    return [(path.stem, path) for path in lives] + [(f"step {int(path.stem[5:])}", path) for path in steps]


def holds_rows(path: Path) -> bool:
    """Whether a file begins like one of episodes."""
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline())
        except ValueError:
            return False
    return isinstance(first, dict) and (HEAD in first or {"pack", "arm", "turns"} <= first.keys())


def references_of(run: Run, label: str = "") -> dict[str, list[float]]:
    """Floor, bayes and ceiling by position: of an evaluation of such lives, else of packs of `dev`, else none."""
    world = world_of(run.config, label)
    for evaluation in reversed(run.evaluations):
        if evaluation.when != "other" and not evaluation.away(world):
            return {name: evaluation.report[name] for name in REFERENCES}
    try:
        return dict(_references(world["domain"], world["preset"], world["size"]))
    except (KeyError, ValueError):  # another kind of recipe, or a domain that is not installed here
        return {}


def world_of(config: dict[str, Any], label: str) -> dict[str, Any]:
    """Find the entry of a recipe by its label in metrics, which is its domain and as much of the rest as it takes."""
    worlds = worlds_of(config)
    for i, world in enumerate(worlds):
        whole = ":".join(map(str, (*(world.get(key, "") for key in ("domain", "preset", "size")), i)))
        if f"{whole}:".startswith(f"{label.rstrip('/')}:"):
            return world
    return worlds[0]


@lru_cache(maxsize=32)
def _references(domain: str, preset: str, size: int) -> Any:
    packs = [make_pack(domain, preset, "dev", i, size) for i in range(REFERENCE_PACKS)]
    found = compare(packs, {})
    return {name: found[name] for name in REFERENCES}


def is_exact(domain: str) -> bool:
    """Whether nobody can expect more than `bayes` in a domain; not if it is not installed here."""
    try:
        return get_domain(domain).exact
    except ValueError:
        return False


def grounds(run: Run) -> Iterator[list[Evaluation]]:
    """Evaluations that may be compared side by side, those after training first."""
    by_ground: dict[tuple[Any, ...], list[Evaluation]] = {}
    for evaluation in sorted(run.evaluations, key=lambda e: e.when != "after"):
        by_ground.setdefault(evaluation.ground, [])
    for evaluation in run.evaluations:
        by_ground[evaluation.ground].append(evaluation)
    yield from by_ground.values()
