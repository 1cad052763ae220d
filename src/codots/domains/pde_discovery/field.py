"""The field: u_t = D u_xx + f(u) on [0, 1] x [0, 1], zero at both ends, reaction explicit and diffusion implicit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from codots.domains.pde_discovery.equation import Equation, Floats

CELLS, STEPS = 256, 2000
LIMIT = 3.0
"""The state and what is given to the solver are clipped to this."""
TOP = 2.765625
"""The greatest amplitude of a start, from which no law of a family leaves the limit."""
WAVES = 2
"""The greatest number of sine waves in a start."""


@dataclass(frozen=True)
class Start:
    """The state that a task begins with; the content of the task."""

    amplitude: float
    weights: tuple[float, ...]
    """Of sin(pi x), sin(2 pi x), ..."""

    def state(self) -> Floats:
        """A hump of this height: not negative, zero at both ends."""
        x = np.linspace(0, 1, CELLS + 1)
        wave = np.sum([w * np.sin((k + 1) * np.pi * x) for k, w in enumerate(self.weights)], axis=0)
        wave /= np.abs(wave).max()
        hump = (wave - wave.min()) * np.sin(np.pi * x)
        hump[[0, -1]] = 0.0
        return np.asarray(self.amplitude * hump / hump.max())


@lru_cache(maxsize=8)
def factors(diffusion: float) -> tuple[Floats, Floats]:
    """The factors of the tridiagonal matrix of one implicit step, made once."""
    from scipy.linalg.lapack import dpttrf

    r = diffusion * CELLS**2 / STEPS
    diagonal, beside, _ = dpttrf(np.full(CELLS - 1, 1 + 2 * r), np.full(CELLS - 2, -r))
    return diagonal, beside


class Field:
    """One trajectory, worked out as far as somebody looked."""

    def __init__(self, reaction: Equation, start: Start, diffusion: float) -> None:
        self.reaction, self.diffusion = reaction, diffusion
        self.rows = [start.state()]

    def until(self, step: int) -> None:
        """Go on to this step of time."""
        from scipy.linalg.lapack import dpttrs

        diagonal, beside = factors(self.diffusion)
        pushes = [(c / STEPS, term) for c, term in self.reaction.parts]
        for _ in range(step + 1 - len(self.rows)):
            inner = self.rows[-1][1:-1]
            pushed = inner.copy()
            for push, term in pushes:
                pushed += push * term(inner)
            np.minimum(np.maximum(pushed, -LIMIT, out=pushed), LIMIT, out=pushed)
            solved = dpttrs(diagonal, beside, pushed, overwrite_b=True)[0]
            row = np.zeros(CELLS + 1)
            np.minimum(np.maximum(solved, -LIMIT, out=solved), LIMIT, out=row[1:-1])
            self.rows.append(row)

    def at(self, x: float, t: float) -> tuple[float, float]:
        """The state u and the source y = u_t - D u_xx, between the points of the grid by the four around.

        On the grid the scheme itself makes y the reaction f(u), so there is no derivative to take.
        """
        step, late = _between(t, STEPS)
        cell, right = _between(x, CELLS)
        self.until(step + (late > 0))
        rows = np.stack([self.rows[step], self.rows[step + (late > 0)]])[:, cell : cell + 2]
        weights = np.outer([1 - late, late], [1 - right, right])
        return float(np.sum(weights * rows)), float(np.sum(weights * self.reaction(rows)))


def _between(share: float, count: int) -> tuple[int, float]:
    """The point of the grid to the left, and how far on to the next one."""
    left = min(int(share * count), count - 1)
    return left, share * count - left


@lru_cache(maxsize=16)
def field(reaction: Equation, start: Start, diffusion: float) -> Field:
    """The field of a task; the lives of a group look at the same one."""
    return Field(reaction, start, diffusion)
