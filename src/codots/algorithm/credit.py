"""Credit assignment: turn the rewards of groups of lives into one advantage per episode.

Return, baseline, scale and balance are chosen independently and applied in this order. Arrays hold P packs, G lives of
each and E = 2S - 1 episodes of a life: first its S solves, then its S - 1 updates, each in task order. A mixture of
domains is a list of such blocks, which may differ in S. Return, baseline and scale are computed per block. The balance
is applied to all episodes of a scope together.

There is no preset for GAE over episodes. If the value is the mean return of the other lives at the same position, GAE
equals "leave-one-out" with returns that are "discounted" by gamma * lambda, term by term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codots.algorithm.balance import BALANCES, EPS, Bools, Floats, balance, pooled_mean
from codots.algorithm.baselines import BASELINES, SCALES, earlier_rewards, group_mean, rescale, subtract_baseline
from codots.core.suggest import check_known


@dataclass(frozen=True)
class Estimator:
    """Settings of one estimator. Keyword arguments of `advantages` override fields by name."""

    returns: str = "mean"
    baseline: str = "leave-one-out"
    scale: str = "none"
    balance: str = "none"
    scope: str = "step"  # episodes balanced together: a whole step (the paper's), a block, or a pack
    window: int = 2  # number of entries that returns="window" averages, an update's own format reward included
    gamma: float = 0.9  # discount per entry of returns="discounted"


OPTIONS = {
    "returns": ("mean", "sum", "window", "discounted", "coarse"),
    "baseline": BASELINES,
    "scale": SCALES,
    "balance": BALANCES,
    "scope": ("step", "world", "pack"),
}

PRESETS = {
    "paper": Estimator(baseline="group", balance="red"),
    "codots": Estimator(returns="sum", scale="rms"),
    "leave-one-out": Estimator(),
    "sum": Estimator(returns="sum"),
    "discounted": Estimator(returns="discounted"),
    "length-neutral": Estimator(balance="length-neutral"),
    "coarse": Estimator(returns="coarse", baseline="group"),
}


@dataclass(frozen=True)
class Rewards:
    """Rewards and counts of sampled tokens of one block, with P packs of G lives.

    Arrays of solves have shape (P, G, S), arrays of updates (P, G, S-1). A life whose rewards are all NaN is missing
    (lost to an infrastructure failure).
    """

    solve_PGS: ArrayLike
    update_PGS: ArrayLike
    solve_tokens_PGS: ArrayLike | None = None
    update_tokens_PGS: ArrayLike | None = None


@dataclass(frozen=True)
class Advantages:
    """One advantage per episode of a block: solve (P, G, S), update (P, G, S-1)."""

    solve_PGS: Floats
    update_PGS: Floats
    metrics: dict[str, float]
    """Flat metrics named `credit/...`, over all blocks of the call."""


def advantages(
    solve_PGS: ArrayLike,
    update_PGS: ArrayLike,
    solve_tokens_PGS: ArrayLike | None = None,
    update_tokens_PGS: ArrayLike | None = None,
    preset: str = "paper",
    **overrides: Any,
) -> Advantages:
    """Turn the rewards of groups of lives into one advantage per episode: `block_advantages` for a single block."""
    block = Rewards(solve_PGS, update_PGS, solve_tokens_PGS, update_tokens_PGS)
    return block_advantages([block], preset, **overrides)[0]


def block_advantages(blocks: Sequence[Rewards], preset: str = "paper", **overrides: Any) -> list[Advantages]:
    """Turn the rewards of groups of lives, block by block, into one advantage per episode.

    Rewards of solves have shape (P, G, S), rewards of updates (P, G, S-1): `update[..., j]` is the format reward of the
    rewrite after task j. A life whose rewards are all NaN is missing: its advantages are 0 and it is excluded from all
    means. All advantages of a group with fewer than two lives are 0. Token counts (sampled, trained tokens per episode)
    have the shapes of the rewards.

    Metrics, over all blocks: `missing_lives`, `groups_used` (packs with two lives or more), `zero_signal_groups`
    (fraction of the solve groups whose returns are all equal; each used pack has one such group per position),
    `solve_abs`, `update_abs` (mean absolute advantages), `red_active` (fraction of the scopes to which RED was applied)
    and `red_temperature` (mean over these scopes). If token counts are given, also `token_mean_before` and
    `token_mean_after` (token-weighted mean advantage before and after the balance).

    Raises ValueError for a partly missing life, an infinite reward, mismatched shapes or unknown options, and if a
    balance is used but token counts are missing. Source: preset "paper" is the paper's section on credit and RED; the
    other presets are ours.
    """
    estimator = choose(preset, **overrides)
    credited, metrics = balanced([Credited.of(rewards, estimator) for rewards in blocks], estimator)
    metrics |= summary(credited)
    return [Advantages(block.A_PGE[..., : block.tasks], block.A_PGE[..., block.tasks :], metrics) for block in credited]


@dataclass(frozen=True)
class Credited:
    """Intermediate result of one block: advantages before balance, and inputs of balance and metrics."""

    A_PGE: Floats
    returns_PGE: Floats
    tokens_PGE: Floats | None
    present_PG1: Bools
    used_PG1: Bools

    @classmethod
    def of(cls, rewards: Rewards, estimator: Estimator) -> Credited:
        """Apply return, baseline and scale to the rewards of a block."""
        rewards_PGE = join("rewards", rewards.solve_PGS, rewards.update_PGS)
        present_PG1 = lives_present(rewards_PGE)
        used_PG1 = present_PG1 & (present_PG1.sum(axis=1, keepdims=True) >= 2)
        S = rewards_PGE.shape[2] // 2 + 1
        tokens_PGE = token_counts(rewards.solve_tokens_PGS, rewards.update_tokens_PGS, used_PG1, S)
        solve_PGS, update_PGS = np.split(np.where(used_PG1, rewards_PGE, 0.0), [S], axis=2)
        returns_PGE = reward_to_go(solve_PGS, update_PGS, estimator.returns, estimator.window, estimator.gamma)
        centered_PGE = subtract_baseline(returns_PGE, earlier_rewards(solve_PGS), used_PG1, estimator.baseline)
        scaled_PGE = rescale(centered_PGE, returns_PGE, used_PG1, estimator.scale)
        return cls(scaled_PGE, returns_PGE, tokens_PGE, present_PG1, used_PG1)

    @property
    def tasks(self) -> int:
        """Number of tasks of a life, S."""
        return int(self.A_PGE.shape[2]) // 2 + 1


def summary(blocks: Sequence[Credited]) -> dict[str, float]:
    """Return the metrics over all blocks, except those of the balance."""
    spread: list[Floats] = [
        np.abs(group_mean(b.returns_PGE[..., : b.tasks], b.used_PG1)).max(axis=1, initial=0.0) for b in blocks
    ]
    used, lives = [np.asarray(b.used_PG1.any(axis=1)) for b in blocks], [b.used_PG1 for b in blocks]
    return {
        "credit/missing_lives": float(sum((~b.present_PG1).sum() for b in blocks)),
        "credit/groups_used": float(sum(used_P1.sum() for used_P1 in used)),
        "credit/zero_signal_groups": pooled_mean([np.where(spread_PS <= EPS, 1.0, 0.0) for spread_PS in spread], used),
        "credit/solve_abs": pooled_mean([np.abs(b.A_PGE[..., : b.tasks]) for b in blocks], lives),
        "credit/update_abs": pooled_mean([np.abs(b.A_PGE[..., b.tasks :]) for b in blocks], lives),
    }


def choose(preset: str, /, **overrides: Any) -> Estimator:
    """Return the preset with these overrides. Raises ValueError for unknown names or invalid values."""
    check_known(preset, PRESETS, "preset")
    for name, value in overrides.items():
        check_known(name, (field.name for field in fields(Estimator)), "credit option")
        if name in OPTIONS:
            check_known(value, OPTIONS[name], name)
        elif isinstance(value, str):
            raise ValueError(f"{name} must be a number, got {value!r}")
    estimator = replace(PRESETS[preset], **overrides)
    if estimator.window < 1 or not 0 <= estimator.gamma <= 1:
        raise ValueError(f"need window >= 1 and 0 <= gamma <= 1, got {estimator.window} and {estimator.gamma}")
    return estimator


def join(what: str, solve_PGS: ArrayLike, update_PGS: ArrayLike) -> Floats:
    """Join solve (P, G, S) and update (P, G, S-1) to (P, G, E). Raises ValueError for other shapes."""
    solve_PGS, update_PGS = np.asarray(solve_PGS, dtype=np.float64), np.asarray(update_PGS, dtype=np.float64)
    if solve_PGS.ndim != 3 or update_PGS.shape != (*solve_PGS.shape[:2], solve_PGS.shape[2] - 1):
        raise ValueError(f"{what} must be (P, G, S) and (P, G, S-1), got {solve_PGS.shape} and {update_PGS.shape}")
    return np.concatenate([solve_PGS, update_PGS], axis=2)


def lives_present(rewards_PGE: Floats) -> Bools:
    """Return which lives are present, (P, G, 1). Raises ValueError for a partly missing life or an infinite reward."""
    missing_PGE = np.isnan(rewards_PGE)
    missing_PG1 = np.expand_dims(missing_PGE.all(axis=2), 2)
    for pack, life, _ in np.argwhere(missing_PGE & ~missing_PG1):
        raise ValueError(f"life {life} of pack {pack} is partly missing: its rewards must be all numbers or all NaN")
    if np.isinf(rewards_PGE).any():
        raise ValueError("rewards must be finite, or NaN for a whole missing life")
    return ~missing_PG1


def token_counts(solve: ArrayLike | None, update: ArrayLike | None, used_PG1: Bools, S: int) -> Floats | None:
    """Join token counts to (P, G, E), with 0 for unused lives. Returns None unless both arrays are given.

    Raises ValueError for other shapes or negative counts.
    """
    if solve is None or update is None:
        return None
    tokens_PGE = join("token counts", solve, update)
    if tokens_PGE.shape != (*used_PG1.shape[:2], 2 * S - 1) or not (tokens_PGE[used_PG1[..., 0]] >= 0).all():
        raise ValueError("token counts must have the shapes of the rewards and be 0 or more")
    return np.where(used_PG1, tokens_PGE, 0.0)


def reward_to_go(solve_PGS: Floats, update_PGS: Floats, returns: str, window: int = 2, gamma: float = 0.9) -> Floats:
    """Compute the return of each episode from its own and later rewards, (P, G, E).

    The return of solve j includes the rewards of tasks j, j+1, ... and no format reward. The return of update j
    includes its own format reward and the rewards of tasks j+1, j+2, ... Both have S - j entries. With "coarse", the
    return of every episode is the sum of all rewards of the life. Source: the reward-to-go of the paper, which averages
    the entries.
    """
    S = solve_PGS.shape[2]
    if returns == "coarse":
        return np.repeat(join("rewards", solve_PGS, update_PGS).sum(axis=2)[..., None], 2 * S - 1, axis=2)
    entries = [solve_PGS[..., j:] for j in range(S)]
    entries += [np.dstack([update_PGS[..., j], solve_PGS[..., j + 1 :]]) for j in range(S - 1)]
    return np.stack([(v * entry_weights(v.shape[2], returns, window, gamma)).sum(axis=2) for v in entries], axis=2)


def entry_weights(n: int, returns: str, window: int, gamma: float) -> Floats:
    """Return the weight of each of the n entries of a reward-to-go.

    The weights add up to 1, except for "sum" and "discounted".
    """
    k = np.arange(n)
    if returns in ("sum", "discounted"):
        return np.power(gamma if returns == "discounted" else 1.0, k)
    counted = k < (window if returns == "window" else n)
    return counted / np.sum(counted)


def balanced(blocks: Sequence[Credited], estimator: Estimator) -> tuple[list[Credited], dict[str, float]]:
    """Apply the balance to all blocks. Return the new blocks, and metrics from before and after."""
    if any(block.tokens_PGE is None for block in blocks):
        if estimator.balance != "none":
            raise ValueError(
                f"balance {estimator.balance!r} weighs episodes by length: pass both arrays of token counts"
            )
        return list(blocks), {"credit/red_active": 0.0}
    A_N, metrics = balance(*flat(blocks), scopes(blocks, estimator.scope), estimator.balance)
    parts = np.split(A_N, np.cumsum([block.A_PGE.size for block in blocks])[:-1])
    return [replace(b, A_PGE=part.reshape(b.A_PGE.shape)) for b, part in zip(blocks, parts, strict=True)], metrics


def flat(blocks: Sequence[Credited]) -> tuple[Floats, Floats, Bools]:
    """Return the concatenated advantages, token counts and used flags of all episodes, (N,) each."""
    A = [block.A_PGE.ravel() for block in blocks]
    tokens = [block.tokens_PGE.ravel() for block in blocks if block.tokens_PGE is not None]
    used = [np.broadcast_to(block.used_PG1, block.A_PGE.shape).ravel() for block in blocks]
    return np.concatenate(A), np.concatenate(tokens), np.concatenate(used)


def scopes(blocks: Sequence[Credited], scope: str) -> NDArray[np.int64]:
    """Return the scope index of each episode, (N,), from 0."""
    numbers, first = [], 0
    for i, block in enumerate(blocks):
        P, G, E = block.A_PGE.shape
        numbers.append({"step": np.zeros(P, int), "world": np.full(P, i), "pack": first + np.arange(P)}[scope])
        numbers[-1] = np.repeat(numbers[-1], G * E)
        first += P
    return np.concatenate(numbers)
