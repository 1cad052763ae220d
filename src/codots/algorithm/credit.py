"""Credit: the rewards of groups of lives become one advantage per episode.

Return, baseline, scale and balance are chosen independently and applied in this order. Arrays hold P packs, G lives of
each and E = 2S - 1 episodes of a life: first its S solves, then its S - 1 updates, each in the order of the tasks.

GAE over episodes has no name of its own: with the other lives' mean return at the same position as its value, it is,
term by term, "discounted" by gamma * lambda with "leave-one-out".
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codots.core.suggest import check_known

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

EPS = 1e-6  # a smaller difference between returns is rounding, not signal


@dataclass(frozen=True)
class Choices:
    """One estimator; `advantages` overrides any field by its name."""

    returns: str = "mean"
    baseline: str = "leave-one-out"
    scale: str = "none"
    balance: str = "none"
    window: int = 2  # entries that returns="window" averages; an update's own format reward is one of them
    gamma: float = 0.9  # discount per entry of returns="discounted"


OPTIONS = {
    "returns": ("mean", "sum", "window", "discounted", "coarse"),
    "baseline": ("group", "leave-one-out", "regression", "none"),
    "scale": ("none", "rms", "std"),
    "balance": ("none", "red", "shift", "length-neutral"),
}

PRESETS = {
    "paper": Choices(baseline="group", balance="red"),
    "codots": Choices(returns="sum", scale="rms"),
    "leave-one-out": Choices(),
    "sum": Choices(returns="sum"),
    "discounted": Choices(returns="discounted"),
    "length-neutral": Choices(balance="length-neutral"),
    "coarse": Choices(returns="coarse", baseline="group"),
}


@dataclass(frozen=True)
class Advantages:
    """One advantage per episode: solve (P, G, S), update (P, G, S-1), and flat metrics named `credit/...`."""

    solve_PGS: Floats
    update_PGS: Floats
    metrics: dict[str, float]


def advantages(
    solve_PGS: ArrayLike,
    update_PGS: ArrayLike,
    solve_tokens_PGS: ArrayLike | None = None,
    update_tokens_PGS: ArrayLike | None = None,
    preset: str = "paper",
    **choices: Any,
) -> Advantages:
    """Turn the rewards of groups of lives into one advantage per episode.

    Rewards: solve (P, G, S), update (P, G, S-1), where `update[..., j]` is the format reward of the rewrite made after
    task j. A life whose rewards are all NaN is missing: its advantages are 0 and it enters no mean; a group with fewer
    than two lives gives 0. Token counts (sampled, trained tokens per episode) have the shapes of the rewards.

    Metrics: `missing_lives`, `groups_used` (packs with two lives or more), `zero_signal_groups` (fraction of the solve
    groups, one per used pack and position, whose returns are all equal), `solve_abs`, `update_abs` (mean absolute
    advantages), `red_active` (0 or 1), `red_temperature` (only where active) and, given token counts,
    `token_mean_before` and `token_mean_after` the balance.

    Raises ValueError for a partly missing life, shapes that do not fit, unknown choices, and a balance without token
    counts. Source: preset "paper" is the paper's section on credit and RED; the others are ours.
    """
    chosen = choose(preset, **choices)
    rewards_PGE = join("rewards", solve_PGS, update_PGS)
    present_PG1 = lives_present(rewards_PGE)
    used_PG1 = present_PG1 & (present_PG1.sum(axis=1, keepdims=True) >= 2)
    S = rewards_PGE.shape[2] // 2 + 1
    tokens_PGE = token_counts(solve_tokens_PGS, update_tokens_PGS, used_PG1, S)
    if tokens_PGE is None and chosen.balance != "none":
        raise ValueError(f"balance {chosen.balance!r} weighs episodes by length: pass both arrays of token counts")

    solve_PGS, update_PGS = np.split(np.where(used_PG1, rewards_PGE, 0.0), [S], axis=2)
    returns_PGE = reward_to_go(solve_PGS, update_PGS, chosen.returns, chosen.window, chosen.gamma)
    centred_PGE = subtract_baseline(returns_PGE, earlier_rewards(solve_PGS), used_PG1, chosen.baseline)
    scaled_PGE = rescale(centred_PGE, returns_PGE, used_PG1, chosen.scale)
    balanced_PGE, metrics = balance(scaled_PGE, tokens_PGE, used_PG1, chosen.balance)

    spread_PS = np.abs(group_mean(returns_PGE[..., :S], used_PG1)).max(axis=1, initial=0.0)
    metrics |= {
        "credit/missing_lives": float((~present_PG1).sum()),
        "credit/groups_used": float(used_PG1.any(axis=1).sum()),
        "credit/zero_signal_groups": weighted_mean(spread_PS <= EPS, used_PG1.any(axis=1)),
        "credit/solve_abs": weighted_mean(np.abs(balanced_PGE[..., :S]), used_PG1),
        "credit/update_abs": weighted_mean(np.abs(balanced_PGE[..., S:]), used_PG1),
    }
    return Advantages(balanced_PGE[..., :S], balanced_PGE[..., S:], metrics)


def choose(preset: str, /, **choices: Any) -> Choices:
    """Return the preset with these choices in place of its own; ValueError names what is unknown."""
    check_known(preset, PRESETS, "preset")
    for name, value in choices.items():
        check_known(name, (field.name for field in fields(Choices)), "choice")
        if name in OPTIONS:
            check_known(value, OPTIONS[name], name)
        elif isinstance(value, str):
            raise ValueError(f"{name} must be a number, got {value!r}")
    chosen = replace(PRESETS[preset], **choices)
    if chosen.window < 1 or not 0 <= chosen.gamma <= 1:
        raise ValueError(f"need window >= 1 and 0 <= gamma <= 1, got {chosen.window} and {chosen.gamma}")
    return chosen


def join(what: str, solve_PGS: ArrayLike, update_PGS: ArrayLike) -> Floats:
    """Join solve (P, G, S) and update (P, G, S-1) to (P, G, E); ValueError for other shapes."""
    solve_PGS, update_PGS = np.asarray(solve_PGS, dtype=np.float64), np.asarray(update_PGS, dtype=np.float64)
    if solve_PGS.ndim != 3 or update_PGS.shape != (*solve_PGS.shape[:2], solve_PGS.shape[2] - 1):
        raise ValueError(f"{what} must be (P, G, S) and (P, G, S-1), got {solve_PGS.shape} and {update_PGS.shape}")
    return np.concatenate([solve_PGS, update_PGS], axis=2)


def lives_present(rewards_PGE: Floats) -> Bools:
    """Tell which lives are there, as (P, G, 1); ValueError for a partly missing life or an infinite reward."""
    missing_PGE = np.isnan(rewards_PGE)
    missing_PG1 = np.expand_dims(missing_PGE.all(axis=2), 2)
    for pack, life, _ in np.argwhere(missing_PGE & ~missing_PG1):
        raise ValueError(f"life {life} of pack {pack} is partly missing: its rewards must be all numbers or all NaN")
    if np.isinf(rewards_PGE).any():
        raise ValueError("rewards must be finite, or NaN for a whole missing life")
    return ~missing_PG1


def token_counts(solve: ArrayLike | None, update: ArrayLike | None, used_PG1: Bools, S: int) -> Floats | None:
    """Return the counts as (P, G, E), 0 where a life is not used, or None if not both are given."""
    if solve is None or update is None:
        return None
    tokens_PGE = join("token counts", solve, update)
    if tokens_PGE.shape != (*used_PG1.shape[:2], 2 * S - 1) or not (tokens_PGE[used_PG1[..., 0]] >= 0).all():
        raise ValueError("token counts must have the shapes of the rewards and be 0 or more")
    return np.where(used_PG1, tokens_PGE, 0.0)


def reward_to_go(solve_PGS: Floats, update_PGS: Floats, returns: str, window: int = 2, gamma: float = 0.9) -> Floats:
    """Sum up what each episode leads to, (P, G, E).

    Solve j counts the rewards of tasks j, j+1, ... and no update's; update j counts its own format reward and then
    those of tasks j+1, j+2, ...: S - j entries either way. "coarse" gives every episode the sum of all rewards of its
    life. Source: the paper's reward-to-go, of which it takes the mean.
    """
    S = solve_PGS.shape[2]
    if returns == "coarse":
        return np.repeat(join("rewards", solve_PGS, update_PGS).sum(axis=2)[..., None], 2 * S - 1, axis=2)
    entries = [solve_PGS[..., j:] for j in range(S)]
    entries += [np.dstack([update_PGS[..., j], solve_PGS[..., j + 1 :]]) for j in range(S - 1)]
    return np.stack([(v * entry_weights(v.shape[2], returns, window, gamma)).sum(axis=2) for v in entries], axis=2)


def entry_weights(n: int, returns: str, window: int, gamma: float) -> Floats:
    """Return the weight of each of the n entries of a reward-to-go; "sum" and "discounted" do not normalise."""
    k = np.arange(n)
    if returns in ("sum", "discounted"):
        return np.power(gamma if returns == "discounted" else 1.0, k)
    counted = k < (window if returns == "window" else n)
    return counted / np.sum(counted)


def subtract_baseline(returns_PGE: Floats, earlier_PGE: Floats, used_PG1: Bools, baseline: str) -> Floats:
    """Subtract from each return what its group leads one to expect, (P, G, E)."""
    if baseline == "none":
        return returns_PGE
    if baseline == "group":
        return group_mean(returns_PGE, used_PG1)
    if baseline == "leave-one-out":
        return leave_one_out(returns_PGE, used_PG1)
    return regression(returns_PGE, earlier_PGE, used_PG1)


def group_mean(values_PGE: Floats, used_PG1: Bools) -> Floats:
    """Subtract the mean of the group at the same kind and position, own value included (the paper's baseline)."""
    n_P11 = np.maximum(over_group(used_PG1), 1)
    mean_P1E = over_group(values_PGE * used_PG1) / n_P11
    return np.where(used_PG1, values_PGE - mean_P1E, 0.0)


def leave_one_out(values_PGE: Floats, used_PG1: Bools) -> Floats:
    """Subtract the mean of the *other* lives of the group, which is n / (n - 1) times `group_mean` (RLOO)."""
    n_P11 = over_group(used_PG1)
    return group_mean(values_PGE, used_PG1) * n_P11 / np.maximum(n_P11 - 1, 1)


def regression(returns_PGE: Floats, features_PGE: Floats, used_PG1: Bools) -> Floats:
    """Subtract the mean of the other lives, corrected for how far the life's feature lies from theirs.

    The slope of return on feature is fitted per kind and position within the groups of all *other* packs, so that no
    baseline depends on its own life's return; without another pack this is `leave_one_out`.
    """
    returns_PGE, features_PGE = leave_one_out(returns_PGE, used_PG1), leave_one_out(features_PGE, used_PG1)
    products_P1E, squares_P1E = over_group(returns_PGE * features_PGE), over_group(features_PGE**2)
    others_P1E = squares_P1E.sum(axis=0) - squares_P1E
    others_P1E[others_P1E <= EPS] = np.inf  # features that do not differ explain nothing: slope 0
    slope_P1E: Floats = (products_P1E.sum(axis=0) - products_P1E) / others_P1E
    return returns_PGE - slope_P1E * features_PGE


def earlier_rewards(solve_PGS: Floats) -> Floats:
    """Return the mean solve reward of a life before each of its episodes, (P, G, E); 0 before the first."""
    after_PGS = np.cumsum(solve_PGS, axis=2) / np.arange(1, solve_PGS.shape[2] + 1)
    before_PGS = np.concatenate([np.zeros_like(solve_PGS[..., :1]), after_PGS[..., :-1]], axis=2)
    return np.concatenate([before_PGS, after_PGS[..., :-1]], axis=2)


def rescale(A_PGE: Floats, returns_PGE: Floats, used_PG1: Bools, scale: str) -> Floats:
    """Divide by 1, by the RMS of the kind and position over all packs ("rms"), or by the group's std ("std", GRPO).

    The std is that of the returns, with n - 1 below the line, plus EPS; an RMS below EPS counts as EPS.
    """
    if scale == "none":
        return A_PGE
    if scale == "rms":
        square_E: Floats = (A_PGE**2).sum(axis=(0, 1)) / max(used_PG1.sum(), 1)
        return A_PGE / np.maximum(np.sqrt(square_E), EPS)
    squares_P1E = over_group(group_mean(returns_PGE, used_PG1) ** 2)
    return A_PGE / (np.sqrt(squares_P1E / np.maximum(over_group(used_PG1) - 1, 1)) + EPS)


def balance(A_PGE: Floats, tokens_PGE: Floats | None, used_PG1: Bools, name: str) -> tuple[Floats, dict[str, float]]:
    """Apply the balance of that name, and say in metrics what it found and left."""
    metrics = {"credit/red_active": 0.0}
    if tokens_PGE is None:
        return A_PGE, metrics
    metrics["credit/token_mean_before"] = weighted_mean(A_PGE, tokens_PGE)
    if name == "red" and (temperature := red_temperature(A_PGE, tokens_PGE)):
        A_PGE = red(A_PGE, temperature)
        metrics |= {"credit/red_active": 1.0, "credit/red_temperature": temperature}
    elif name == "shift":
        A_PGE = shift(A_PGE, tokens_PGE, used_PG1)
    elif name == "length-neutral":
        A_PGE = length_neutral(A_PGE, tokens_PGE, used_PG1)
    metrics["credit/token_mean_after"] = weighted_mean(A_PGE, tokens_PGE)
    return A_PGE, metrics


def red(A: Floats, temperature: float) -> Floats:
    """Return A exp(A / T), any shape: a low T makes more of good episodes and less of bad ones (paper, RED)."""
    return A * np.exp(A / temperature)


def red_temperature(A: Floats, tokens: Floats) -> float | None:
    """Find the T in [0.8, 100] whose `red` has a token-weighted sum of 0; None if that of A itself is not negative.

    Any equal shapes. The sum falls as T rises, so the bisection meets its one root or ends at the bound nearest to it.
    Both bounds are absolute: they expect rewards of order 1. Source: the paper's adaptive temperature.
    """
    if (tokens * A).sum() >= -EPS * (tokens * np.abs(A)).sum():  # the sign of a sum that is 0 is only rounding
        return None
    low, high = 0.8, 100.0
    while high - low > 0.05:  # 11 halvings; the paper's limit of 20 is never met
        middle = (low + high) / 2
        too_low = (tokens * red(A, middle)).sum() > 0
        low, high = (middle, high) if too_low else (low, middle)
    return (low + high) / 2


def shift(A_PGE: Floats, tokens_PGE: Floats, used_PG1: Bools) -> Floats:
    """Subtract the token-weighted mean if it is negative, which leaves it at 0 (the paper's other way)."""
    return np.where(used_PG1, A_PGE - min(weighted_mean(A_PGE, tokens_PGE), 0.0), 0.0)


def length_neutral(A_PGE: Floats, tokens_PGE: Floats, used_PG1: Bools) -> Floats:
    """Multiply by mean tokens / own tokens, so that no episode's total weight depends on its length."""
    return A_PGE * weighted_mean(tokens_PGE, used_PG1) / np.maximum(tokens_PGE, 1)


def over_group(values_PGE: NDArray[Any]) -> Floats:
    """Sum over the lives of each group, (P, 1, E)."""
    return np.asarray(values_PGE.sum(axis=1, keepdims=True), dtype=np.float64)


def weighted_mean(values: NDArray[Any], weights: NDArray[Any]) -> float:
    """Return the mean of values under weights that broadcast to them; 0 where all weights are 0."""
    weights = np.broadcast_to(weights, values.shape)
    return float((values * weights).sum() / (weights.sum() or 1.0))
