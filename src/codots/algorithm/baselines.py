"""Baselines and scales: the expected return given the group, and the unit of advantages.

Arrays hold P packs, G lives of each and E episodes of a life; `used_PG1` marks the lives in use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codots.algorithm.balance import EPS, Bools, Floats

BASELINES = ("group", "leave-one-out", "regression", "none")
SCALES = ("none", "rms", "std")


def subtract_baseline(returns_PGE: Floats, earlier_PGE: Floats, used_PG1: Bools, baseline: str) -> Floats:
    """Subtract the named baseline from the returns, (P, G, E)."""
    if baseline == "none":
        return returns_PGE
    if baseline == "group":
        return group_mean(returns_PGE, used_PG1)
    if baseline == "leave-one-out":
        return leave_one_out(returns_PGE, used_PG1)
    return regression(returns_PGE, earlier_PGE, used_PG1)


def group_mean(values_PGE: Floats, used_PG1: Bools) -> Floats:
    """Subtract from each value the mean of its group at the same kind and position (the paper's baseline).

    The mean includes the value itself. Lives that are not in use get 0.
    """
    n_P11 = np.maximum(over_group(used_PG1), 1)
    mean_P1E = over_group(values_PGE * used_PG1) / n_P11
    return np.where(used_PG1, values_PGE - mean_P1E, 0.0)


def leave_one_out(values_PGE: Floats, used_PG1: Bools) -> Floats:
    """Subtract from each value the mean of the *other* lives of its group (RLOO).

    The result is n / (n - 1) times that of `group_mean`, for n lives in use.
    """
    n_P11 = over_group(used_PG1)
    return group_mean(values_PGE, used_PG1) * n_P11 / np.maximum(n_P11 - 1, 1)


def regression(returns_PGE: Floats, features_PGE: Floats, used_PG1: Bools) -> Floats:
    """Subtract the mean of the other lives of the group, corrected for how much their features differ from this life's.

    The slope of return on feature is fitted per kind and position within the groups of all *other* packs, so that no
    baseline depends on the return of its own life. If there is no other pack, the result is that of `leave_one_out`.
    """
    returns_PGE, features_PGE = leave_one_out(returns_PGE, used_PG1), leave_one_out(features_PGE, used_PG1)
    products_P1E, squares_P1E = over_group(returns_PGE * features_PGE), over_group(features_PGE**2)
    others_P1E = squares_P1E.sum(axis=0) - squares_P1E
    others_P1E[others_P1E <= EPS] = np.inf  # constant features explain nothing: slope 0
    slope_P1E: Floats = (products_P1E.sum(axis=0) - products_P1E) / others_P1E
    return returns_PGE - slope_P1E * features_PGE


def earlier_rewards(solve_PGS: Floats) -> Floats:
    """Return the mean of the solve rewards that precede each episode of a life, (P, G, E), or 0 for the first solve."""
    after_PGS = np.cumsum(solve_PGS, axis=2) / np.arange(1, solve_PGS.shape[2] + 1)
    before_PGS = np.concatenate([np.zeros_like(solve_PGS[..., :1]), after_PGS[..., :-1]], axis=2)
    return np.concatenate([before_PGS, after_PGS[..., :-1]], axis=2)


def rescale(A_PGE: Floats, returns_PGE: Floats, used_PG1: Bools, scale: str) -> Floats:
    """Divide advantages by 1 ("none"), their RMS over all packs ("rms"), or the std of the group returns ("std", GRPO).

    RMS and std are computed per kind and position. The std has denominator n - 1, and EPS is added to it. An RMS below
    EPS counts as EPS.
    """
    if scale == "none":
        return A_PGE
    if scale == "rms":
        square_E: Floats = (A_PGE**2).sum(axis=(0, 1)) / max(used_PG1.sum(), 1)
        return A_PGE / np.maximum(np.sqrt(square_E), EPS)
    squares_P1E = over_group(group_mean(returns_PGE, used_PG1) ** 2)
    return A_PGE / (np.sqrt(squares_P1E / np.maximum(over_group(used_PG1) - 1, 1)) + EPS)


def over_group(values_PGE: NDArray[Any]) -> Floats:
    """Sum over the lives of each group, (P, 1, E)."""
    return np.asarray(values_PGE.sum(axis=1, keepdims=True), dtype=np.float64)
