"""Evaluation on held-out `dev` packs during training, with own and with empty contexts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from codots.domains.base import Pack
from codots.engine.base import Engine
from codots.rollout.life import Job, Life
from codots.rollout.steps import Own
from codots.training.batch import Entry, rewards_of


class DevEvaluation:
    """Evaluation of a run on its `dev` packs."""

    def __init__(self, entries: Sequence[Entry], packs: int, seed: int) -> None:
        self.entries, self.count, self.seed = entries, packs, seed

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
        """Roll out the own and null arms on the same packs and return metrics.

        `lift` is the own reward minus the null reward at the last position. `eval/score` compares checkpoints. It is
        the mean of (own - floor) / (ceiling - floor) over the entries whose ceiling is above their floor. If lives
        write no contexts, null replaces own. An arm whose lives are all missing has no metrics. `eval/score` is omitted
        if the arm it uses is missing in any entry.
        """
        jobs = [
            Job(pack, contexts, entry.params, ("look", self.seed, e * self.count + i))
            for e, (entry, packs) in enumerate(zip(self.entries, self.packs, strict=True))
            for contexts in (Own(entry.strategy), entry.null_contexts())
            for i, pack in enumerate(packs)
        ]
        lives = engine.rollout(jobs, timeout)
        values: dict[str, float] = {}
        scores = []
        for e, (entry, (floor, ceiling)) in enumerate(zip(self.entries, self.bounds, strict=True)):
            found = self._arms(entry, lives[2 * self.count * e : 2 * self.count * (e + 1)])
            prefix = f"eval/{entry.label}" if len(self.entries) > 1 else "eval"
            values |= {f"{prefix}/{name}": value for name, value in found.items()}
            arm = "own_" if entry.own else "null_"
            rewards = [value for name, value in found.items() if name.startswith(arm)]
            if ceiling > floor:
                scores.append((float(np.mean(rewards)) - floor) / (ceiling - floor) if rewards else np.nan)
        return values | ({} if not scores or np.isnan(scores).any() else {"eval/score": float(np.mean(scores))})

    def _arms(self, entry: Entry, lives: Sequence[Life]) -> dict[str, float]:
        rewards_APS = np.asarray(rewards_of(lives, 2, self.count, entry.world.pack_size).solve_PGS)
        arms = zip(("own", "null"), rewards_APS, strict=True)
        by_arm = {arm: np.nanmean(r_PS, axis=0) for arm, r_PS in arms if not np.isnan(r_PS).all()}
        values = {f"{arm}_{j}": float(reward) for arm, curve in by_arm.items() for j, reward in enumerate(curve)}
        return values | ({"lift": float(by_arm["own"][-1] - by_arm["null"][-1])} if len(by_arm) == 2 else {})
