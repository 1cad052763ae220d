"""Read the recipe, metrics, evaluations and recorded lives of run folders, which may be incomplete."""

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

from codots.core.renamed import new_metric, with_new_keys
from codots.core.suggest import closest
from codots.core.yaml_text import read_yaml
from codots.domains.registry import get_domain, make_pack
from codots.evaluation.curves import compare
from codots.report.evaluation import REFERENCES, Evaluation, checked, is_evaluation, when_of, worlds_of
from codots.rollout.records import HEAD
from codots.training.collapse import find_collapse

SUMMARY = "summary.json"
"""File with the results of `codots demo`."""
POINTS = 400
"""Maximum number of steps to plot. If there are more, neighbouring steps are averaged."""
TOKEN_METRICS = ("train/entropy", "train/logprob_gap", "train/logprob_gap_max")
"""Metrics that are means over the trained tokens of a step. They are ignored for a step that trained on no tokens."""
REFERENCE_PACKS = 50
"""Number of `dev` packs from which floor, bayes and ceiling are computed if no evaluation has them."""


@dataclass(frozen=True)
class RunRecord:
    """The contents of one run folder."""

    folder: Path
    config: dict[str, Any]
    """The recipe. Empty if the folder has no recipe."""
    steps: list[int]
    metrics: dict[str, list[float]]
    """Metrics by name. Each has one value per entry of `steps`, which is NaN if the value was not recorded."""
    last_step: int
    totals: dict[str, float]
    """Number of sampled tokens and seconds over all training steps."""
    evaluations: list[Evaluation]
    seconds: dict[str, float]
    """Seconds of each stage of `codots demo`. Empty for any other run."""
    collapse: str = ""
    """How training had collapsed by the last step where it had; empty if it never did."""
    rows: list[tuple[str, Path]] = field(default_factory=list)
    """Names and paths of the files with recorded lives."""

    @property
    def name(self) -> str:
        """Name of the run, which is the name of its folder."""
        return self.folder.resolve().name

    @property
    def size(self) -> int:
        """Number of tasks per life, or 0 if it is not known."""
        if self.after:
            return int(self.after.report["size"])
        if self.config:
            return max(int(world.get("pack_size", 0)) for world in worlds_of(self.config))
        return int(self.evaluations[0].report["size"]) if self.evaluations else 0

    @property
    def after(self) -> Evaluation | None:
        """The evaluation after training in which the model writes its own contexts, or None if there is none.

        An evaluation in the training setting takes precedence over others.
        """
        return next((e for e in self.evaluations if e.when == "after" and e.report["writer"] is None), None)

    @property
    def world(self) -> list[str]:
        """Worlds and seed of the recipe, as display strings."""
        c = self.config
        seed = [f"seed {c['seed']}"] if "seed" in c else []
        worlds = dict.fromkeys(" ".join(str(w[key]) for key in ("domain", "preset") if key in w) for w in worlds_of(c))
        return [", ".join(worlds), *seed] if c else []

    @property
    def labels(self) -> list[str]:
        """Labels of recipe entries in metric names, such as `frozen-lake-v1/`. One empty label if there are none."""
        kind = "eval/" if self.taught else "reward/"
        found = [name.removeprefix(kind).rpartition("/") for name in self.metrics if name.startswith(kind)]
        labels = dict.fromkeys(label + slash for label, slash, _ in found if label != "malformed")
        return [label for label in labels if label] or [""]

    @property
    def taught(self) -> bool:
        """Whether the run is one of imitation."""
        return "stages" in self.config

    @property
    def running(self) -> bool:
        """Whether training has started and the recipe has more steps than were trained so far."""
        return 0 < self.last_step < self.whole_steps

    @property
    def whole_steps(self) -> int:
        """Number of steps of the recipe, over all its stages, or 0 if the recipe does not say."""
        return sum(int(stage.get("steps", 0)) for stage in self.config.get("stages", [self.config]))

    @property
    def loss(self) -> list[float]:
        """The finite losses of the plotted steps."""
        return [value for value in self.column("train/loss") if math.isfinite(value)]

    def column(self, name: str) -> list[float]:
        """Return the values of a metric. All of them are NaN if the metric was never written."""
        return self.metrics.get(name, [math.nan] * len(self.steps))


def unique_names(runs: Sequence[RunRecord]) -> list[str]:
    """Return the names of runs. A number is appended to repeated names."""
    names: list[str] = []
    for run in runs:
        others = (f"{run.name}-{n}" for n in count(2))
        names.append(next(name for name in chain([run.name], others) if name not in names))
    return names


