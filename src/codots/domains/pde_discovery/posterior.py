"""Posterior over f given measured points, as a weight and the best coefficients of each template."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from codots.domains.pde_discovery.equation import Equation, Floats, columns, equation
from codots.domains.pde_discovery.rules import EVERYWHERE, likeness

RIDGE = 1e-11
FAR = 3
"""Multiple of the noise that the typical error of a true equation does not exceed."""
ROUNDING = 0.005
"""Maximum error of a coefficient that is rounded to two decimals."""
UNEVEN = 0.003
"""Relative error of y between grid points, where u and y are interpolated alike although f is not linear."""
STEP = 1e-4
"""Step of a numerical derivative."""
SURE = 0.999
"""Weight from which a template is beyond doubt."""


@dataclass(frozen=True)
class Posterior:
    """Posterior under a uniform prior over templates and coefficient sizes, and Gaussian noise on y alone."""

    templates: tuple[Equation, ...]
    sizes: tuple[float, float]
    noise: float

    def best_answer(self, points: Sequence[tuple[float, float]]) -> Equation:
        """Return the fitted template with the highest expected likeness to the true curve."""
        weights, fitted = self.weigh(points)
        values = np.stack([e(EVERYWHERE) for e in fitted])
        return fitted[int(np.argmax(likeness(values[:, None], values[None]) @ weights))]

    def determines(self, best: Equation, points: Sequence[tuple[float, float]], close: float) -> bool:
        """Return whether the points leave little doubt about the terms of an equation and its coefficients.

        Three standard errors of each coefficient and its rounding are at most `close`.
        """
        weights, fitted = self.weigh(points)
        if fitted[int(np.argmax(weights))] != best or weights.max() < SURE:
            return False
        table = columns(np.array(points)[:, 0])[:, list(best.support)]
        values, vectors = np.linalg.eigh(table.T @ table)
        errors = self.noise * np.sqrt((vectors**2 / np.maximum(values, RIDGE)).sum(axis=1))
        return bool(3 * errors.max() + ROUNDING <= close)

    def weigh(self, points: Sequence[tuple[float, float]]) -> tuple[Floats, list[Equation]]:
        """Return the weight of each template by Laplace's approximation, and its best fit rounded to two decimals."""
        u, y = np.array(points, dtype=float).reshape(-1, 2).T
        table = columns(u)
        logs, fitted = [], []
        for template in self.templates:
            support = list(template.support)
            signed = table[:, support] * np.array(template.coefficients)[support]
            sizes, squares = fit_in_box(signed.T @ signed, signed.T @ y, float(y @ y), self.sizes)
            logs.append(self._volume(signed.T @ signed) - squares / (2 * self.noise**2))
            signs = np.array(template.coefficients)[support]
            fitted.append(equation(dict(zip(support, np.round(signs * sizes, 2).tolist(), strict=True))))
        weights = np.exp(np.array(logs) - max(logs))
        return weights / weights.sum(), fitted

    def _volume(self, gram: Floats) -> float:
        """Return the log of the fraction of the coefficient box that fits about as well as the best."""
        values = np.linalg.eigvalsh(gram)
        width = self.noise * np.sqrt(2 * np.pi / np.maximum(values, RIDGE)) / (self.sizes[1] - self.sizes[0])
        return float(np.sum(np.log(np.minimum(width, 1))))


def explains(claimed: Equation, points: Sequence[tuple[float, float]], noise: tuple[float, float]) -> bool:
    """Return whether the typical error of an equation is at most FAR times the noise on u and y."""
    u, y = np.array(points, dtype=float).reshape(-1, 2).T
    with np.errstate(all="ignore"):  # points that were read may be anywhere
        slope = (claimed(u + STEP) - claimed(u - STEP)) / (2 * STEP)
        errors = (claimed(u) - y) / np.sqrt(noise[1] ** 2 + (slope * noise[0]) ** 2 + (UNEVEN * y) ** 2)
        return bool(np.mean(errors**2) <= FAR**2)


def fit_in_box(gram: Floats, moments: Floats, total: float, box: tuple[float, float]) -> tuple[Floats, float]:
    """Return the exact solution of least squares in a box, and its sum of squared errors.

    Tries every combination of coefficients that are free or at a bound.
    """
    best: tuple[Floats, float] | None = None
    for ends in product((None, *box), repeat=len(moments)):
        sizes = _fit_free(gram, moments, ends)
        if np.all((sizes >= box[0] - 1e-9) & (sizes <= box[1] + 1e-9)):
            squares = float(total - 2 * sizes @ moments + sizes @ gram @ sizes)
            if best is None or squares < best[1]:
                best = sizes, squares
    assert best is not None  # the corners of the box are always feasible
    return best[0], max(0.0, best[1])


def _fit_free(gram: Floats, moments: Floats, ends: Iterable[float | None]) -> Floats:
    ends = list(ends)
    free = [i for i, end in enumerate(ends) if end is None]
    sizes = np.array([0.0 if end is None else end for end in ends])
    if free:
        inner = gram[np.ix_(free, free)] + RIDGE * (1 + np.trace(gram)) * np.eye(len(free))
        sizes[free] = np.linalg.solve(inner, (moments - gram @ sizes)[free])
    return sizes
