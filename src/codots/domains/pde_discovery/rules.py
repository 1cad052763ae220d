"""What differs between versions and presets, what an answer pays, and what is said in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from codots.core.templates import Prompts
from codots.domains.pde_discovery.equation import TERMS, Equation, Floats
from codots.domains.pde_discovery.field import TOP

render = Prompts(__package__)
EVERYWHERE = np.linspace(0, TOP, 65)[1:]
"""The u at which values of f are compared."""


@dataclass(frozen=True)
class Rules:
    """What differs between the versions."""

    score: Literal["formula", "curve"]
    """Whether coefficients are compared, or the values of f over all u that can be met."""
    ranking: Literal["worst", "spare"]
    """Whether the tool puts first what has the least greatest error, whatever its size, or weighs terms against fit."""
    shown: int
    """How many of the best candidates a report shows."""
    digits: int
    """Significant digits in which points are shown."""
    free: bool
    """Whether a regression takes points, and an answer equations, that the player knows from before; else an answer has
    to be one that the latest regression of the task scored."""
    decoys: bool
    """Whether there are settings without use (alpha) and fields that nobody reads (notes on an answer)."""
    split_equations: bool
    """Whether an equation belongs either to `train` or to the held-out splits."""
    last_told: bool
    """Whether the updater reads what the last action led to."""

    def reward(self, answer: Equation, truth: Equation) -> float:
        """What an answer pays."""
        if self.score == "formula":
            return formula_reward(answer, truth)
        return float(likeness(answer(EVERYWHERE), truth(EVERYWHERE)))


@dataclass(frozen=True)
class Dials:
    """What differs between presets."""

    family: str
    terms: tuple[int, int]
    """Least and greatest number of terms of f."""
    points: int = 6
    """Points that may be measured in a task."""
    turns: int = 6
    noise: tuple[float, float] = (0.002, 0.0005)
    """Standard deviations of the noise on u and on y."""
    least: float = 0.0
    """Least amplitude of a start, as a share of the greatest."""
    bands: int = 1
    """Amplitudes are cut into so many bands; as many tasks in a row meet each once."""
    diffusion: float = 1.0
    """At 1 a state is gone in a thirtieth of the time; the lower, the more there is to see later."""
    memory: Literal["context", "environment"] = "context"
    """Who carries data and findings over the tasks of a life: the player's own context, or the environment."""


def formula_reward(answer: Equation, truth: Equation) -> float:
    """Compare coefficients: 1 if all are right; each term too many costs as much as all the true ones together."""
    missed = sum(abs(a - b) for a, b in zip(answer.coefficients, truth.coefficients, strict=True))
    surplus = max(0, len(answer.support) - len(truth.support))
    return 1 / (1 + missed / sum(map(abs, truth.coefficients)) + surplus)


def likeness(a: Floats, b: Floats) -> Floats:
    """Compare values along the last axis: 1 if all are the same, 0 where on average one is three times the other."""
    apart = np.mean(np.abs(a - b) / (np.abs(a) + np.abs(b) + 1e-12), axis=-1)
    return np.asarray(np.maximum(1 - 2 * apart, 0.0))


def rules_text(rules: Rules, dials: Dials) -> str:
    """Say the rules."""
    return render("rules", rules=rules, dials=dials, top=TOP, terms=[f"({t})" if t == "exp(u)-1" else t for t in TERMS])
