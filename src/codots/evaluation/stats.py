"""95% intervals of means, rates and ratios, including those of few or equal values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class MeanEstimate:
    """A mean or a ratio with its 95% interval."""

    mean: float
    interval: list[float]


def mean_ci(values: np.ndarray, least: float, greatest: float) -> MeanEstimate:
    """Return the mean of `values`, one per pack, and its 95% t interval. NaN values are ignored.

    The interval is clipped to the possible values, `least` to `greatest`. If all n values are equal, they have no
    spread to estimate. Half the width of the interval is then `greatest - least` times the width of the 95% Wilson
    interval of n successes in n trials. The mean and the interval are NaN if there are no values.
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
    """Return the 95% Wilson interval of a success rate, from one success or failure per pack; NaN if there are none."""
    if not len(hits):
        return [float("nan"), float("nan")]
    found = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return [round(float(found.low), 4), round(float(found.high), 4)]


def ratio_ci(above: np.ndarray, below: np.ndarray, draws: int = 2000) -> MeanEstimate:
    """Return the ratio of two means, and its 95% BCa bootstrap interval over packs (Efron 1987).

    `above` and `below` are paired by pack. Packs with a NaN are ignored. The interval is NaN if there are fewer than
    three packs, if `above` does not vary, or if the mean of `below` is 0, overall or in a resample.
    """
    present = ~(np.isnan(above) | np.isnan(below))
    above, below = above[present], below[present]

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        result: np.ndarray = a.mean(axis=axis) / b.mean(axis=axis)
        return result

    if len(above) < 3 or above.std() < 1e-9 or abs(below.mean()) < 1e-9:
        value = float(above.mean() / below.mean()) if len(above) and abs(below.mean()) > 1e-9 else float("nan")
        return MeanEstimate(value, [float("nan"), float("nan")])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # if the mean of `below` is 0 in a resample, the interval is not finite
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


def difference_ci(a: np.ndarray, b: np.ndarray, least: float, greatest: float) -> MeanEstimate:
    """Return the mean of `a` minus that of `b`, two independent samples of values from `least` to `greatest`.

    The 95% interval is made of those of the two means (MOVER, Zou and Donner 2008). They are Wilson intervals if all
    values are `least` or `greatest`, which is Newcombe's interval for a difference of two rates (1998), and otherwise t
    intervals. The estimate is NaN if a sample is empty.
    """
    if not (len(a) and len(b)):
        return MeanEstimate(float("nan"), [float("nan")] * 2)
    if np.isin(np.concatenate([a, b]), [least, greatest]).all():
        intervals = [least + (greatest - least) * np.array(rate_ci(values == greatest)) for values in (a, b)]
    else:
        intervals = [np.array(mean_ci(values, least, greatest).interval) for values in (a, b)]
    (low_a, high_a), (low_b, high_b) = intervals
    mean_a, mean_b = float(a.mean()), float(b.mean())
    low = mean_a - mean_b - np.hypot(mean_a - low_a, high_b - mean_b)
    high = mean_a - mean_b + np.hypot(high_a - mean_a, mean_b - low_b)
    return MeanEstimate(mean_a - mean_b, [round(float(low), 4), round(float(high), 4)])


def pooled_ci(estimates: Sequence[MeanEstimate], weights: Sequence[float]) -> MeanEstimate:
    """Return the weighted mean of independent estimates, and its 95% interval (MOVER). It is NaN if there are none."""
    if not estimates:
        return MeanEstimate(float("nan"), [float("nan")] * 2)
    shares = np.array(weights) / np.sum(weights)
    means = np.array([one.mean for one in estimates])
    low, high = np.array([one.interval for one in estimates]).T
    mean = float(shares @ means)
    below, above = (float(np.hypot.reduce(shares * distance)) for distance in (means - low, high - means))
    return MeanEstimate(mean, [round(mean - below, 4), round(mean + above, 4)])
