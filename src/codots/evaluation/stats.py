"""95% intervals of means, rates and ratios, also for few or equal values."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class MeanEstimate:
    """A mean or a ratio with its 95% interval."""

    mean: float
    interval: list[float]


def mean_ci(values: np.ndarray, least: float, greatest: float) -> MeanEstimate:
    """Return the mean and t interval of one value per pack, ignoring NaN; the interval is clipped to possible values.

    Equal values have no spread to estimate. Their interval reaches, on each side, as far as the Wilson interval of n
    successes in n trials is wide, times `greatest - least`.
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if n == 0:
        return MeanEstimate(float("nan"), [float("nan"), float("nan")])
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if n > 1 else 0.0
    if spread > 1e-9:  # anything smaller is rounding error
        half = float(stats.t.ppf(0.975, n - 1)) * spread / n**0.5
    else:
        half = (greatest - least) * (1 - float(stats.binomtest(n, n).proportion_ci(method="wilson").low))
    return MeanEstimate(mean, [round(max(least, mean - half), 4), round(min(greatest, mean + half), 4)])


def rate_ci(hits: np.ndarray) -> list[float]:
    """Return the Wilson interval of a success rate, with one hit or miss per pack."""
    if not len(hits):
        return [float("nan"), float("nan")]
    found = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return [round(float(found.low), 4), round(float(found.high), 4)]


def ratio_ci(above: np.ndarray, below: np.ndarray, draws: int = 2000) -> MeanEstimate:
    """Return the ratio of two means paired by pack, with a BCa bootstrap interval over packs (Efron 1987)."""
    present = ~(np.isnan(above) | np.isnan(below))
    above, below = above[present], below[present]

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        result: np.ndarray = a.mean(axis=axis) / b.mean(axis=axis)
        return result

    if len(above) < 3 or above.std() < 1e-9 or abs(below.mean()) < 1e-9:
        value = float(above.mean() / below.mean()) if len(above) and abs(below.mean()) > 1e-9 else float("nan")
        return MeanEstimate(value, [float("nan"), float("nan")])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample may have a mean of 0 in `below`; there is no interval then
        found = stats.bootstrap(
            (above, below),
            ratio,
            paired=True,
            vectorized=True,
            n_resamples=draws,
            method="BCa",
            rng=np.random.default_rng(0),
        )
    ends = [round(float(end), 4) for end in found.confidence_interval]
    return MeanEstimate(float(ratio(above, below)), ends if np.isfinite(ends).all() else [float("nan")] * 2)
