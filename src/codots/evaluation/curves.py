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
from codots.evaluation.columns import columns, hurt, ralph_columns
from codots.evaluation.stats import mean_ci, rate_ci, ratio_ci
from codots.rollout.records import DIVERGED, MISSING, UNANSWERED, Row, solves

log = logging.getLogger("codots")


@dataclass(frozen=True)
class ArmReport:
    """The curves of one arm. Every list is indexed by position."""

    reward: list[float]
    ci95: list[list[float]]
    """95% interval of the reward, over packs."""
    success: list[float]
    """Fraction of tasks that were solved: whose reward is above `solved_above` of the domain."""
    success_ci95: list[list[float]]
    """95% Wilson interval of the success rate, over packs."""
    malformed: list[float]
    malformed_updates: float
    """Fraction of rewrites that could not be parsed."""
    missing: int
    """Number of lives that are missing, as a whole (lost to infrastructure failures) or in part (re-scored lives that
    diverged)."""
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
    tokens_in: list[float] = field(default_factory=list)
    """Tokens that the model was given in a task and in the update after it, each counted once. Empty if unknown."""
    tokens_out: list[float] = field(default_factory=list)
    """Tokens that were sampled in a task and in the update after it."""
    context_chars: list[float] = field(default_factory=list)
    """Length of the context, in characters."""
    regret: list[float] = field(default_factory=list)
    """Ceiling minus reward."""
    kept: list[float] | None = None
    """Correct claims in the context that the next one still has, as a fraction of all facts. The last position has no
    next one. None if the domain does not count facts."""
    lost: list[float] | None = None
    """Correct claims in the context that the next one has no more, as a fraction of all facts."""
    first_seen: float | None = None
    """Mean reward of tasks with new content. None if no task has the content of an earlier one in its pack."""
    repeated: float | None = None
    """Mean reward of tasks with the content of an earlier one in their pack."""
    solved_by: list[float] | None = None
    """Fraction of lives that solved their task in one of the attempts up to this one. None if tasks do not repeat."""
    tokens_per_success: float | None = None
    """Sampled tokens up to the first success of each life, divided by the number of lives that had one. None if no life
    did, or if tasks do not repeat."""
    diverged: list[int] = field(default_factory=list)
    """Number of tasks that must be sampled again after `codots rescore`. Empty if there are none."""


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
    report["hurt"] = hurt(by_arm["own"], by_arm["null"]) if {"own", "null"} <= by_arm.keys() else None
    shares = None
    if "own" in by_arm and domain.is_exact(packs[0].preset):
        gained, possible = by_arm["own"] - bayes_PS[:, :1], ceiling_PS - bayes_PS[:, :1]
        shares = [ratio_ci(gained[:, j], possible[:, j]) for j in range(size)]
    report["share"] = None if shares is None else [round(ci.mean, 4) for ci in shares]
    report["share_ci95"] = None if shares is None else [ci.interval for ci in shares]
    return report


def arm_report(packs: Sequence[Pack], lives: Sequence[Sequence[Row]]) -> ArmReport:
    """Compute the curves of one arm."""
    domain, size = packs[0].domain, len(packs[0].tasks)
    reward_PS = rewards(lives, size)
    there_PS, solved_PS = ~np.isnan(reward_PS), reward_PS > domain.solved_above
    present = [(p, row) for p, rows in enumerate(lives) for row in solves(rows)]
    cis = [mean_ci(column, *domain.bounds) for column in reward_PS.T]
    updates = [row for rows in lives for row in rows if row.kind == "update"]

    def by_position(value: Callable[[int, Row], float]) -> list[float]:
        if not present:
            return []
        values_PS = np.zeros(reward_PS.shape)
        for p, row in present:
            values_PS[p, row.position] = value(p, row)
        count_S = there_PS.sum(0)
        return rounded(np.where(count_S > 0, values_PS.sum(0) / np.maximum(count_S, 1), np.nan))

    def share(hit: Callable[[Row], bool]) -> list[float]:
        return by_position(lambda _, row: hit(row))

    def of_updates(hit: Callable[[Row], bool]) -> float:
        return round(sum(map(hit, updates)) / max(len(updates), 1), 4)

    return ArmReport(
        reward=[round(ci.mean, 4) for ci in cis],
        ci95=[ci.interval for ci in cis],
        success=share(lambda row: row.reward > domain.solved_above),
        success_ci95=[rate_ci(solved_P[there_P]) for solved_P, there_P in zip(solved_PS.T, there_PS.T, strict=True)]
        if present
        else [],
        malformed=share(lambda row: row.stop == "malformed"),
        malformed_updates=of_updates(lambda row: row.stop == "malformed"),
        cut=share(lambda row: row.ended == StopReason.LENGTH),
        cut_updates=of_updates(lambda row: row.ended == StopReason.LENGTH),
        unanswered=dict(Counter(str(row.ended) for rows in lives for row in rows if row.ended in UNANSWERED)),
        no_room=share(lambda row: row.ended == StopReason.FULL),
        missing=int((~there_PS).any(1).sum()),
        **columns(packs, lives, reward_PS, size),
        **(ralph_columns(solved_PS, there_PS, lives) if domain.repeats and there_PS.all(1).any() else {}),
        diverged=diverged(lives, size),
    )


def rewards(lives: Sequence[Sequence[Row]], size: int) -> np.ndarray:
    """Return the rewards of the solve episodes, NaN for missing ones, as an array of shape (packs, tasks)."""
    reward_PS = np.full((len(lives), size), np.nan)
    for p, rows in enumerate(lives):
        for row in solves(rows):
            reward_PS[p, row.position] = row.reward
    return reward_PS


def diverged(lives: Sequence[Sequence[Row]], size: int) -> list[int]:
    """Return the number of tasks at each position that must be sampled again. Empty if there are none."""
    marked_P = np.array([any(row.kind == MISSING and row.stop == DIVERGED for row in rows) for rows in lives])
    found: list[int] = np.isnan(rewards(lives, size))[marked_P].sum(0).tolist()
    return found if any(found) else []


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
