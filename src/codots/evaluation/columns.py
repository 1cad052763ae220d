"""Columns beside the reward: what an arm costs, what its contexts hold, and where they help or hurt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codots.domains.base import Pack
from codots.rollout.records import Row, solves

Floats = NDArray[np.float64]


def columns(packs: Sequence[Pack], lives: Sequence[Sequence[Row]], reward_PS: Floats, size: int) -> dict[str, Any]:
    """Return the columns of an arm, as fields of `ArmReport`. Missing tasks are ignored."""
    domain = packs[0].domain
    read, sampled, length, right, wrong = np.full((5, len(lives), size), np.nan)
    for p, rows in enumerate(lives):
        for row in solves(rows):
            at = (p, row.position)
            read[at], sampled[at], length[at] = row.read or 0, row.tokens, len(row.context)
            if facts := domain.facts(packs[p].world.at(row.position), row.context):
                right[at], wrong[at] = facts[0] / facts[2], facts[1] / facts[2]
        for row in rows:
            if row.kind == "update" and not np.isnan(read[p, row.position]):
                read[p, row.position] += row.read or 0
                sampled[p, row.position] += row.tokens
    ceiling_PS = np.array([[domain.ceiling(task) for task in pack.tasks] for pack in packs])
    found: dict[str, Any] = {
        "tokens_in": by_position(read) if any(row.read is not None for rows in lives for row in rows) else [],
        "tokens_out": by_position(sampled),
        "context_chars": by_position(length),
        "regret": by_position(ceiling_PS - reward_PS),
    }
    found |= {"right": None, "wrong": None}
    if not np.isnan(right).all():
        found |= {"right": by_position(right), "wrong": by_position(wrong)}
        change = np.diff(right, axis=1, append=np.nan)
        found["kept"] = by_position(right + np.minimum(change, 0))[:-1]
        found["lost"] = by_position(np.maximum(-change, 0))[:-1]
    again_PS = np.array([repeats(pack) for pack in packs])
    if again_PS.any() and not domain.repeats:
        found["first_seen"], found["repeated"] = (mean(reward_PS[at]) for at in (~again_PS, again_PS))
    return found


def ralph_columns(
    solved_PS: NDArray[np.bool_], there_PS: NDArray[np.bool_], lives: Sequence[Sequence[Row]]
) -> dict[str, Any]:
    """Return `solved_by` and `tokens_per_success` of lives that attempt one task again and again."""
    complete = [(rows, list(solved_PS[p])) for p, rows in enumerate(lives) if there_PS[p].all()]
    by_PS = np.logical_or.accumulate([solved_S for _, solved_S in complete], axis=1)
    tokens = 0
    for rows, solved_S in complete:
        last = solved_S.index(True) if True in solved_S else len(solved_S)
        tokens += sum(row.tokens for row in rows if (row.position, row.kind) <= (last, "solve"))
    successes = int(by_PS[:, -1].sum())
    return {
        "solved_by": by_position(by_PS.astype(float)),
        "tokens_per_success": round(tokens / successes, 1) if successes else None,
    }


def hurt(own_PS: Floats, null_PS: Floats) -> list[float]:
    """Return the fraction of tasks, by position, whose reward is lower with the own context than with none."""
    return by_position(np.where(np.isnan(own_PS - null_PS), np.nan, own_PS < null_PS))


def repeats(pack: Pack) -> list[bool]:
    """Return for each task whether an earlier task of the pack has the same content."""
    contents = [task.content for task in pack.tasks]
    return [any(equal(content, other) for other in contents[:j]) for j, content in enumerate(contents)]


def equal(one: Any, other: Any) -> bool:
    """Return whether two contents are equal, element by element if they are arrays."""
    same = one == other
    return bool(same if isinstance(same, bool) else np.all(same))


def by_position(values_PS: Floats) -> list[float]:
    """Return the mean over packs at each position, without NaN; NaN where there is nothing else."""
    return [mean(column) for column in values_PS.T]


def mean(values: Floats) -> float:
    """Return the mean of the values that are not NaN, rounded to four digits; NaN if there are none."""
    present = values[~np.isnan(values)]
    return round(float(present.mean()), 4) if len(present) else float("nan")
