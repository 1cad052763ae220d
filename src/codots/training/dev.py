"""Looks at `dev`: own and null contexts on the same held-out packs while a run trains, and one figure to compare by."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from codots.domains.base import Pack
from codots.engine.base import Engine
from codots.rollout.life import Job, Life
from codots.rollout.steps import Own
from codots.training.batch import Entry, rewards_of


class Dev:
    """The `dev` packs of a run."""

    def __init__(self, entries: Sequence[Entry], packs: int, seed: int) -> None:
        self.entries, self.count, self.seed = entries, packs, seed

    @cached_property
    def packs(self) -> list[list[Pack]]:
        """The packs of each entry."""
        return [[entry.pack("dev", i) for i in range(self.count)] for entry in self.entries]

    @cached_property
    def bounds(self) -> list[tuple[float, float]]:
        """Mean floor and ceiling of each entry's tasks."""
        found = []
        for packs in self.packs:
            tasks = [(pack.domain, task) for pack in packs for task in pack.tasks]
            floor = float(np.mean([domain.floor(task) for domain, task in tasks]))
            found.append((floor, float(np.mean([domain.ceiling(task) for domain, task in tasks]))))
        return found

    def evaluate(self, engine: Engine, timeout: float) -> dict[str, float]:
        """Roll out own and null contexts on the same packs; the last position's difference is the lift.

        `eval/score` is the figure that checkpoints are compared by: the mean over entries of (own - floor) / (ceiling -
        floor), of null where lives write no contexts. An arm whose lives are all missing has no numbers, and where one
        is missing there is no figure.
        """
        jobs = [
            Job(pack, contexts, entry.params, ("look", self.seed, e * self.count + i))
            for e, (entry, packs) in enumerate(zip(self.entries, self.packs, strict=True))
            for contexts in (Own(entry.strategy), entry.null())
            for i, pack in enumerate(packs)
        ]
        lives = engine.rollout(jobs, timeout)
        values: dict[str, float] = {}
        figures = []
        for e, (entry, (floor, ceiling)) in enumerate(zip(self.entries, self.bounds, strict=True)):
            seen = self._arms(entry, lives[2 * self.count * e : 2 * self.count * (e + 1)])
            where = f"eval/{entry.label}" if len(self.entries) > 1 else "eval"
            values |= {f"{where}/{name}": value for name, value in seen.items()}
            arm = "own_" if entry.own else "null_"
            mine = [value for name, value in seen.items() if name.startswith(arm)]
            if ceiling > floor:
                figures.append((float(np.mean(mine)) - floor) / (ceiling - floor) if mine else np.nan)
        return values | ({} if not figures or np.isnan(figures).any() else {"eval/score": float(np.mean(figures))})

    def _arms(self, entry: Entry, lives: Sequence[Life]) -> dict[str, float]:
        rewards_APS = np.asarray(rewards_of(lives, 2, self.count, entry.world.pack_size).solve_PGS)
        arms = zip(("own", "null"), rewards_APS, strict=True)
        by_arm = {arm: np.nanmean(r_PS, axis=0) for arm, r_PS in arms if not np.isnan(r_PS).all()}
        values = {f"{arm}_{j}": float(reward) for arm, curve in by_arm.items() for j, reward in enumerate(curve)}
        return values | ({"lift": float(by_arm["own"][-1] - by_arm["null"][-1])} if len(by_arm) == 2 else {})
