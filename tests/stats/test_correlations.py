"""Rank correlation over units: that of scipy, unmoved by repeated cells, and its interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mechint.base.errors import UsageError
from mechint.stats.correlations import clustered_rank_correlation

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


def cells(rng: np.random.Generator, units: int, *, between: float, within: float, per_unit: int = 6) -> Cells:
    """Draw two values of cells that are correlated between units and within them."""
    by_unit = rng.multivariate_normal([0, 0], [[1, between], [between, 1]], units)[:, None, :]
    values = by_unit + rng.multivariate_normal([0, 0], [[1, within], [within, 1]], (units, per_unit))
    return values[..., 0].ravel(), values[..., 1].ravel(), np.repeat(np.arange(units), per_unit)


def test_the_correlation_is_that_of_scipy_and_ranks_alone_matter() -> None:
    first, second, units = cells(np.random.default_rng(0), 7, between=0.5, within=0.5)
    interval = clustered_rank_correlation(first, second, units)
    assert float(interval.mean) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert interval.low < interval.mean < interval.high
    assert interval.n == 7
    other = clustered_rank_correlation(np.exp(first), second**3, units)
    assert (other.low, other.high) == (interval.low, interval.high)


def test_repeated_cells_of_a_unit_tell_nothing_new() -> None:
    first, second, units = cells(np.random.default_rng(1), 8, between=0.6, within=0.2)
    once = clustered_rank_correlation(first, second, units)
    often = clustered_rank_correlation(*(np.tile(values, 5) for values in (first, second, units)))
    assert float(often.mean) == pytest.approx(float(once.mean))
    assert float(often.high - often.low) == pytest.approx(float(once.high - once.low), rel=1e-6)


@pytest.mark.parametrize(("between", "within"), [(0.0, 0.0), (0.6, 0.6), (0.8, 0.0)])
def test_intervals_hold_the_correlation_of_all_units(between: float, within: float) -> None:
    rng = np.random.default_rng(3)
    truth = float(stats.spearmanr(*cells(rng, 20_000, between=between, within=within)[:2]).statistic)
    intervals = [clustered_rank_correlation(*cells(rng, 8, between=between, within=within)) for _ in range(100)]
    share = np.mean([interval.low < truth < interval.high for interval in intervals])
    assert share > 0.87  # 95%, and three standard errors


def test_cells_of_units_are_fewer_than_they_seem() -> None:
    rng = np.random.default_rng(5)
    first, second, units = cells(rng, 8, between=0.9, within=0.0, per_unit=20)
    interval = clustered_rank_correlation(first, second, units)
    alone = clustered_rank_correlation(first, second, np.arange(len(first)))
    assert interval.high - interval.low > 1.5 * (alone.high - alone.low)


def test_without_units_or_ranks_there_is_no_interval() -> None:
    first, second, units = cells(np.random.default_rng(0), 2, between=0.5, within=0.5)
    assert np.isnan(clustered_rank_correlation(first, second, units).low)
    assert np.isnan(clustered_rank_correlation(np.ones(12), second, units).mean)
    with pytest.raises(UsageError, match="not finite"):
        clustered_rank_correlation(np.where(units == 0, np.nan, first), second, units)
