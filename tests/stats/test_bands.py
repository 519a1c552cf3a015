"""Simultaneous bands: families of cells without an effect, agreement with flips written out, and what has no band."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

from mechint.stats.bands import BANDS, Marks, difference_bands, mean_bands
from mechint.stats.intervals import difference_interval, mean_interval

CELLS = 40


def _families(rho: float, count: int, units: int, seed: int) -> np.ndarray:
    """Cells that share some of what makes their units differ, as the layers of a sweep do."""
    rng = np.random.default_rng(seed)
    shared, alone = rng.normal(size=(count, 1, units)), rng.normal(size=(count, CELLS, units))
    return np.sqrt(rho) * shared + np.sqrt(1 - rho) * alone


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_sweeps_without_an_effect_are_marked_anywhere_in_one_of_twenty(rho: float) -> None:
    families = _families(rho, 150, 8, seed=1)
    wrong = np.mean([mean_bands(cells).excludes_zero().any() for cells in families])
    single = np.mean([mean_interval(cells).excludes_zero().any() for cells in families])
    assert wrong < 0.09
    assert single > wrong + 0.08


def test_differences_without_an_effect_are_marked_anywhere_in_one_of_twenty() -> None:
    pairs = zip(_families(0.5, 100, 8, seed=2), _families(0.5, 100, 12, seed=3), strict=True)
    shares = [
        (difference_bands(*pair, flips=256).excludes_zero().any(), difference_interval(*pair).excludes_zero().any())
        for pair in pairs
    ]
    wrong, single = np.mean(shares, axis=0)
    assert wrong < 0.1
    assert single > wrong + 0.1


def test_an_effect_is_marked_where_it_is() -> None:
    cells = _families(0.5, 1, 16, seed=4)[0]
    cells[3] += 3.0
    cells[7] -= 3.0
    marks = mean_bands(cells).excludes_zero()
    assert (marks[3], marks[7], np.abs(marks).sum()) == (1, -1, 2)
    shaped = mean_bands(cells.reshape(5, 8, 16))
    np.testing.assert_array_equal(shaped.excludes_zero().ravel(), marks)
    both = difference_bands(cells, _families(0.5, 1, 16, seed=5)[0])
    assert (both.excludes_zero()[3], both.excludes_zero()[7]) == (1, -1)


def test_the_quantile_is_that_of_the_largest_t_over_all_flips() -> None:
    cells = np.random.default_rng(6).normal(size=(5, 7))
    cells -= cells.mean(axis=1, keepdims=True) - 1
    cells[:, 1:] = np.stack([cells[:, 1:4], 2 * 1 - cells[:, 1:4]], axis=-1).reshape(5, 6)  # symmetric about 1
    cells[:, 0] = 1.0
    largest = []
    for signs in itertools.product([1, -1], repeat=7):
        flipped = cells * np.array(signs)
        error = flipped.std(axis=1, ddof=1) / np.sqrt(7)
        largest.append(np.max(np.abs(flipped.mean(axis=1)) / error))
    quantile = np.sort(largest)[int(np.ceil(0.95 * 128)) - 1]
    bands = mean_bands(cells)
    error = cells.std(axis=1, ddof=1) / np.sqrt(7)
    np.testing.assert_allclose(bands.low, 1 - quantile * error)
    np.testing.assert_allclose(bands.high, 1 + quantile * error)


def test_more_cells_make_wider_bands_and_cells_without_spread_count_for_none() -> None:
    cells = _families(0.2, 1, 9, seed=7)[0]
    few, many = mean_bands(cells[:3]), mean_bands(cells)
    assert (many.low[:3] < few.low).all()
    still = np.concatenate([cells, np.zeros((500, 9)), np.full((1, 9), 2.0), np.full((1, 9), np.nan)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bands = mean_bands(still)
        nothing = mean_bands(np.zeros((4, 9)))
    np.testing.assert_array_equal(bands.low[:CELLS], many.low)
    assert (bands.low[CELLS], bands.high[CELLS], bands.low[-2]) == (0, 0, 2)
    assert np.isnan([bands.mean[-1], bands.low[-1]]).all()
    assert (nothing.low == 0).all()


def test_random_flips_are_seeded_and_near_all_of_them() -> None:
    cells = _families(0.2, 1, 12, seed=8)[0]
    all_of_them = mean_bands(cells, flips=4096)
    fewer = mean_bands(cells, flips=1024)
    again = mean_bands(cells, flips=1024)
    np.testing.assert_array_equal(fewer.low, again.low)
    np.testing.assert_allclose(fewer.low, all_of_them.low, atol=0.15)


def test_fewer_than_six_units_have_no_band() -> None:
    five, six = np.arange(5.0) + 100, np.arange(6.0) + 100
    assert np.isnan(mean_bands(five[None]).low).all()
    assert mean_bands(five[None]).mean == 102
    assert mean_bands(six[None]).excludes_zero() == 1
    assert np.isnan(difference_bands(five[None], six[None, :3]).low).all()
    assert np.isfinite(mean_bands(five[None], level=0.9).low).all()


def test_marks_say_of_which_kind_they_are() -> None:
    cells, others = _families(0.2, 2, 8, seed=9)
    np.testing.assert_array_equal(BANDS.mean(cells).low, mean_bands(cells).low)
    np.testing.assert_array_equal(Marks(uncorrected=True).mean(cells).low, mean_interval(cells).low)
    single = Marks(uncorrected=True).difference(cells, others)
    np.testing.assert_array_equal(single.low, difference_interval(cells, others).low)
    assert (BANDS.difference(cells, others).low < single.low).mean() > 0.9
    assert "simultaneous" in BANDS.caption
    assert "not corrected" in Marks(uncorrected=True).caption


def test_a_band_of_few_values_that_are_not_zero_holds_zero() -> None:
    """Flips of zeros change nothing: with five other values the rarest flip has a share of 1 in 16."""
    cells = np.zeros((12, 9))
    for count, row in enumerate(cells):
        row[:count] = 1.0 + 0.01 * np.arange(min(count, 9))
    marks = mean_bands(cells).excludes_zero()
    assert not marks[:6].any()
    assert marks[8:].all()
