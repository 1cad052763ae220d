"""Tests of the intervals against textbook formulas, their coverage, and degenerate data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from codots.evaluation.stats import MeanEstimate, difference_ci, mean_ci, pooled_ci, rate_ci, ratio_ci


def test_the_interval_of_a_mean_is_a_t_interval():
    values = np.random.default_rng(0).normal(3, 2, 40)
    low, high = stats.t.interval(0.95, 39, loc=values.mean(), scale=stats.sem(values))
    estimate = mean_ci(values, -9.0, 9.0)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.interval == pytest.approx([low, high], abs=1e-4)


def test_nan_is_ignored():
    values = np.array([0.0, 1.0, np.nan, 0.5, np.nan])
    assert mean_ci(values, 0.0, 1.0) == mean_ci(values[[0, 1, 3]], 0.0, 1.0)


def test_no_values_give_nan():
    estimate = mean_ci(np.array([np.nan, np.nan]), 0.0, 1.0)
    assert np.isnan([estimate.mean, *estimate.interval]).all()


@given(
    st.integers(1, 600),
    st.sampled_from([0.0, 0.1, 0.3, 0.7, 0.9625, 1.0]),
    st.sampled_from([(0.0, 1.0), (0.0, 2.0), (-1.0, 1.0)]),
)
def test_equal_values_still_have_an_interval(n, value, bounds):
    """The values include tenths, whose mean is not exact in floating point."""
    least, greatest = bounds
    half = (greatest - least) * (1 - stats.binomtest(n, n).proportion_ci(method="wilson").low)
    expected = [max(least, value - half), min(greatest, value + half)]
    assert mean_ci(np.full(n, value), *bounds).interval == pytest.approx(expected, abs=2e-4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_an_interval_stays_within_the_bounds(values):
    low, high = mean_ci(np.array(values), 0.0, 1.0).interval
    assert 0 <= low <= high <= 1


def test_more_packs_make_a_narrower_interval():
    widths = [np.diff(mean_ci(np.tile([0.0, 1.0], n), -9.0, 9.0).interval)[0] for n in (2, 20, 200)]
    assert widths == sorted(widths, reverse=True)


def test_estimates_are_plain_floats():
    for estimate in (
        mean_ci(np.ones(5), 0.0, 1.0),
        mean_ci(np.arange(5.0), 0.0, 4.0),
        ratio_ci(np.arange(9.0), np.arange(9.0) + 2),
    ):
        assert [type(value) for value in (estimate.mean, *estimate.interval)] == [float] * 3


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 30), (7, 10), (500, 500)])
def test_the_interval_of_a_rate_is_a_wilson_interval(hits, n):
    """Newcombe 1998, method 3."""
    p, z = hits / n, stats.norm.ppf(0.975)
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    assert rate_ci(np.arange(n) < hits) == pytest.approx(expected, abs=1e-4)
    assert np.isnan(rate_ci(np.array([], dtype=bool))).all()


def test_the_interval_of_a_ratio_covers_the_truth():
    """In 95% of draws; fewer than 105 of 120 would have p < 0.001."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(120):
        below = rng.uniform(0.2, 1.0, 60)
        above = 0.4 * below + rng.normal(0, 0.3, 60)
        low, high = ratio_ci(above, below, draws=400).interval
        covered += low <= 0.4 <= high
    assert 105 <= covered < 120


def test_a_ratio_is_paired_by_pack():
    below = np.random.default_rng(2).uniform(0.1, 1.0, 50)
    noise = np.random.default_rng(3).normal(0, 0.01, 50)
    paired = ratio_ci(0.5 * below + noise, below)
    loose = ratio_ci(0.5 * below[::-1] + noise, below)
    assert np.diff(paired.interval)[0] < np.diff(loose.interval)[0] / 5


def test_the_same_values_give_the_same_interval():
    above, below = np.random.default_rng(4).uniform(0.1, 1.0, (2, 30))
    assert ratio_ci(above, below) == ratio_ci(above.copy(), below.copy())


def test_a_pack_with_a_missing_value_is_ignored():
    above, below = np.random.default_rng(5).uniform(0.1, 1.0, (2, 30))
    more = ratio_ci(np.append(above, [np.nan, 9.0]), np.append(below, [9.0, np.nan]))
    assert more == ratio_ci(above, below)


@pytest.mark.parametrize(
    ("above", "below", "mean"),
    [
        ([], [], np.nan),
        ([1.0], [2.0], 0.5),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0], 0.4),
        ([0.1] * 7, [0.2] * 7, 0.5),
        ([1.0, 2.0, 3.0], [1.0, -1.0, 0.0], np.nan),
        ([0.0, 0.9, 0.0, 0.1], [0.0, 0.0, 0.0, 1.0], 1.0),
    ],
)
def test_a_ratio_without_an_interval_has_nan_ends(above, below, mean):
    estimate = ratio_ci(np.array(above), np.array(below))
    assert estimate.mean == pytest.approx(mean, nan_ok=True)
    assert np.isnan(estimate.interval).all()


def test_the_interval_of_a_difference_of_rates_is_that_of_newcombe():
    """The examples of Newcombe (1998), table II, method 10, also for other rewards than 0 and 1."""
    for (hits_a, a), (hits_b, b), ends in (
        ((56, 70), (48, 80), [0.0524, 0.3339]),
        ((9, 10), (3, 10), [0.1705, 0.8090]),
        ((5, 56), (0, 29), [-0.0381, 0.1926]),
    ):
        sample_a, sample_b = np.arange(a) < hits_a, np.arange(b) < hits_b
        for low, high in ((0.0, 1.0), (-1.0, 3.0)):
            scaled = [low + (high - low) * sample.astype(float) for sample in (sample_a, sample_b)]
            estimate = difference_ci(*scaled, low, high)
            assert estimate.mean == pytest.approx((hits_a / a - hits_b / b) * (high - low))
            assert estimate.interval == pytest.approx(np.array(ends) * (high - low), abs=3e-4 * (high - low))


def test_the_interval_of_a_difference_of_means_is_close_to_that_of_welch():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.6, 0.1, 400), rng.normal(0.5, 0.2, 100)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert difference_ci(a, b, -9.0, 9.0).interval == pytest.approx([welch.low, welch.high], abs=1e-3)


def test_a_difference_from_no_values_is_not_known():
    for a, b in ((np.array([]), np.ones(3)), (np.ones(3), np.array([])), (np.array([]), np.array([]))):
        estimate = difference_ci(a, b, 0.0, 1.0)
        assert np.isnan([estimate.mean, *estimate.interval]).all()
    assert np.isnan(pooled_ci([], []).mean)


def test_pooled_estimates_are_weighted_and_narrower_than_each():
    one, two = MeanEstimate(0.2, [0.1, 0.4]), MeanEstimate(0.4, [0.3, 0.6])
    assert pooled_ci([one], [7]) == one
    pooled = pooled_ci([one, two], [300, 100])
    assert pooled.mean == pytest.approx(0.25)
    assert pooled.interval == pytest.approx([0.25 - np.hypot(0.075, 0.025), 0.25 + np.hypot(0.15, 0.05)], abs=1e-4)
