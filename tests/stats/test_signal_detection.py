"""Areas against counting pairs, d' and criterion against their definitions, and both apart from each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mechint.base.errors import UsageError
from mechint.stats.signal_detection import auc, criterion, d_prime, log_linear


def test_d_prime_and_criterion_are_what_they_are_defined_as() -> None:
    assert d_prime(0.5, 0.5) == criterion(0.5, 0.5) == 0.0
    assert d_prime(stats.norm.cdf(1.5), stats.norm.cdf(-0.5)) == pytest.approx(2.0)
    assert criterion(stats.norm.cdf(1.5), stats.norm.cdf(-0.5)) == pytest.approx(-0.5)
    assert log_linear(0.0, 9) == 0.05
    assert log_linear(9.0, 9) == 0.95


def test_an_area_is_the_share_of_pairs_in_order_with_ties_by_half() -> None:
    rng = np.random.default_rng(3)
    positive, negative = np.round(rng.normal(0.7, 1, 31), 1), np.round(rng.normal(0, 1, 23), 1)
    pairs = positive[:, None] - negative[None]
    assert (pairs == 0).any(), "ties are the point"
    assert auc(positive, negative) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)), abs=1e-12)
    assert auc(negative, positive) == pytest.approx(1 - auc(positive, negative), abs=1e-12)


def test_a_criterion_that_moves_leaves_the_area_where_it_is() -> None:
    rng = np.random.default_rng(4)
    positive, negative = rng.normal(1, 1, 40), rng.normal(0, 1, 40)
    shifted = auc(positive + 7, negative + 7)
    rates = [log_linear(float((scores + move > 0).sum()), 40) for scores in (positive, negative) for move in (0, 7)]
    assert shifted == auc(positive, negative)
    assert criterion(rates[1], rates[3]) < -2 < criterion(rates[0], rates[2])


def test_what_has_no_area() -> None:
    assert np.isnan(auc(np.array([]), np.array([1.0])))
    assert auc(np.ones(3), np.ones(4)) == 0.5
    assert auc(np.array([np.inf]), np.array([-np.inf, 0.0])) == 1.0
    with pytest.raises(UsageError, match="NaN"):
        auc(np.array([np.nan]), np.array([1.0]))
