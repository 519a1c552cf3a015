"""Intervals and tests against brute force, scipy, and coverage on data whose mean is known."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from mechint import stats
from mechint.errors import UsageError


def _naive_bounds(values: np.ndarray, seed: int, resamples: int = 2000) -> tuple[float, float]:
    draws = np.random.default_rng(seed).choice(values, (resamples, values.size)).mean(axis=1)
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def test_bootstrap_agrees_with_a_loop_up_to_resampling_noise() -> None:
    values = np.random.default_rng(0).normal(size=40)
    interval = stats.bootstrap_mean(values, resamples=20_000)
    low, high = _naive_bounds(values, seed=9, resamples=20_000)
    assert interval.mean == pytest.approx(values.mean())
    assert (float(interval.low), float(interval.high)) == pytest.approx((low, high), abs=0.02)
    assert interval.low < interval.mean < interval.high
    assert interval.n == 40


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    values = np.random.default_rng(1).normal(loc=3.0, size=(400, 30))
    interval = stats.bootstrap_mean(values, resamples=500)
    covered = np.mean((interval.low <= 3.0) & (interval.high >= 3.0))
    assert 0.89 < covered < 0.98


def test_bootstrap_is_seeded_and_independent_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=(5, 8))
    first, again, other = (stats.bootstrap_mean(values, seed=seed) for seed in (0, 0, 1))
    monkeypatch.setattr(stats, "_BATCH_VALUES", 400)
    batched = stats.bootstrap_mean(values, seed=0)
    np.testing.assert_array_equal(first.low, again.low)
    np.testing.assert_array_equal(first.high, batched.high)
    assert (first.low != other.low).any()


def test_crossed_bootstrap_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(12, 1)) + rng.normal(size=(1, 5)) + rng.normal(size=(12, 5))
    found = stats.bootstrap_crossed(values, resamples=20_000)
    draws = [values[rng.integers(12, size=12)][:, rng.integers(5, size=5)].mean() for _ in range(20_000)]
    assert found.mean == pytest.approx(values.mean())
    assert (float(found.low), float(found.high)) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.04)
    assert found.n == 12


def test_crossed_interval_is_wider_than_one_over_units_when_items_differ() -> None:
    values = np.random.default_rng(4).normal(size=(1, 6)) + np.zeros((30, 1))
    crossed, units = stats.bootstrap_crossed(values), stats.bootstrap_mean(values.mean(axis=1))
    assert units.high - units.low == pytest.approx(0)
    assert crossed.high - crossed.low > 0.5


def test_crossed_difference_shares_its_units() -> None:
    rng = np.random.default_rng(5)
    unit = rng.normal(scale=10, size=(20, 1))
    first, second = unit + rng.normal(size=(20, 8)) + 1, unit + rng.normal(size=(20, 3))
    found = stats.bootstrap_crossed(first, second)
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert 0 < found.high - found.low < 3, "the spread of the units cancels"
    same = stats.bootstrap_crossed(first, first)
    assert same.mean == 0


def test_crossed_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    hits = 0
    for trial in range(200):
        values = rng.normal(size=(20, 1)) + rng.normal(size=(1, 20)) + rng.normal(size=(20, 20)) + 3
        found = stats.bootstrap_crossed(values, resamples=400, seed=trial)
        hits += bool(found.low <= 3 <= found.high)
    assert 0.88 < hits / 200 < 1


@pytest.mark.parametrize(("shape", "other"), [((1, 4), None), ((4, 1), None), ((4, 4), (3, 4))])
def test_crossed_bootstrap_refuses_tables_it_cannot_resample(shape, other) -> None:
    with pytest.raises(UsageError, match="same units"):
        stats.bootstrap_crossed(np.zeros(shape), None if other is None else np.zeros(other))


def test_missing_values_and_single_units_give_nan_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = stats.bootstrap_mean(np.array([[1.0, np.nan, 2.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]]))
        single = stats.bootstrap_mean(np.array([[5.0]]))
    assert np.isnan([interval.mean[0], interval.low[0], interval.high[0]]).all()
    assert (interval.low[1], interval.high[1]) == (1.0, 1.0)
    assert interval.low[2] < interval.high[2]
    assert single.mean[0] == 5.0
    assert np.isnan([single.low[0], single.high[0]]).all()


def test_excludes_zero_has_a_sign_and_nan_excludes_nothing() -> None:
    bounds = np.array([[0.1, 0.3], [-0.3, -0.1], [-0.1, 0.1], [np.nan, np.nan]])
    interval = stats.Interval(bounds.mean(axis=1), bounds[:, 0], bounds[:, 1], 8)
    assert interval.excludes_zero().tolist() == [1, -1, 0, 0]


def test_difference_of_independent_sets_is_wider_than_that_of_pairs() -> None:
    generator = np.random.default_rng(3)
    unit_effect = generator.normal(size=20) * 5
    first, second = unit_effect + 1 + generator.normal(size=20) * 0.1, unit_effect
    unpaired = stats.bootstrap_difference(first, second)
    paired = stats.bootstrap_mean(first - second)
    assert unpaired.mean == pytest.approx(paired.mean)
    assert paired.excludes_zero() == 1
    assert unpaired.excludes_zero() == 0


def test_difference_accepts_sets_of_different_sizes() -> None:
    interval = stats.bootstrap_difference(np.ones((2, 3, 6)), np.zeros((2, 3, 4)))
    assert interval.low.shape == (2, 3)
    assert interval.n == 4
    assert (interval.low == 1).all()
    assert (interval.high == 1).all()


def test_sign_flip_is_exact() -> None:
    values = np.array([0.3, 1.2, -0.4, 0.9, 0.8, 0.1, 0.5])
    flips = np.array(list(itertools.product([-1, 1], repeat=values.size)))
    exact = np.mean(np.abs((flips * values).mean(axis=1)) >= abs(values.mean()) - 1e-12)
    assert stats.sign_flip_test(values) == pytest.approx(exact)
    assert stats.sign_flip_test(np.ones(5)) == pytest.approx(2 / 2**5)
    assert stats.sign_flip_test(np.ones(5), alternative="greater") == pytest.approx(1 / 2**5)
    assert stats.sign_flip_test(np.array([1.0, -1.0])) == 1.0


def test_binomial_interval_is_clopper_pearson() -> None:
    interval = stats.binomial_interval(3, 20)
    assert interval.mean == pytest.approx(0.15)
    assert interval.n == 20
    assert interval.low == pytest.approx(scipy_stats.beta.ppf(0.025, 3, 18))
    assert interval.high == pytest.approx(scipy_stats.beta.ppf(0.975, 4, 17))
    assert stats.binomial_interval(0, 10).low == 0.0
    assert stats.binomial_interval(10, 10).high == 1.0


def _table() -> pd.DataFrame:
    rows = [
        {"concept": concept, "layer": layer, "prompt": prompt, "p_yes": value + layer + 10 * prompt}
        for concept, value in (("cats", 0.0), ("bread", 1.0), ("rain", 5.0))
        for layer in (3, 1)
        for prompt in range(2)
    ]
    return pd.DataFrame(rows)


def test_group_means_average_within_the_unit_first_and_keep_the_order() -> None:
    uneven = pd.concat([_table(), _table().query("concept == 'rain'").assign(p_yes=100.0)])
    tidy = stats.group_means(uneven, ["layer"], "p_yes")
    assert tidy.columns.tolist() == ["layer", "mean", "low", "high", "n"]
    assert tidy["layer"].tolist() == [3, 1]
    assert tidy["n"].tolist() == [3, 3]
    rain = np.mean([8.0, 18.0, 100.0, 100.0])
    assert tidy["mean"].iloc[0] == pytest.approx(np.mean([8.0, 9.0, rain]))


def test_group_means_count_only_the_units_of_each_group() -> None:
    table = _table()
    table = table[(table["concept"] != "rain") | (table["layer"] == 1)]
    tidy = stats.group_means(table, ["layer"], "p_yes").set_index("layer")
    assert tidy.loc[3, "n"] == 2
    assert tidy.loc[1, "n"] == 3
    assert tidy.loc[3, "mean"] == pytest.approx(np.mean([8.0, 9.0]))


def test_group_means_never_hide_a_missing_value() -> None:
    table = _table()
    table.loc[(table["layer"] == 3) & (table["concept"] == "cats") & (table["prompt"] == 0), "p_yes"] = np.nan
    tidy = stats.group_means(table, ["layer"], "p_yes").set_index("layer")
    assert np.isnan(tidy.loc[3, "mean"])
    assert np.isfinite(tidy.loc[1, "mean"])
    assert tidy.loc[3, "n"] == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.bootstrap_mean(np.ones(3), level=95.0),
        lambda: stats.sign_flip_test(np.ones(0)),
        lambda: stats.binomial_interval(5, 4),
        lambda: stats.binomial_interval(0, 0),
        lambda: stats.group_means(_table(), ["layr"], "p_yes"),
    ],
)
def test_bad_arguments_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        call()
