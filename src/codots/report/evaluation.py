"""Evaluations as stored in JSON: validate them, and compare their model and setting with those of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codots.core.suggest import nearest
from codots.evaluation.curves import ArmReport
from codots.evaluation.rescored import FOLDER
from codots.rollout.arms import ARMS

REFERENCES = ("floor", "bayes", "ceiling")
CURVES = {"lift", "lift_ci95", "share", "share_ci95", "shuffled_lift", "shuffled_lift_ci95", *REFERENCES}
KEYS = {"arms", "model", "writer", "domain", "preset", "split", "n_packs", "size", "temperature", *CURVES}
"""Keys that every evaluation has."""


@dataclass(frozen=True)
class Evaluation:
    """A report of `evaluate`, as stored in JSON."""

    name: str
    when: str
    """`before` or `after` training, or `other` if another model was evaluated."""
    report: dict[str, Any]

    @property
    def setting(self) -> tuple[Any, ...]:
        """Domain, preset, split, number of packs and pack size. Only evaluations with equal settings are compared."""
        return tuple(self.report[key] for key in ("domain", "preset", "split", "n_packs", "size"))

    @property
    def packs(self) -> str:
        """Description of the packs, such as `100 packs of dev, 4 tasks each`."""
        return "{n_packs} packs of {split}, {size} tasks each".format(**self.report)

    def mismatch(self, config: dict[str, Any]) -> str:
        """Return how the evaluated lives differ from the training lives, such as `hard 8 tasks`, or '' if they match.

        If the recipe has several entries, the most similar one is compared.
        """
        values = {"domain": self.report["domain"], "preset": self.report["preset"], "pack_size": self.report["size"]}
        differing = [{key: v for key, v in values.items() if world.get(key, v) != v} for world in worlds_of(config)]
        closest = min(differing, key=len, default={})
        return " ".join(f"{v} tasks" if key == "pack_size" else v for key, v in closest.items())


def worlds_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the domain, preset and pack size of each entry of a recipe, as far as the recipe contains them.

    The entries of a recipe of imitation are those of all its stages, each only once.
    """
    stages = [stage for stage in config.get("stages", [config]) if not stage.get("recorded")]
    entries = [world for stage in stages for world in stage.get("worlds", [stage])] or [{}]
    keys = ("domain", "preset", "pack_size")
    found = [{key: world[key] for key in keys if key in world} for world in entries]
    return [world for i, world in enumerate(found) if "worlds" in config or world not in found[:i]]


def is_evaluation(value: Any) -> bool:
    """Return whether a JSON value has the keys of a report of `evaluate`."""
    return isinstance(value, dict) and value.keys() >= KEYS


def checked(path: Path, report: Any) -> dict[str, Any]:
    """Return the report of an evaluation. Raises ValueError if a part that a page shows is missing or invalid."""
    try:
        if missing := KEYS - report.keys():
            raise TypeError(f"it has no {min(missing)}")
        for key, kind in (("model", str), ("domain", str), ("preset", str), ("size", int), ("n_packs", int)):
            if not isinstance(report[key], kind):
                raise TypeError(f"{key} is {report[key]!r}")
        for arm, values in report["arms"].items():
            if arm not in ARMS:
                raise TypeError(nearest(arm, list(ARMS), "arm"))
            curves = ArmReport(**values)
            if not len(curves.reward) == len(curves.ci95) == report["size"]:
                raise TypeError(f"the curve of {arm} does not have {report['size']} positions")
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not an evaluation: {error}") from error
    return dict(report)


def when_of(folder: Path, config: dict[str, Any], model: str) -> str:
    """Return `after` for the model that the run trained, `before` for the model in its recipe, otherwise `other`."""
    home = folder.resolve()
    name = home.parent.name if home.name == FOLDER else home.name
    if name in (Path(model).name, Path(model).parent.name):
        return "after"
    return "before" if model == config.get("model") else "other"