def is_run(folder: Path) -> bool:
    """Return whether a folder contains a recipe, metrics, a demo summary or rollouts."""
    return any((folder / name).exists() for name in ("config.yaml", "metrics.jsonl", "summary.json", "rollouts"))


def find_runs(root: Path, depth: int = 3) -> dict[str, Path]:
    """Return the runs up to `depth` levels below a folder, by relative path, or the folder itself if it is a run."""
    if is_run(root):
        return {root.resolve().name: root}
    found: dict[str, Path] = {}
    for folder in sorted(root.iterdir()) if depth else ():
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            inner = {"": folder} if is_run(folder) else find_runs(folder, depth - 1)
            found |= {f"{folder.name}/{name}".rstrip("/"): path for name, path in inner.items()}
    return found


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, which may still be in use by training.

    Raises ValueError if the folder is not a run or has invalid files.
    """
    if not folder.is_dir() or not (is_run(folder) or row_files(folder)):
        raise ValueError(not_a_run(folder))
    config = read_recipe(folder / "config.yaml")
    metrics = read_metrics(folder / "metrics.jsonl")
    evaluations, seconds = read_evaluations(folder, config)
    return RunRecord(
        folder=folder,
        config=config,
        last_step=int(metrics[-1]["step"]) if metrics else 0,
        totals={
            "tokens": sum(row.get("tokens/sampled", 0) for row in metrics),
            "seconds": sum(row.get("time/step", 0.0) for row in metrics),
        },
        evaluations=evaluations,
        seconds=seconds,
        collapse=collapse_of(metrics),
        rows=row_files(folder),
        **columns(metrics),
    )


def not_a_run(folder: Path) -> str:
    """Return the error message for a folder that is not a run, with the nearest existing path."""
    expected = "expected a folder with config.yaml, metrics.jsonl, summary.json or rollouts"
    return f"no run at {folder}; {expected}{closest(folder)}"


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the recipe of a run as plain data. Returns an empty dict if the file does not exist.

    Raises ValueError if the file is not a recipe.
    """
    if not path.is_file():
        return {}
    try:
        recipe = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a recipe: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is not a recipe: expected keys and values, got {type(recipe).__name__}")
    recipe = with_new_keys(recipe)
    for key in ("steps", "pack_size"):
        if not isinstance(recipe.get(key, 0), int):
            raise ValueError(f"{path} is not a recipe: expected an integer for {key}, got {recipe[key]!r}")
    worlds = []
    for stage in listed(path, "stages", recipe.get("stages", [recipe])):
        worlds += [] if stage.get("recorded") else listed(path, "worlds", stage.get("worlds", [{}]))
    for size in (world.get("pack_size", 0) for world in worlds):
        if not isinstance(size, int):
            raise ValueError(f"{path} is not a recipe: expected an integer for pack_size, got {size!r}")
    return recipe


def listed(path: Path, name: str, value: Any) -> list[dict[str, Any]]:
    """Return a list of sections of a recipe. Raises ValueError if it is anything else."""
    if not isinstance(value, list) or not value or not all(isinstance(section, dict) for section in value):
        raise ValueError(f"{path} is not a recipe: expected a list of {name}, got {value!r}")
    return value


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the metrics of each step, except a last line that is still being written.

    Raises ValueError if another line is not the metrics of a step.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            row = {new_metric(name): value for name, value in json.loads(line).items()}
            dropped = TOKEN_METRICS if row.get("train/grad_norm") == 0 else ()
            kept = {key: value for key, value in row.items() if key not in ("step", *dropped)}
            rows.append({"step": int(row["step"]), **kept})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: expected the metrics of a step as JSON") from error
    return rows


def collapse_of(rows: list[dict[str, float]]) -> str:
    """Return how training had collapsed by the last step that was marked as collapsed, or "" if none was."""
    marked = [i for i, row in enumerate(rows) if row.get("train/collapse")]
    found = find_collapse(rows[: marked[-1] + 1]) if marked else None
    return f"By step {rows[marked[-1]]['step']} {found}." if found else ""


