"""Balance: reweight the advantages of episodes by their token counts.

Without a balance, one kind of episode can dominate the update by length alone. Arrays hold N concatenated episodes;
`scope_N` holds the scope index of each episode, from 0. Each scope is balanced separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BALANCES = ("none", "red", "shift", "length-neutral")
EPS = 1e-6  # smaller differences between returns are rounding, not signal


def balance(
    A_N: Floats, tokens_N: Floats, used_N: Bools, scope_N: NDArray[np.int64], name: str
) -> tuple[Floats, dict[str, float]]:
    """Apply the named balance to each scope. Return the new advantages, and metrics from before and after."""
    A_N, temperatures, count = A_N.copy(), [], int(scope_N.max(initial=-1)) + 1
    metrics = {"credit/red_active": 0.0, "credit/token_mean_before": weighted_mean(A_N, tokens_N)}
    for scope in range(count) if name != "none" else ():
        at = scope_N == scope
        A_N[at], temperature = balance_scope(A_N[at], tokens_N[at], used_N[at], name)
        temperatures += [temperature] if temperature else []
    if temperatures:
        metrics["credit/red_active"] = len(temperatures) / count
        metrics["credit/red_temperature"] = float(np.mean(temperatures))
    metrics["credit/token_mean_after"] = weighted_mean(A_N, tokens_N)
    return A_N, metrics


def balance_scope(A_N: Floats, tokens_N: Floats, used_N: Bools, name: str) -> tuple[Floats, float | None]:
    """Balance one scope. Return the new advantages and the temperature of RED, or None if RED was not applied."""
    if name == "red" and (temperature := red_temperature(A_N, tokens_N)):
        return red(A_N, temperature), temperature
    if name == "shift":
        return shift(A_N, tokens_N, used_N), None
    if name == "length-neutral":
        return length_neutral(A_N, tokens_N, used_N), None
    return A_N, None


def red(A: Floats, temperature: float) -> Floats:
    """Return A exp(A / T) for A of any shape (paper, RED).

    A low T amplifies positive advantages and dampens negative ones.
    """
    return A * np.exp(A / temperature)


def red_temperature(A: Floats, tokens: Floats) -> float | None:
    """Find the temperature T in [0.8, 100] at which the token-weighted sum of `red(A, T)` is 0.

    Returns None if the token-weighted sum of A is not negative. Both arrays have the same shape. The sum falls as T
    rises, so the bisection converges to the only root or, if there is none, to the nearest bound. Both bounds are
    absolute and assume rewards of order 1. Source: the paper's adaptive temperature.
    """
    if (tokens * A).sum() >= -EPS * (tokens * np.abs(A)).sum():  # the sign of a zero sum is rounding
        return None
    low, high = 0.8, 100.0
    while high - low > 0.05:  # 11 halvings; the paper's limit of 20 is never reached
        middle = (low + high) / 2
        too_low = (tokens * red(A, middle)).sum() > 0
        low, high = (middle, high) if too_low else (low, middle)
    return (low + high) / 2


def shift(A: Floats, tokens: Floats, used: Bools) -> Floats:
    """If the token-weighted mean advantage is negative, subtract it, so that the mean becomes 0.

    This is the paper's alternative to RED. The advantages of unused episodes are 0.
    """
    return np.where(used, A - min(weighted_mean(A, tokens), 0.0), 0.0)


def length_neutral(A: Floats, tokens: Floats, used: Bools) -> Floats:
    """Multiply each advantage by mean tokens / own tokens, so that no episode's total weight depends on its length."""
    return A * weighted_mean(tokens, used) / np.maximum(tokens, 1)


def weighted_mean(values: NDArray[Any], weights: NDArray[Any]) -> float:
    """Return the weighted mean, or 0 if all weights are 0. The weights broadcast to the values."""
    return pooled_mean([values], [weights])


def pooled_mean(values: Sequence[NDArray[Any]], weights: Sequence[NDArray[Any]]) -> float:
    """Return the weighted mean over all arrays together, or 0 if all weights are 0.

    Each weight array broadcasts to its value array.
    """
    weights = [np.broadcast_to(w, v.shape) for v, w in zip(values, weights, strict=True)]
    total = sum((v * w).sum() for v, w in zip(values, weights, strict=True))
    return float(total / (sum(w.sum() for w in weights) or 1.0))
