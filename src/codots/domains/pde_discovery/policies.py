"""Reference policies for PDE discovery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.pde_discovery.actions import write_answer, write_regress, write_sample
from codots.domains.pde_discovery.env import FitReport, View
from codots.domains.pde_discovery.equation import TERMS, Equation, equation
from codots.domains.pde_discovery.notes import CLOSE, Pair, read_equation_of, read_points, write_claim
from codots.domains.pde_discovery.posterior import Posterior, explains
from codots.domains.pde_discovery.regression import Scored, fit, supports

ALL = tuple(range(len(TERMS)))
GOLDEN = 0.618034
NEAR, FINE = 1.5, 0.002
"""Bounds on the error of a good fit, as a multiple of the least error and as an absolute error."""


def evenly(count: int) -> list[tuple[float, float]]:
    """Return points that are evenly spaced over x at t = 0, where u is largest."""
    return [(float(x), 0.0) for x in np.linspace(0.05, 0.95, count)]


def unevenly(count: int) -> list[tuple[float, float]]:
    """Return points at t = 0 that are spaced by the golden ratio.

    Many starts are symmetric, so no two points mirror each other.
    """
    return [((i + 1) * GOLDEN % 1, 0.0) for i in range(count)]


class Random:
    """Policy that measures random points, fits random terms and answers the result.

    If it has read an equation, it answers that one, or if answers must be fitted, the fit of its terms.
    """

    def __init__(self, rng: Rng, terms: tuple[int, int], free: bool) -> None:
        self.rng, self.terms, self.free = rng, terms, free
        self.claimed: Equation | None = None

    def act(self, view: View) -> str:
        refused = view.turn > 1 and view.report is None  # because the coefficients of the claimed terms are too small
        if self.claimed is not None and not refused:
            return Informed(self.claimed, self.free).act(view)
        if view.left:
            return write_sample([(0.001 + 0.998 * x, t) for x, t in self.rng.random((view.left, 2))])
        if view.report is None:
            size = int(self.rng.integers(self.terms[0], self.terms[1] + 1))
            chosen = self.rng.choice(len(TERMS), size, replace=False)
            return write_regress([equation({int(i): 1.0 for i in chosen})])
        return write_answer(view.report.best.equation)

    def end(self, step: Step) -> None:
        """Ignore the outcome."""

    def read(self, context: str) -> None:
        """Read an equation. One with too many terms is ignored."""
        claimed = read_equation_of(context)
        self.claimed = claimed if claimed and len(claimed.support) <= self.terms[1] else None


class Informed:
    """Policy that answers the true equation, or if answers must be fitted, the fit of the true terms to all data."""

    def __init__(self, truth: Equation, free: bool) -> None:
        self.truth, self.free = truth, free

    def act(self, view: View) -> str:
        if self.free:
            return write_answer(self.truth)
        if view.left:
            return write_sample(evenly(view.left))
        if view.report is None:
            return write_regress([self.truth])
        return write_answer(view.report.best.equation)

    def end(self, step: Step) -> None:
        """Ignore the outcome; the world is already known."""


class Sparse:
    """Policy that fits the whole library to all data and takes the fewest terms that fit nearly as well as the best.

    If it has read an equation that fits up to the noise, it takes the terms of that one. A report shows all points but
    few equations, so the policy computes the fits itself. Before it answers, it has the tool score the chosen equation.
    """

    def __init__(self, most: int, noise: tuple[float, float]) -> None:
        self.most, self.noise = most, noise
        self.claimed: Equation | None = None
        self.sure: Equation | None = None
        """The claimed equation, unless it is claimed with doubt."""
        self.chosen: Equation | None = None

    def act(self, view: View) -> str:
        if view.left:
            return write_sample(evenly(view.left))
        if view.report is None:
            return write_regress(terms=ALL)
        if view.report.count > 1:
            self.chosen = self._choose(_points_of(view.report))
            return write_regress([self.chosen])
        return write_answer(view.report.best.equation)

    def _choose(self, points: list[Pair]) -> Equation:
        u, y = np.array(points).T
        claimed = self.claimed if self.claimed and len(self.claimed.support) <= self.most else None
        # The tool refuses terms whose coefficients all come out too small.
        if claimed and explains(claimed, points, self.noise) and fit(u, y, [claimed.support]):
            return claimed
        return sparse(fit(u, y, supports(ALL, self.most)))

    def end(self, step: Step) -> None:
        """Ignore the outcome; the environment keeps the data."""

    def read(self, context: str) -> None:
        """Read an equation."""
        self.claimed, self.sure = read_equation_of(context), read_equation_of(context, doubtful=False)

    def notes(self, style: str) -> dict[str, str]:
        """Return the chosen equation. It is in doubt unless its terms were read without doubt."""
        best = self.chosen or self.claimed
        return {"law": write_claim(best, sure=best == self.sure)} if best else {}


def sparse(fits: Sequence[Scored]) -> Equation:
    """Return the equation with the fewest terms whose error is within the bound. Ties go to the smallest error."""
    bound = max(FINE, NEAR * min(scored.worst for scored in fits))
    good = [scored for scored in fits if scored.worst <= bound]
    return min(good, key=lambda scored: (len(scored.equation.support), scored.worst)).equation


class AdaptivePolicy:
    """Policy that remembers every observed point and answers with the highest expected reward under the posterior.

    If it has read an equation that fits these points, it answers that one.
    """

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self.points: dict[Pair, None] = {}
        self.noted: list[Pair] = []
        """The points that were read."""
        self.claimed: Equation | None = None

    def act(self, view: View) -> str:
        if view.left:
            return write_sample(unevenly(view.left))
        if view.report is None:
            return write_regress(terms=ALL, known=self.noted)
        return write_answer(self._best([*self.points, *_points_of(view.report)]))

    def _best(self, points: list[Pair]) -> Equation:
        if self.claimed and explains(self.claimed, points, (0.0, self.posterior.noise)):
            return self.claimed
        return self.posterior.best_answer(points)

    def end(self, step: Step) -> None:
        if step.view.report is not None:
            self.points.update(dict.fromkeys(_points_of(step.view.report)))

    def read(self, context: str) -> None:
        """Read points and an equation. A doubtful equation is ignored if there are points."""
        self.noted = read_points(context)
        self.points.update(dict.fromkeys(self.noted))
        self.claimed = read_equation_of(context, doubtful=not self.noted)

    def notes(self, style: str) -> dict[str, str]:
        """Return the best answer and all points. The answer is in doubt unless the points determine it."""
        points = [*self.points]
        if not points:
            return {"law": write_claim(self.claimed)} if self.claimed else {}
        best = self._best(points)
        sure = best == self.claimed or self.posterior.determines(best, points, CLOSE)
        return {"law": write_claim(best, points, sure)}


def _points_of(report: FitReport) -> list[Pair]:
    return [(point.u, point.y) for point in report.points]