def columns(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return the steps and the metrics by name. Neighbouring steps are averaged if there are more than POINTS."""
    names = sorted({key for row in rows for key in row} - {"step"})
    parts = [part for part in np.array_split(np.arange(len(rows)), min(POINTS, len(rows))) if len(part)] if rows else []
    found = {name: np.array([row.get(name, math.nan) for row in rows], dtype=float) for name in names}
    return {
        "steps": [int(rows[part[-1]]["step"]) for part in parts],
        "metrics": {name: [mean(values[part]) for part in parts] for name, values in found.items()},
    }


def mean(values: np.ndarray) -> float:
    """Return the mean of the finite values, or NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def read_evaluations(folder: Path, config: dict[str, Any]) -> tuple[list[Evaluation], dict[str, float]]:
    """Read the evaluations in `summary.json` of `codots demo` and in every file written by `codots eval --json`.

    Also return the seconds of each stage of the demo. Raises ValueError if a file is invalid.
    """
    found, seconds = [], {}
    for path in sorted(folder.glob("*.json"), key=lambda path: (path.name != SUMMARY, path.name)):
        if not path.stat().st_size:  # the shell created the file, and its evaluation is still running or was stopped
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if path.name == SUMMARY:
            try:
                found += [Evaluation(when, when, checked(path, content[when])) for when in ("before", "after")]
                seconds = dict(content["seconds"])
            except (TypeError, KeyError, ValueError) as error:
                raise ValueError(f"{path} is not a demo summary; expected before, after and seconds") from error
        elif is_evaluation(content):
            found.append(Evaluation(path.stem, when_of(folder, config, checked(path, content)["model"]), content))
    return sorted(found, key=lambda e: (("before", "after", "other").index(e.when), e.mismatch(config) != "")), seconds


def row_files(folder: Path) -> list[tuple[str, Path]]:
    """Return the names and paths of the files with recorded lives.

    Files of evaluations come first, starting with `after` and `before`. Files of training steps follow.
    """
    lives = [path for path in folder.glob("*.jsonl") if holds_rows(path)]
    lives.sort(key=lambda path: (("after", "before").index(path.stem) if path.stem in ("after", "before") else 2, path))
    steps = sorted((folder / "rollouts").glob("step-*.jsonl"))
    return [(path.stem, path) for path in lives] + [(f"step {int(path.stem[5:])}", path) for path in steps]


def holds_rows(path: Path) -> bool:
    """Return whether the first line of a file is the first line of recorded episodes."""
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline())
        except ValueError:
            return False
    return isinstance(first, dict) and (HEAD in first or {"pack", "arm", "turns"} <= first.keys())


def references_of(run: RunRecord, label: str = "") -> dict[str, list[float]]:
    """Return floor, bayes and ceiling by position for the recipe entry with this label.

    The values are those of an evaluation before or after training on the same domain, preset and pack size. If there is
    no such evaluation, they are computed on `dev` packs. Returns an empty dict if they cannot be computed.
    """
    world = world_of(run.config, label)
    for evaluation in reversed(run.evaluations):
        if evaluation.when != "other" and not evaluation.mismatch(world):
            return {name: evaluation.report[name] for name in REFERENCES}
    try:
        return dict(_references(world["domain"], world["preset"], world["pack_size"]))
    except (KeyError, ValueError):  # another kind of recipe, or the domain is not installed
        return {}


def world_of(config: dict[str, Any], label: str) -> dict[str, Any]:
    """Return the entry of a recipe with this label, which is a prefix of `domain:preset:pack_size:index`.

    Returns the first entry if none has the label.
    """
    worlds = worlds_of(config)
    for i, world in enumerate(worlds):
        full = ":".join(map(str, (*(world.get(key, "") for key in ("domain", "preset", "pack_size")), i)))
        if f"{full}:".startswith(f"{label.rstrip('/')}:"):
            return world
    return worlds[0]


@lru_cache(maxsize=32)
def _references(domain: str, preset: str, size: int) -> Any:
    packs = [make_pack(domain, preset, "dev", i, size) for i in range(REFERENCE_PACKS)]
    found = compare(packs, {})
    return {name: found[name] for name in REFERENCES}


def is_exact(domain: str, preset: str) -> bool:
    """Return whether `bayes` is exact in a preset. Returns False if the domain or the preset is unknown."""
    try:
        return get_domain(domain).is_exact(preset)
    except (ValueError, KeyError):
        return False


def by_setting(run: RunRecord) -> Iterator[list[Evaluation]]:
    """Yield the evaluations grouped by setting, starting with the settings that were evaluated after training."""
    groups: dict[tuple[Any, ...], list[Evaluation]] = {}
    for evaluation in sorted(run.evaluations, key=lambda e: e.when != "after"):
        groups.setdefault(evaluation.setting, [])
    for evaluation in run.evaluations:
        groups[evaluation.setting].append(evaluation)
    yield from groups.values()
