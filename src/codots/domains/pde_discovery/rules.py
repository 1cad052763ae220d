"""Switches of the versions, dials of the presets, rewards and the rules text."""

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
    """Switches that differ between versions."""

    score: Literal["formula", "curve"]
    """Whether the reward compares coefficients or values of f over all reachable u."""
    ranking: Literal["worst", "spare"]
    """Whether the tool ranks by largest error alone or weighs fit against the number of terms."""
    shown: int
    """Number of best candidates in a report."""
    digits: int
    """Significant digits of shown points."""
    free: bool
    """Whether a regression accepts noted points and an answer may be any equation; otherwise an answer must be one
    that the latest regression of the task scored."""
    decoys: bool
    """Whether there are settings without effect (alpha) and unused fields (notes on an answer)."""
    split_equations: bool
    """Whether each equation belongs to either `train` or the held-out splits."""
    last_shown: bool
    """Whether the updater reads the observation after the last action."""

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
    """Maximum points measured in a task."""
    turns: int = 6
    noise: tuple[float, float] = (0.002, 0.0005)
    """Standard deviations of the noise on u and on y."""
    least: float = 0.0
    """Minimum amplitude of a start, as a fraction of the maximum."""
    bands: int = 1
    """Number of amplitude bands; that many tasks in a row visit each band once."""
    diffusion: float = 1.0
    """Diffusion coefficient D; at 1 a state decays in a thirtieth of the time, at lower values more slowly."""
    memory: Literal["context", "environment"] = "context"
    """What carries data and findings across the tasks of a life: the context or the environment."""


def formula_reward(answer: Equation, truth: Equation) -> float:
    """Compare coefficients: 1 if all are right; each surplus term adds as much loss as missing all true terms."""
    missed = sum(abs(a - b) for a, b in zip(answer.coefficients, truth.coefficients, strict=True))
    surplus = max(0, len(answer.support) - len(truth.support))
    return 1 / (1 + missed / sum(map(abs, truth.coefficients)) + surplus)


def likeness(a: Floats, b: Floats) -> Floats:
    """Compare values along the last axis: 1 if equal, 0 if on average one is three times the other."""
    apart = np.mean(np.abs(a - b) / (np.abs(a) + np.abs(b) + 1e-12), axis=-1)
    return np.asarray(np.maximum(1 - 2 * apart, 0.0))


def rules_text(rules: Rules, dials: Dials) -> str:
    """Return the rules as text."""
    return render("rules", rules=rules, dials=dials, top=TOP, terms=[f"({t})" if t == "exp(u)-1" else t for t in TERMS])
