"""Compute reward by position from recorded rows, and differences between arms, which are paired by pack."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codots.core.transcript import StopReason
from codots.domains.base import Pack
from codots.domains.scripted import play_pack
from codots.evaluation.stats import mean_ci, rate_ci, ratio_ci
from codots.rollout.records import UNANSWERED, Row, solves

log = logging.getLogger("codots")


@dataclass(frozen=True)
class ArmReport:
    """The curves of one arm. Every list is indexed by position."""

    reward: list[float]
    ci95: list[list[float]]
    """95% interval of the reward, over packs."""
    success: list[float]
    success_ci95: list[list[float]]
    """95% Wilson interval of the success rate, over packs."""
    malformed: list[float]
    malformed_updates: float
    """Fraction of rewrites that could not be parsed."""
    missing: int
    """Number of missing lives, which were lost to infrastructure failures."""
    right: list[float] | None
    """Correct claims in the context, as a fraction of all facts. None if the domain does not count facts or every life
    is missing."""
    wrong: list[float] | None
    """Wrong claims in the context, as a fraction of all facts. None if the domain does not count facts or every life is
    missing."""
    cut: list[float] = field(default_factory=list)
    """Fraction of solves whose last reply was cut at `solve_tokens`."""
    cut_updates: float = 0.0
    """Fraction of rewrites that were cut at `update_tokens`."""
    unanswered: dict[str, int] = field(default_factory=dict)
    """Number of episodes whose last reply of a server had no answer, by how it ended: thought, filtered, tools."""
    no_room: list[float] = field(default_factory=list)
    """Fraction of solves whose last prompt or reply had no room in the context window."""


def compare(packs: Sequence[Pack], lives: dict[str, list[list[Row]]]) -> dict[str, Any]:
    """Return every computed field of a report. `lives` maps each arm to the rows of its lives, one life per pack."""
    size = len(packs[0].tasks)
    domain = packs[0].domain
    floor_PS = np.array([[domain.floor(task) for task in pack.tasks] for pack in packs])
    ceiling_PS = np.array([[domain.ceiling(task) for task in pack.tasks] for pack in packs])
    bayes_PS = scripted_rewards("bayes", packs)
    by_arm = {arm: rewards(arm_lives, size) for arm, arm_lives in lives.items()}
    report: dict[str, Any] = {
        "arms": {arm: arm_report(packs, arm_lives) for arm, arm_lives in lives.items()},
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
    """Compute the curves of one arm."""
    domain, size = packs[0].domain, len(packs[0].tasks)
    reward_PS = rewards(lives, size)
    present = [(pack, solved) for pack, rows in zip(packs, lives, strict=True) if (solved := solves(rows))]
    cis = [mean_ci(column, *domain.bounds) for column in reward_PS.T]
    won_PS = reward_PS[~np.isnan(reward_PS[:, 0])] > 0
    updates = [row for rows in lives for row in rows if row.kind == "update"]

    def by_position(hit: Callable[[Row], bool]) -> list[float]:
        return rounded(np.mean([[hit(row) for row in solved] for _, solved in present], axis=0)) if present else []

    def of_updates(hit: Callable[[Row], bool]) -> float:
        return round(sum(map(hit, updates)) / max(len(updates), 1), 4)

    facts = [[domain.facts(pack.world, row.context) for row in solved] for pack, solved in present]
    claims = np.array(facts, dtype=float) if facts and facts[0][0] is not None else None
    return ArmReport(
        reward=[round(ci.mean, 4) for ci in cis],
        ci95=[ci.interval for ci in cis],
        success=rounded(won_PS.mean(0)) if present else [],
        success_ci95=[rate_ci(column) for column in won_PS.T] if present else [],
        malformed=by_position(lambda row: row.stop == "malformed"),
        malformed_updates=of_updates(lambda row: row.stop == "malformed"),
        cut=by_position(lambda row: row.ended == StopReason.LENGTH),
        cut_updates=of_updates(lambda row: row.ended == StopReason.LENGTH),
        unanswered=dict(Counter(str(row.ended) for rows in lives for row in rows if row.ended in UNANSWERED)),
        no_room=by_position(lambda row: row.ended == StopReason.FULL),
        missing=len(lives) - len(present),
        right=None if claims is None else rounded((claims[..., 0] / claims[..., 2]).mean(0)),
        wrong=None if claims is None else rounded((claims[..., 1] / claims[..., 2]).mean(0)),
    )


def rewards(lives: Sequence[Sequence[Row]], size: int) -> np.ndarray:
    """Return the rewards of the solve episodes as an array of shape (packs, tasks). Missing lives have NaN rewards."""
    return np.array([[row.reward for row in solves(rows)] or [np.nan] * size for rows in lives], dtype=float)


def rounded(values: np.ndarray) -> list[float]:
    """Return the values as floats, rounded to four digits."""
    return [round(float(value), 4) for value in values]


def scripted_rewards(policy: str, packs: Sequence[Pack]) -> np.ndarray:
    """Return the rewards of a scripted policy as an array of shape (packs, tasks). Each pack has its own policy."""
    return np.array([[played.reward for played in play_pack(pack, policy)] for pack in packs])


def warn_of_unanswered(model: str, arms: Mapping[str, ArmReport]) -> None:
    """Log a warning for each way in which replies of a server had no answer, with their number and what to do."""
    for end, (words, hint) in UNANSWERED.items():
        if count := sum(arm.unanswered.get(str(end), 0) for arm in arms.values()):
            log.warning(f"{count} replies of {model} were {words}: {hint}")
