"""What the rows of all arms say: curves by position, and their differences paired by pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codots.domains.base import Pack
from codots.domains.scripted import play_pack
from codots.evaluation.stats import mean_ci, rate_ci, ratio_ci
from codots.rollout.records import Row, solves


@dataclass(frozen=True)
class ArmReport:
    """One arm's curves; every list is by position."""

    reward: list[float]
    ci95: list[list[float]]
    """Of the reward, over packs."""
    success: list[float]
    success_ci95: list[list[float]]
    """Wilson's."""
    malformed: list[float]
    malformed_updates: float
    """Share of rewrites that could not be read."""
    missing: int
    """Lives lost to the infrastructure."""
    right: list[float] | None
    """Right claims of the context, as a fraction of what can be known; None where the domain cannot tell."""
    wrong: list[float] | None
    """Wrong claims, likewise."""


def compare(packs: Sequence[Pack], lives: dict[str, list[list[Row]]]) -> dict[str, Any]:
    """Everything a report says about these lives: by arm, the rows of each pack's life."""
    size = len(packs[0].tasks)
    domain = packs[0].domain
    floor_PS = np.array([[domain.floor(task) for task in pack.tasks] for pack in packs])
    ceiling_PS = np.array([[domain.ceiling(task) for task in pack.tasks] for pack in packs])
    bayes_PS = scripted_rewards("bayes", packs)
    by_arm = {arm: rewards(of, size) for arm, of in lives.items()}
    report: dict[str, Any] = {
        "arms": {arm: arm_report(packs, of) for arm, of in lives.items()},
        "floor": rounded(floor_PS.mean(0)),
        "bayes": rounded(bayes_PS.mean(0)),
        "ceiling": rounded(ceiling_PS.mean(0)),
    }
    span = domain.bounds[1] - domain.bounds[0]
    for name, a, b in (("lift", "own", "null"), ("shuffled_lift", "shuffled", "null")):
        both = a in by_arm and b in by_arm
        cis = [mean_ci(d, -span, span) for d in (by_arm[a] - by_arm[b]).T] if both else None
        report[name] = None if cis is None else [round(ci.mean, 4) for ci in cis]
        report[f"{name}_ci95"] = None if cis is None else [ci.interval for ci in cis]
    shares = None
    if "own" in by_arm and domain.exact:
        gained, possible = by_arm["own"] - bayes_PS[:, :1], ceiling_PS - bayes_PS[:, :1]
        shares = [ratio_ci(gained[:, j], possible[:, j]) for j in range(size)]
    report["share"] = None if shares is None else [round(ci.mean, 4) for ci in shares]
    report["share_ci95"] = None if shares is None else [ci.interval for ci in shares]
    return report


def arm_report(packs: Sequence[Pack], lives: Sequence[Sequence[Row]]) -> ArmReport:
    """Curves of one arm."""
    domain, size = packs[0].domain, len(packs[0].tasks)
    reward_PS = rewards(lives, size)
    there = [(pack, solved) for pack, rows in zip(packs, lives, strict=True) if (solved := solves(rows))]
    cis = [mean_ci(column, *domain.bounds) for column in reward_PS.T]
    won_PS = reward_PS[~np.isnan(reward_PS[:, 0])] > 0
    malformed = [[row.stop == "malformed" for row in solved] for _, solved in there]
    updates = [row.stop == "malformed" for rows in lives for row in rows if row.kind == "update"]
    facts = [[domain.facts(pack.world, row.context) for row in solved] for pack, solved in there]
    claims = np.array(facts, dtype=float) if facts and facts[0][0] is not None else None
    return ArmReport(
        reward=[round(ci.mean, 4) for ci in cis],
        ci95=[ci.interval for ci in cis],
        success=rounded(won_PS.mean(0)) if there else [],
        success_ci95=[rate_ci(column) for column in won_PS.T] if there else [],
        malformed=rounded(np.mean(malformed, axis=0)) if there else [],
        malformed_updates=round(sum(updates) / max(len(updates), 1), 4),
        missing=len(lives) - len(there),
        right=None if claims is None else rounded((claims[..., 0] / claims[..., 2]).mean(0)),
        wrong=None if claims is None else rounded((claims[..., 1] / claims[..., 2]).mean(0)),
    )


def rewards(lives: Sequence[Sequence[Row]], size: int) -> np.ndarray:
    """Rewards of solves, (P, S); NaN where a life is missing."""
    return np.array([[row.reward for row in solves(rows)] or [np.nan] * size for rows in lives], dtype=float)


def rounded(values: np.ndarray) -> list[float]:
    """Four digits, as plain floats."""
    return [round(float(value), 4) for value in values]


def scripted_rewards(policy: str, packs: Sequence[Pack]) -> np.ndarray:
    """Rewards of a scripted policy, (P, S); one player for a whole life."""
    return np.array([[played.reward for played in play_pack(pack, policy)] for pack in packs])
