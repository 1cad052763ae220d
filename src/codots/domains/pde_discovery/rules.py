"""Types of the settings of versions (`Rules`) and presets (`Dials`), rewards, and the rules as the model reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from codots.core.templates import Prompts
from codots.domains.pde_discovery.equation import TERMS, Equation, Floats
from codots.domains.pde_discovery.field import TOP

render = Prompts(__package__)
EVERYWHERE = np.linspace(0, TOP, 65)[1:]
"""Values of u at which f is compared."""


@dataclass(frozen=True)
class Rules:
    """Settings that differ between versions."""

    score: Literal["formula", "curve"]
    """What the reward compares: coefficients (`formula`), or values of f over all reachable u (`curve`)."""
    ranking: Literal["worst", "spare"]
    """How the tool ranks equations: by largest error (`worst`), or by fit and number of terms (`spare`)."""
    shown: int
    """Number of equations in a report, best first."""
    digits: int
    """Significant digits of shown points."""
    free: bool
    """Whether a regression accepts noted points and an answer may be any equation. If False, an answer must be an
    equation that the latest regression of the task scored."""
    decoys: bool
    """Whether tools accept settings that do nothing (alpha) and fields that nothing uses (notes on an answer)."""
    split_equations: bool
    """Whether each equation belongs either to `train` or to the held-out splits."""
    last_shown: bool
    """Whether the updater sees the observation after the last action."""

    def reward(self, answer: Equation, truth: Equation) -> float:
        """Return the reward of an answer."""
        if self.score == "formula":
            return formula_reward(answer, truth)
        return float(likeness(answer(EVERYWHERE), truth(EVERYWHERE)))


@dataclass(frozen=True)
class Dials:
    """Settings that differ between presets."""

    family: str
    terms: tuple[int, int]
    """Minimum and maximum number of terms of f."""
    points: int = 6
    """Maximum number of points measured in a task."""
    turns: int = 6
    noise: tuple[float, float] = (0.002, 0.0005)
    """Standard deviations of the noise on u and on y."""
    least: float = 0.0
    """Minimum amplitude of a start, as a fraction of the maximum."""
    bands: int = 1
    """Number of amplitude bands. Each block of that many tasks visits every band once."""
    diffusion: float = 1.0
    """Diffusion coefficient D. At 1, a state decays within a thirtieth of the time; at lower values, more slowly."""
    memory: Literal["context", "environment"] = "context"
    """What carries data and findings across the tasks of a life: the context alone, or also the environment."""


def formula_reward(answer: Equation, truth: Equation) -> float:
    """Return a reward that compares coefficients. It is 1 if all coefficients are right.

    Each surplus term adds as much loss as missing all true terms.
    """
    missed = sum(abs(a - b) for a, b in zip(answer.coefficients, truth.coefficients, strict=True))
    surplus = max(0, len(answer.support) - len(truth.support))
    return 1 / (1 + missed / sum(map(abs, truth.coefficients)) + surplus)


def likeness(a: Floats, b: Floats) -> Floats:
    """Return how alike two arrays are along the last axis, from 0 to 1.

    1 means equal values. 0 means that on average one value is at least three times the other.
    """
    apart = np.mean(np.abs(a - b) / (np.abs(a) + np.abs(b) + 1e-12), axis=-1)
    return np.asarray(np.maximum(1 - 2 * apart, 0.0))


def rules_text(rules: Rules, dials: Dials) -> str:
    """Return the rules of a task as text."""
    return render("rules", rules=rules, dials=dials, top=TOP, terms=[f"({t})" if t == "exp(u)-1" else t for t in TERMS])
