"""Warn when training collapses: rewards fall while the model's replies become alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 5
"""Number of steps that are averaged before they are compared."""
NARROWING = {
    "train/entropy": "entropy {:.3g} (it was {:.3g})",
    "rollout/distinct_replies": "{:.0%} distinct replies in a group ({:.0%})",
}
"""Metrics that fall as replies become alike, and how the warning words them."""
Metrics = dict[str, float]


@dataclass(frozen=True)
class Collapse:
    """A fall of the rewards to less than half of their best, with replies at most half as varied as then."""

    reward: float
    """Mean reward of the last steps."""
    best: float
    """Best mean reward of as many steps."""
    signs: tuple[str, ...]
    """How the replies became alike."""
    zero_signal: float
    """Fraction of groups without a learning signal in the last steps."""

    def __str__(self) -> str:
        """Return the warning in one line, with what to try."""
        return (
            f"training is collapsing: mean reward {self.reward:.3g} (its best was {self.best:.3g}), "
            f"{', '.join(self.signs)}, {self.zero_signal:.0%} of groups without a learning signal; start again from an "
            "earlier checkpoint (--init-from) with a lower learner.lr, or with learner.kl_coef=0.01"
        )


def find_collapse(steps: Sequence[Metrics]) -> Collapse | None:
    """Return how training has collapsed by the last of these steps, or None if it has not.

    Both conditions must hold for means over `WINDOW` steps, so that neither a noisy step nor replies that become alike
    because they are right counts as a collapse.
    """
    if len(steps) < 2 * WINDOW:
        return None
    rewards = means([mean_reward(step) for step in steps])
    at, now = int(np.nanargmax(rewards)) if not np.isnan(rewards).all() else -1, rewards[-1]
    if at < 0 or not rewards[at] - now > abs(rewards[at]) / 2:
        return None
    signs = []
    for name, words in NARROWING.items():
        values = means([step.get(name, np.nan) for step in steps])
        if values[-1] <= values[at] / 2:
            signs.append(words.format(values[-1], values[at]))
    zero_signal = means([step.get("credit/zero_signal_groups", np.nan) for step in steps])[-1]
    return Collapse(float(now), float(rewards[at]), tuple(signs), float(zero_signal)) if signs else None


def mean_reward(step: Metrics) -> float:
    """Return the mean of the rewards of all positions and entries of a step, or NaN if it has none."""
    rewards = [value for name, value in step.items() if name.startswith("reward/")]
    return float(np.mean(rewards)) if rewards else np.nan


def means(values: Sequence[float]) -> np.ndarray:
    """Return the mean of each `WINDOW` successive values; NaN where one is missing."""
    return np.convolve(values, np.full(WINDOW, 1 / WINDOW), "valid")
