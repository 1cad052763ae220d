"""Solver for u_t = D u_xx + f(u) on [0, 1] x [0, 1] with zero boundaries, explicit reaction and implicit diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from codots.domains.pde_discovery.equation import Equation, Floats

CELLS, STEPS = 256, 2000
LIMIT = 3.0
"""Bound to which the state and the solver's input are clipped."""
TOP = 2.765625
"""Maximum amplitude of a start. From such a start, no equation of the families exceeds LIMIT."""
WAVES = 2
"""Maximum number of sine waves in a start."""


@dataclass(frozen=True)
class Start:
    """The content of a task: the initial state."""

    amplitude: float
    weights: tuple[float, ...]
    """Weights of sin(pi x), sin(2 pi x), ..."""

    def state(self) -> Floats:
        """Return the initial state, a nonnegative hump of this amplitude that is zero at both ends."""
        x = np.linspace(0, 1, CELLS + 1)
        wave = np.sum([w * np.sin((k + 1) * np.pi * x) for k, w in enumerate(self.weights)], axis=0)
        wave /= np.abs(wave).max()
        hump = (wave - wave.min()) * np.sin(np.pi * x)
        hump[[0, -1]] = 0.0
        return np.asarray(self.amplitude * hump / hump.max())


@lru_cache(maxsize=8)
def factors(diffusion: float) -> tuple[Floats, Floats]:
    """Return the factorization of the tridiagonal matrix of one implicit step."""
    from scipy.linalg.lapack import dpttrf

    r = diffusion * CELLS**2 / STEPS
    diagonal, off_diagonal, _ = dpttrf(np.full(CELLS - 1, 1 + 2 * r), np.full(CELLS - 2, -r))
    return diagonal, off_diagonal


class Field:
    """A trajectory that is computed only up to the latest requested time."""

    def __init__(self, reaction: Equation, start: Start, diffusion: float) -> None:
        self.reaction, self.diffusion = reaction, diffusion
        self.rows = [start.state()]

    def until(self, step: int) -> None:
        """Compute the trajectory up to this time step."""
        from scipy.linalg.lapack import dpttrs

        diagonal, off_diagonal = factors(self.diffusion)
        pushes = [(c / STEPS, term) for c, term in self.reaction.parts]
        for _ in range(step + 1 - len(self.rows)):
            inner = self.rows[-1][1:-1]
            pushed = inner.copy()
            for push, term in pushes:
                pushed += push * term(inner)
            np.minimum(np.maximum(pushed, -LIMIT, out=pushed), LIMIT, out=pushed)
            solved = dpttrs(diagonal, off_diagonal, pushed, overwrite_b=True)[0]
            row = np.zeros(CELLS + 1)
            np.minimum(np.maximum(solved, -LIMIT, out=solved), LIMIT, out=row[1:-1])
            self.rows.append(row)

    def at(self, x: float, t: float) -> tuple[float, float]:
        """Return the state u and the source y = u_t - D u_xx, interpolated bilinearly between grid points.

        On the grid, y equals the reaction f(u) by construction of the scheme, so no derivative is computed.
        """
        step, late = _between(t, STEPS)
        cell, right = _between(x, CELLS)
        self.until(step + (late > 0))
        rows = np.stack([self.rows[step], self.rows[step + (late > 0)]])[:, cell : cell + 2]
        weights = np.outer([1 - late, late], [1 - right, right])
        return float(np.sum(weights * rows)), float(np.sum(weights * self.reaction(rows)))


def _between(share: float, count: int) -> tuple[int, float]:
    """Return the index of the grid point to the left, and the fraction of the way to the next grid point."""
    left = min(int(share * count), count - 1)
    return left, share * count - left


@lru_cache(maxsize=16)
def field(reaction: Equation, start: Start, diffusion: float) -> Field:
    """Return the field of a task. Results are cached so that the lives of a group share a field."""
    return Field(reaction, start, diffusion)
