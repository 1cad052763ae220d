"""Reference policies for PDE discovery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codots.domains.base import Rng, Step
from codots.domains.pde_discovery.actions import write_answer, write_regress, write_sample
from codots.domains.pde_discovery.env import FitReport, View
from codots.domains.pde_discovery.equation import TERMS, Equation, equation
from codots.domains.pde_discovery.posterior import Posterior
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
    """Policy that measures random points, fits random terms and answers the result."""

    def __init__(self, rng: Rng, terms: tuple[int, int]) -> None:
        self.rng, self.terms = rng, terms

    def act(self, view: View) -> str:
        if view.left:
            return write_sample([(0.001 + 0.998 * x, t) for x, t in self.rng.random((view.left, 2))])
        if view.report is None:
            size = int(self.rng.integers(self.terms[0], self.terms[1] + 1))
            chosen = self.rng.choice(len(TERMS), size, replace=False)
            return write_regress([equation({int(i): 1.0 for i in chosen})])
        return write_answer(view.report.best.equation)

    def end(self, step: Step) -> None:
        """Ignore the outcome."""


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

    A report shows all points but few equations, so the policy computes the fits itself. Before it answers, it has the
    tool score the chosen equation.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def act(self, view: View) -> str:
        if view.left:
            return write_sample(evenly(view.left))
        if view.report is None:
            return write_regress(terms=ALL)
        if view.report.count > 1:
            u, y = np.array(_points_of(view.report)).T
            return write_regress([sparse(fit(u, y, supports(ALL, self.most)))])
        return write_answer(view.report.best.equation)

    def end(self, step: Step) -> None:
        """Ignore the outcome; the environment keeps the data."""


def sparse(fits: Sequence[Scored]) -> Equation:
    """Return the equation with the fewest terms whose error is within the bound. Ties go to the smallest error."""
    bound = max(FINE, NEAR * min(scored.worst for scored in fits))
    good = [scored for scored in fits if scored.worst <= bound]
    return min(good, key=lambda scored: (len(scored.equation.support), scored.worst)).equation


class AdaptivePolicy:
    """Policy that remembers every observed point and answers with the highest expected reward under the posterior."""

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        self.points: dict[tuple[float, float], None] = {}

    def act(self, view: View) -> str:
        if view.left:
            return write_sample(unevenly(view.left))
        if view.report is None:
            return write_regress(terms=ALL)
        return write_answer(self.posterior.best_answer([*self.points, *_points_of(view.report)]))

    def end(self, step: Step) -> None:
        if step.view.report is not None:
            self.points.update(dict.fromkeys(_points_of(step.view.report)))


def _points_of(report: FitReport) -> list[tuple[float, float]]:
    return [(point.u, point.y) for point in report.points]
