"""The regression tool, which fits supports to measured points and scores the fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, groupby

import numpy as np

from codots.domains.pde_discovery.equation import TERMS, Equation, Floats, columns

RIDGE = 1e-8
THRESHOLD = 0.05
"""Absolute value below which coefficients are dropped."""
TERM_COSTS = 6.0
"""Reduction of the sum of squared errors, in units of the noise variance, that justifies one more term."""
WORST_KAPPA = 1e12
Support = tuple[int, ...]


@dataclass(frozen=True)
class Scored:
    """A fitted equation and its errors."""

    equation: Equation
    worst: float
    """Largest absolute error of y."""
    mean: float
    """Root mean squared error of y."""


@lru_cache(maxsize=64)
def supports(terms: tuple[int, ...], most: int) -> tuple[Support, ...]:
    """Return every combination of 1 to `most` of these terms."""
    return tuple(chosen for size in range(1, most + 1) for chosen in combinations(sorted(terms), size))


def fit(u: Floats, y: Floats, wanted: Iterable[Support], threshold: float = THRESHOLD) -> list[Scored]:
    """Fit each support by least squares, drop coefficients below the threshold, and refit the rest.

    Coefficients are rounded as in a printed equation, so that scores match the printed equations.
    """
    table = columns(u)
    gram, moments = table.T @ table, table.T @ y
    found: dict[Support, Floats] = {}
    pending = set(wanted)
    while pending:
        smaller: set[Support] = set()
        for size, group in groupby(sorted(pending, key=lambda s: (len(s), s)), key=len):
            chosen = list(group)
            rows = np.array(chosen)
            squares = gram[rows[:, :, None], rows[:, None, :]] + RIDGE * np.eye(size)
            solved = np.linalg.solve(squares, moments[rows][..., None])[..., 0]
            for support, coefficients in zip(chosen, solved, strict=True):
                kept = tuple(i for i, c in zip(support, coefficients, strict=True) if abs(c) >= threshold)
                if kept == support:
                    found[support] = coefficients
                elif kept:
                    smaller.add(kept)
        pending = smaller - found.keys()
    return _score(table, y, found)


def _score(table: Floats, y: Floats, found: dict[Support, Floats]) -> list[Scored]:
    if not found:
        return []
    dense = np.zeros((len(found), len(TERMS)))
    for row, (support, coefficients) in zip(dense, found.items(), strict=True):
        row[list(support)] = [float(f"{round(c, 3):.3g}") for c in coefficients]
    error = np.abs(table @ dense.T - y[:, None])
    worst, mean = error.max(axis=0), np.sqrt((error**2).mean(axis=0))
    rows = zip(dense.tolist(), worst.tolist(), mean.tolist(), strict=True)
    return [Scored(Equation(tuple(row)), w, m) for row, w, m in rows]


def ranked(scored: Iterable[Scored], noise: float | None, points: int) -> list[Scored]:
    """Return equations sorted best first: by largest error if `noise` is None, otherwise by fit and number of terms."""
    if noise is None:
        return sorted(scored, key=lambda s: s.worst)
    return sorted(scored, key=lambda s: points * (s.mean / noise) ** 2 + TERM_COSTS * len(s.equation.support))


def kappa(u: Floats, terms: Iterable[int]) -> float:
    """Return the condition number of the normalized columns of these terms at these points, at most WORST_KAPPA.

    Returns WORST_KAPPA if there are fewer points than terms or if a column is zero.
    """
    table = columns(u)[:, list(terms)]
    norms = np.linalg.norm(table, axis=0)
    if len(table) < table.shape[1] or not norms.all():
        return WORST_KAPPA
    values = np.linalg.svd(table / norms, compute_uv=False)
    return float(min(WORST_KAPPA, values[0] / max(values[-1], 1e-300)))


def penalty(kappa: float) -> float:
    """Return the number of powers of ten by which `kappa` exceeds 100, or 0 if it does not."""
    return max(0.0, math.log10(kappa) - 2)


def margin(ranking: Sequence[Scored]) -> float | None:
    """Return the relative increase in largest error from the first equation to the next one with another support.

    Returns None if all equations have the same support.
    """
    best = ranking[0]
    other = next((s.worst for s in ranking if s.equation.support != best.equation.support), None)
    return None if other is None else (other - best.worst) / max(best.worst, 1e-12)
