"""An evaluation as JSON holds it: whether it is one, of which moment, and where its lives were lived."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codots.core.suggest import nearest
from codots.evaluation.curves import ArmReport
from codots.rollout.arms import ARMS

REFERENCES = ("floor", "bayes", "ceiling")
CURVES = {"lift", "lift_ci95", "share", "share_ci95", "shuffled_lift", "shuffled_lift_ci95", *REFERENCES}
TOLD = {"arms", "model", "writer", "domain", "preset", "split", "n_packs", "size", "temperature", *CURVES}
"""What every evaluation says."""


@dataclass(frozen=True)
class Evaluation:
    """A report of `evaluate`, as JSON holds it."""

    name: str
    when: str
    """`before` or `after` training, or `other` of another model."""
    report: dict[str, Any]

    @property
    def ground(self) -> tuple[Any, ...]:
        """What two evaluations share that may be compared."""
        return tuple(self.report[key] for key in ("domain", "preset", "split", "n_packs", "size"))

    @property
    def packs(self) -> str:
        """What its lives were lived on, in words."""
        return "{n_packs} packs of {split}, {size} tasks each".format(**self.report)

    def away(self, config: dict[str, Any]) -> str:
        """Say what sets its lives apart from those that the recipe trains on, as `hard 8 tasks`; empty if nothing."""
        told = [(key, self.report[key]) for key in ("domain", "preset", "size")]
        apart = [[(key, v) for key, v in told if world.get(key, v) != v] for world in worlds_of(config)]
        return " ".join(f"{v} tasks" if key == "size" else v for key, v in min(apart, key=len, default=[]))


def worlds_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return domain, preset and size of each entry of a recipe, as far as it says them."""
    names = {"domain": "domain", "preset": "preset", "pack_size": "size"}
    worlds = config.get("worlds", [config])
    return [{name: world[key] for key, name in names.items() if key in world} for world in worlds]


def is_evaluation(said: Any) -> bool:
    """Whether this looks like a report of `evaluate`."""
    return isinstance(said, dict) and said.keys() >= TOLD


def checked(path: Path, said: Any) -> dict[str, Any]:
    """Give back what an evaluation said, if it holds what a page shows; ValueError says what it lacks."""
    try:
        if missing := TOLD - said.keys():
            raise TypeError(f"it says nothing of {min(missing)}")
        for key, kind in (("model", str), ("domain", str), ("preset", str), ("size", int), ("n_packs", int)):
            if not isinstance(said[key], kind):
                raise TypeError(f"{key} is {said[key]!r}")
        for arm, of in said["arms"].items():
            if arm not in ARMS:
                raise TypeError(nearest(arm, list(ARMS), "arm"))
            curves = ArmReport(**of)
            if not len(curves.reward) == len(curves.ci95) == said["size"]:
                raise TypeError(f"the curve of {arm} is not of {said['size']} positions")
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no evaluation's: {error}") from error
    return dict(said)


def moment(folder: Path, config: dict[str, Any], model: str) -> str:
    """Tell whether a model is the run's own, or the one that it started from."""
    name = folder.resolve().name
    if name in (Path(model).name, Path(model).parent.name):
        return "after"
    return "before" if model == config.get("model") else "other"
