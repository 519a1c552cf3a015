"""Leaving units out: the error of a mean is that of its units, of two kinds both count, and bounds are kept."""

from __future__ import annotations

import numpy as np
import pytest

from mechint.base.errors import UsageError
from mechint.stats.jackknife import jackknife_interval


def grid(rng: np.random.Generator, units: int, items: int, by_unit: float, by_item: float) -> tuple[np.ndarray, ...]:
    values = (
        by_unit * rng.normal(size=(units, 1)) + by_item * rng.normal(size=(1, items)) + rng.normal(size=(units, items))
    )
    return values.ravel(), np.repeat(np.arange(units), items), np.tile(np.arange(items), units)


def test_the_interval_of_a_mean_is_that_of_students_t() -> None:
    values = np.random.default_rng(0).normal(size=9)
    interval = jackknife_interval(lambda rows: float(values[rows].mean()), [np.arange(9)])
    half = 2.306004 * values.std(ddof=1) / 3
    assert float(interval.high - interval.mean) == pytest.approx(half, rel=1e-5)
    assert interval.n == 9


@pytest.mark.parametrize(("by_unit", "by_item"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_units_of_both_kinds_are_drawn_anew(by_unit: float, by_item: float) -> None:
    rng, held = np.random.default_rng(1), []
    for _ in range(150):
        values, units, items = grid(rng, 10, 12, by_unit, by_item)
        interval = jackknife_interval(lambda rows, values=values: float(values[rows].mean()), [units, items])
        held.append(interval.low < 0 < interval.high)
    assert np.mean(held) > 0.9


def test_of_one_kind_alone_the_other_is_missed() -> None:
    rng, held = np.random.default_rng(1), []
    for _ in range(60):
        values, units, _ = grid(rng, 10, 12, 0.0, 1.0)
        interval = jackknife_interval(lambda rows, values=values: float(values[rows].mean()), [units])
        held.append(interval.low < 0 < interval.high)
    assert np.mean(held) < 0.8


def test_trials_without_a_unit_stay_in() -> None:
    values, labels = np.array([1.0, 2.0, 4.0, 9.0]), np.array(["a", "b", "", ""])
    seen = []
    jackknife_interval(lambda rows: seen.append(rows.copy()) or float(values[rows].mean()), [labels])
    assert all(rows[2:].all() for rows in seen)


def test_bounds_are_kept_and_are_exact_at_an_end() -> None:
    right = np.array([1.0] * 19 + [0.0])
    interval = jackknife_interval(lambda rows: float(right[rows].mean()), [np.arange(20)], within=(0.0, 1.0))
    assert 0.5 < interval.low < 0.95 < interval.high < 1.0
    everything = jackknife_interval(lambda rows: 1.0, [np.arange(20)], within=(0.0, 1.0))
    assert everything.high == 1.0
    assert float(everything.low) == pytest.approx(0.025 ** (1 / 20))


def test_what_has_no_interval() -> None:
    assert np.isnan(jackknife_interval(lambda rows: 1.0, [np.array(["a", "a"])]).low)
    assert np.isnan(jackknife_interval(lambda rows: float("nan"), [np.arange(4)]).high)
    with pytest.raises(UsageError, match="3 kinds"):
        jackknife_interval(lambda rows: 1.0, [np.arange(3)] * 3)
