"""Intervals: coverage on draws whose mean is known, agreement with t, Welch and Fieller, and what has no interval."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mechint.base.errors import UsageError
from mechint.stats import intervals
from mechint.stats.intervals import Interval, crossed_interval, difference_interval, mean_interval, ratio_interval

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
DRAWS = 6000
# Every shape with its mean; two standard errors of so many draws are 0.6 percentage points.
SHAPES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0),
    "gamma": (lambda rng, size: rng.gamma(0.5, size=size), 0.5),
    "lognormal": (lambda rng, size: rng.lognormal(size=size), float(np.exp(0.5))),
    "beta": (lambda rng, size: rng.beta(0.3, 0.9, size=size), 0.25),
    "uniform": (lambda rng, size: rng.uniform(size=size), 0.5),
}
SKEWED = [name for name in SHAPES if name != "normal"]


def _share(interval: Interval, mean: float) -> float:
    return float(np.mean((interval.low <= mean) & (interval.high >= mean)))


@pytest.mark.parametrize("units", [6, 8, 16, 32])
def test_of_normal_draws_95_percent_are_covered(units: int) -> None:
    values = np.random.default_rng(units).normal(3.0, 2.0, (DRAWS, units))
    assert 0.93 < _share(mean_interval(values), 3.0) < 0.975
    assert 0.86 < _share(mean_interval(values, level=0.9), 3.0) < 0.94


@pytest.mark.parametrize("shape", SKEWED)
def test_of_skewed_and_bounded_draws_of_eight_units_92_percent_are_covered(shape: str) -> None:
    draw, mean = SHAPES[shape]
    values = draw(np.random.default_rng(1), (DRAWS, 8))
    assert _share(mean_interval(values), mean) > 0.915
    assert _share(mean_interval(-values), -mean) > 0.915


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sizes", [(8, 8), (8, 32)])
def test_differences_are_covered_with_unequal_numbers_too(shape: str, sizes: tuple[int, int]) -> None:
    draw, _ = SHAPES[shape]
    rng = np.random.default_rng(2)
    share = _share(difference_interval(*(draw(rng, (DRAWS, size)) for size in sizes)), 0.0)
    assert share > 0.915
    assert shape != "normal" or share < 0.97


@pytest.mark.parametrize(("units", "items"), [(8, 4), (8, 8), (16, 8)])
@pytest.mark.parametrize("shape", ["normal", "exponential"])
def test_crossed_designs_are_covered(units: int, items: int, shape: str) -> None:
    draw, mean = SHAPES[shape]
    rng = np.random.default_rng(units * items)
    parts = [draw(rng, (2000, *size)) - mean for size in ((units, 1), (1, items), (units, items))]
    values = parts[0] + parts[1] + 0.5 * parts[2]
    share = _share(crossed_interval(values), 0.0)
    assert share > 0.92
    assert shape != "normal" or share < 0.985
    assert _share(mean_interval(values.mean(-1)), 0.0) < 0.91, "over units alone, wordings are taken for all there are"


def test_symmetric_values_have_the_interval_of_t() -> None:
    values = np.array([[-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], [7.0, 8.0, 9.0, 11.0, 12.0, 13.0]])
    interval = mean_interval(values)
    low, high = scipy_stats.t.interval(0.95, 5, values.mean(1), scipy_stats.sem(values, axis=1))
    np.testing.assert_allclose(interval.low, low)
    np.testing.assert_allclose(interval.high, high)
    assert interval.n == 6


def test_skewness_lengthens_its_own_side_and_shortens_the_other_a_little() -> None:
    values = np.random.default_rng(3).exponential(size=(500, 8))
    interval, means = mean_interval(values), values.mean(1)
    low, high = scipy_stats.t.interval(0.95, 7, means, scipy_stats.sem(values, axis=1))
    assert (means - interval.low >= 0.98 * (means - low) - 1e-12).all()
    assert (interval.high - means >= 0.98 * (high - means) - 1e-12).all()
    right = scipy_stats.skew(values, axis=1) > 1
    assert (interval.high[right] > high[right] + 1e-3).all()
    assert (interval.high - interval.low > 0.99 * (high - low)).all()


def test_intervals_move_scale_and_turn_with_the_values() -> None:
    values = np.random.default_rng(4).lognormal(size=9)
    interval = mean_interval(values)
    moved = mean_interval(5 + 2 * values)
    turned = mean_interval(-values)
    assert moved.low == pytest.approx(5 + 2 * interval.low)
    assert moved.high == pytest.approx(5 + 2 * interval.high)
    assert (turned.low, turned.high) == pytest.approx((-interval.high, -interval.low))
    assert mean_interval(values[::-1]).high == pytest.approx(interval.high)


def test_a_difference_of_normal_like_sets_has_the_interval_of_welch() -> None:
    first, second = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([-3.0, 0.0, 3.0])
    interval = difference_interval(first, second)
    welch = scipy_stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high))
    assert interval.n == 3


def test_difference_of_independent_sets_is_wider_than_that_of_pairs() -> None:
    generator = np.random.default_rng(3)
    unit_effect = generator.normal(size=20) * 5
    first, second = unit_effect + 1 + generator.normal(size=20) * 0.1, unit_effect
    unpaired = difference_interval(first, second)
    paired = mean_interval(first - second)
    assert unpaired.mean == pytest.approx(paired.mean)
    assert paired.excludes_zero() == 1
    assert unpaired.excludes_zero() == 0


def test_difference_accepts_sets_of_different_sizes() -> None:
    interval = difference_interval(np.ones((2, 3, 6)), np.zeros((2, 3, 4)))
    assert interval.low.shape == (2, 3)
    assert interval.n == 4
    assert (interval.low == 1).all()
    assert (interval.high == 1).all()
    assert np.isnan(difference_interval(np.ones(3), np.ones(1)).low)


def test_crossed_interval_is_wider_than_one_over_units_when_items_differ() -> None:
    values = np.random.default_rng(4).normal(size=(1, 6)) + np.zeros((30, 1))
    crossed, units = crossed_interval(values), mean_interval(values.mean(axis=1))
    assert units.high - units.low == pytest.approx(0)
    assert crossed.high - crossed.low > 0.5


def test_crossed_interval_is_never_narrower_than_one_over_units() -> None:
    values = np.random.default_rng(5).exponential(size=(300, 8, 3))
    crossed, units = crossed_interval(values), mean_interval(values.mean(-1))
    assert (crossed.low <= units.low).all()
    assert (crossed.high >= units.high).all()
    assert crossed.n == 8


def test_crossed_difference_shares_its_units() -> None:
    rng = np.random.default_rng(5)
    unit = rng.normal(scale=10, size=(20, 1))
    first, second = unit + rng.normal(size=(20, 8)) + 1, unit + rng.normal(size=(20, 3))
    interval = crossed_interval(first, second)
    assert interval.mean == pytest.approx(first.mean() - second.mean())
    assert 0 < interval.high - interval.low < 3, "the spread of the units cancels"
    same = crossed_interval(first, first)
    assert same.mean == 0
    assert same.low < 0 < same.high


@pytest.mark.parametrize(("shape", "other"), [((1, 4), None), ((4, 1), None), ((4, 4), (3, 4))])
def test_crossed_interval_refuses_tables_without_spread(shape, other) -> None:
    with pytest.raises(UsageError, match="same units"):
        crossed_interval(np.zeros(shape), None if other is None else np.zeros(other))


def test_missing_values_and_single_units_give_nan_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = mean_interval(np.array([[1.0, np.nan, 2.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]))
        single = mean_interval(np.array([[5.0]]))
        nobody = mean_interval(np.empty((2, 0)))
        crossed = crossed_interval(np.array([[1.0, np.nan], [2.0, 3.0]]))
    assert np.isnan([interval.mean[0], interval.low[0], interval.high[0]]).all()
    assert (interval.low[1], interval.high[1]) == (1.0, 1.0)
    assert interval.low[2] < interval.high[2]
    assert single.mean[0] == 5.0
    assert np.isnan([single.low[0], single.high[0]]).all()
    assert np.isnan(nobody.mean).all()
    assert np.isnan([crossed.mean, crossed.low]).all()


def test_equal_units_have_no_width_to_the_last_bit() -> None:
    values = np.full((2, 7), 0.1)
    values[1] = 0.0
    for interval in (mean_interval(values), crossed_interval(np.stack([values, values], axis=-1))):
        assert interval.low.tolist() == interval.mean.tolist() == interval.high.tolist() == [0.1, 0.0]


def test_probabilities_stay_within_bounds_and_all_right_is_not_certainty() -> None:
    rare = np.array([0.0, 0.01, 0.0, 0.02, 0.9, 0.0])
    assert mean_interval(rare).low < 0
    bounded = mean_interval(rare, within=intervals.PROBABILITY)
    assert (bounded.low, bounded.high) == (0.0, mean_interval(rare).high)
    shares = np.array([[1.0] * 8, [0.0] * 8, [0.25] * 8])
    interval = mean_interval(shares, within=intervals.PROBABILITY)
    exact = intervals.binomial_interval(8, 8)
    assert (interval.low[0], interval.high[0]) == pytest.approx((float(exact.low), 1.0))
    assert (interval.low[1], interval.high[1]) == pytest.approx((0.0, 1 - float(exact.low)))
    assert (interval.low[2], interval.high[2]) == (0.25, 0.25)
    assert mean_interval(np.ones(8) * (1 + 1e-7), within=intervals.PROBABILITY).high == 1
    with pytest.raises(UsageError, match="within the bounds"):
        mean_interval(np.array([0.5, 1.2]), within=intervals.PROBABILITY)
    crossed = crossed_interval(np.ones((8, 4)), within=intervals.PROBABILITY)
    assert (float(crossed.low), float(crossed.high)) == pytest.approx((float(exact.low), 1.0))


def test_ratios_are_of_means_and_need_something_to_take_a_part_of() -> None:
    shifts = np.array([4.0, 5.0, 6.0, 5.0])
    exact = ratio_interval(shifts * 0.3, shifts)
    assert (exact.mean, exact.low, exact.high) == pytest.approx((0.3, 0.3, 0.3))
    uneven = ratio_interval(np.array([1.0, 0.0, 2.0, 1.0, 2.0]), np.array([4.0, 2.0, 6.0, 5.0, 5.0]))
    assert uneven.mean == pytest.approx(6 / 22)
    assert np.isnan(ratio_interval(shifts, np.array([1.0, -1.0, 2.0, -2.0])).mean)
    assert np.isnan(ratio_interval(shifts[:1], shifts[:1]).mean)


def test_ratios_are_covered() -> None:
    rng = np.random.default_rng(6)
    shifts = rng.normal(9, 1.0, (4000, 8))
    interval = ratio_interval(0.4 * shifts + rng.exponential(size=shifts.shape) - 1, shifts)
    assert np.isfinite(interval.mean).all()
    assert 0.93 < _share(interval, 0.4) < 0.985


def test_excludes_zero_has_a_sign_and_nan_excludes_nothing() -> None:
    bounds = np.array([[0.1, 0.3], [-0.3, -0.1], [-0.1, 0.1], [np.nan, np.nan]])
    interval = Interval(bounds.mean(axis=1), bounds[:, 0], bounds[:, 1], 8)
    assert interval.excludes_zero().tolist() == [1, -1, 0, 0]


def test_binomial_interval_is_clopper_pearson() -> None:
    interval = intervals.binomial_interval(3, 20)
    assert interval.mean == pytest.approx(0.15)
    assert interval.n == 20
    assert interval.low == pytest.approx(scipy_stats.beta.ppf(0.025, 3, 18))
    assert interval.high == pytest.approx(scipy_stats.beta.ppf(0.975, 4, 17))
    assert intervals.binomial_interval(0, 10).low == 0.0
    assert intervals.binomial_interval(10, 10).high == 1.0


def test_correlation_intervals_stay_within_one_and_need_an_exchange() -> None:
    interval = intervals.correlation_interval(0.9, 12)
    assert 0.6 < interval.low < 0.9 < interval.high < 1
    wide = intervals.correlation_interval(0.9, 5)
    assert wide.low < interval.low
    assert np.isnan([intervals.correlation_interval(1.0, 12).low, intervals.correlation_interval(0.5, 3).low]).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval(np.ones(3), level=95.0),
        lambda: mean_interval(np.ones(3), within=(1.0, 0.0)),
        lambda: crossed_interval(np.ones((3, 3)), level=0.0),
        lambda: intervals.binomial_interval(5, 4),
        lambda: intervals.binomial_interval(0, 0),
    ],
)
def test_bad_arguments_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        call()
