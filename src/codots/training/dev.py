"""Evaluation on held-out `dev` packs during training, with own and with empty contexts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from codots.domains.base import Pack
from codots.engine.base import Engine
from codots.rollout.arms import contexts_of
from codots.rollout.life import Job, Life
from codots.rollout.steps import EpisodeKind, Given, Own
from codots.training.batch import Entry, rewards_of
from codots.training.metrics import share


class DevEvaluation:
    """Evaluation of a run on its `dev` packs, with the arms `own` and `null`, and `oracle` if asked for."""

    def __init__(self, entries: Sequence[Entry], packs: int, seed: int, *, oracle: bool = False) -> None:
        self.entries, self.count, self.seed = entries, packs, seed
        self.arms = ("own", "null", "oracle") if oracle else ("own", "null")

    @cached_property
    def packs(self) -> list[list[Pack]]:
        """Dev packs of each entry."""
        return [[entry.pack("dev", i) for i in range(self.count)] for entry in self.entries]

    @cached_property
    def bounds(self) -> list[tuple[float, float]]:
        """Mean floor and mean ceiling of the tasks of each entry."""
        bounds = []
        for packs in self.packs:
            tasks = [(pack.domain, task) for pack in packs for task in pack.tasks]
            floor = float(np.mean([domain.floor(task) for domain, task in tasks]))
            bounds.append((floor, float(np.mean([domain.ceiling(task) for domain, task in tasks]))))
        return bounds

    def evaluate(self, engine: Engine, timeout: float) -> dict[str, float]:
        """Roll out all arms on the same packs and return metrics.

        `lift` is the own reward minus the null reward at the last position. `eval/score` compares checkpoints. It is
        the mean of (own - floor) / (ceiling - floor) over the entries whose ceiling is above their floor. If lives
        write no contexts, null replaces own. An arm whose lives are all missing has no metrics. `eval/score` is omitted
        if the arm it uses is missing in any entry.
        """
        jobs = [
            Job(pack, source(entry, arm, i, packs), entry.params, ("look", self.seed, e * self.count + i))
            for e, (entry, packs) in enumerate(zip(self.entries, self.packs, strict=True))
            for arm in self.arms
            for i, pack in enumerate(packs)
        ]
        lives = engine.rollout(jobs, timeout)
        values: dict[str, float] = {}
        if any(life.episodes for life in lives):
            values |= {f"eval/malformed/{kind}": malformed(lives, kind) for kind in ("solve", "update")}
        scores = []
        size = len(self.arms) * self.count
        for e, (entry, (floor, ceiling)) in enumerate(zip(self.entries, self.bounds, strict=True)):
            found = self._curves(entry, lives[size * e : size * (e + 1)])
            prefix = f"eval/{entry.label}" if len(self.entries) > 1 else "eval"
            values |= {f"{prefix}/{name}": value for name, value in found.items()}
            arm = "own_" if entry.own else "null_"
            rewards = [value for name, value in found.items() if name.startswith(arm)]
            if ceiling > floor:
                scores.append((float(np.mean(rewards)) - floor) / (ceiling - floor) if rewards else np.nan)
        return values | ({} if not scores or np.isnan(scores).any() else {"eval/score": float(np.mean(scores))})

    def _curves(self, entry: Entry, lives: Sequence[Life]) -> dict[str, float]:
        rewards_APS = np.asarray(rewards_of(lives, len(self.arms), self.count, entry.world.pack_size).solve_PGS)
        arms = zip(self.arms, rewards_APS, strict=True)
        by_arm = {arm: np.nanmean(r_PS, axis=0) for arm, r_PS in arms if not np.isnan(r_PS).all()}
        values = {f"{arm}_{j}": float(reward) for arm, curve in by_arm.items() for j, reward in enumerate(curve)}
        has_lift = {"own", "null"} <= by_arm.keys()
        return values | ({"lift": float(by_arm["own"][-1] - by_arm["null"][-1])} if has_lift else {})


def source(entry: Entry, arm: str, i: int, packs: Sequence[Pack]) -> Own | Given:
    """Return the context source of the life of pack i in an arm."""
    if arm == "own":
        return Own(entry.strategy)
    return Given(entry.strategy, contexts_of(arm, i, packs, (), entry.params.style))


def malformed(lives: Sequence[Life], kind: EpisodeKind) -> float:
    """Return the fraction of the lives' episodes of one kind that are malformed."""
    return share(episode.stop == "malformed" for life in lives for episode in life.of(kind))
