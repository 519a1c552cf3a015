"""Simultaneous bands: intervals of all cells of a sweep at once, so that no cell is certain because there are many.

Of a hundred cells without an effect five have a 95% interval that excludes zero. Bands of a sweep are intervals with a
larger quantile than t's: that of the largest |t| among all cells when the signs of units are flipped, the same sign
for a unit in every cell (max-T; Westfall and Young, 1993), which keeps how cells depend on each other. For two sets of
units these change places instead. What is left of skewness after that is corrected in each cell as in single intervals.
docs/intervals.md says how often bands are wrong anywhere, and for which draws more often than they say.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechint.base.signatures import Count, Seed, checked
from mechint.stats.estimates import Estimate, Interval, OtherValues, Values, difference_estimate, mean_estimate
from mechint.stats.intervals import difference_interval, mean_interval

Signs = Float[np.ndarray, "flips units"]
Cells = Float[np.ndarray, "cells units"]
_BATCH_VALUES = 2_000_000  # values of t held at once
_FLAT = 1e-12  # share of the mean square below which a variance is rounding


@dataclass(frozen=True)
class Marks:
    """How the cells of a sweep are marked: by simultaneous bands, or `uncorrected`, each by its own interval."""

    uncorrected: bool = False

    def mean(self, values: Values) -> Interval:
        """Return the intervals that mark cells by their means over units."""
        return mean_interval(values) if self.uncorrected else mean_bands(values)

    def difference(self, first: Values, second: OtherValues) -> Interval:
        """Return the intervals that mark cells by the difference of two sets of units."""
        return difference_interval(first, second) if self.uncorrected else difference_bands(first, second)

    @property
    def caption(self) -> str:
        """The meaning of a mark, for a caption: goes on after "cells whose"."""
        if self.uncorrected:
            return "own 95% interval over vectors excludes zero (not corrected for the number of cells)"
        return "simultaneous 95% band over vectors excludes zero (corrected for all cells of the panel)"


BANDS = Marks()


@checked
def mean_bands(values: Values, *, level: float = 0.95, flips: Count = 4096, seed: Seed = 0) -> Interval:
    """Return simultaneous bands of means over the last axis; all other axes are the cells of one sweep.

    All flips of signs are taken where there are no more than `flips`, else as many random ones. With n units the rarest
    has a share of 2 / 2**n, so that fewer than six units give no 95% band: bounds are NaN, as for cells with a NaN.
    A flip of a zero changes nothing, so the band of a cell with fewer than six other values holds zero. Bands of
    normal draws are wrong anywhere in at most `1 - level` of sweeps.
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[-1]
    if n < 2 or 2.0 ** (1 - n) > 1 - level:
        return _without_bounds(mean_interval(values, level=level))
    flat = _whole(values.reshape(-1, n))
    signs = _all_signs(n) if n - 1 <= np.log2(flips) else _random_signs(n, flips, seed)
    largest = _largest(signs, len(flat), lambda batch: _flipped(flat, batch))
    band = _banded(mean_estimate(values), largest, level, n)
    is_few = 2.0 ** (1 - np.count_nonzero(values, axis=-1)) > 1 - level
    low, high = np.minimum(band.low, 0.0), np.maximum(band.high, 0.0)
    return Interval(band.mean, np.where(is_few, low, band.low), np.where(is_few, high, band.high), n)


@checked
def difference_bands(
    first: Values, second: OtherValues, *, level: float = 0.95, flips: Count = 4096, seed: Seed = 0
) -> Interval:
    """Return simultaneous bands of mean(first) - mean(second) for two sets of units, which are exchanged at random.

    Bounds are NaN for fewer than four units in either, and for cells with a NaN.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    n, m = first.shape[-1], second.shape[-1]
    if min(n, m) < 4:
        return _without_bounds(difference_interval(first, second, level=level))
    flat = _whole(np.concatenate([first, second], axis=-1).reshape(-1, n + m))
    taken = np.zeros((flips, n + m))
    rng = np.random.default_rng(seed)
    for row in taken[1:]:
        row[rng.permutation(n + m)[:n]] = 1.0
    taken[0, :n] = 1.0
    largest = _largest(taken, len(flat), lambda batch: _exchanged(flat, batch, n))
    return _banded(difference_estimate(first, second), largest, level, min(n, m))


def _banded(estimate: Estimate, largest: Float[np.ndarray, " flips"], level: float, n: int) -> Interval:
    """Return the intervals with the quantile of the largest |t|."""
    quantile = float(np.sort(largest)[int(np.ceil(level * len(largest))) - 1])
    low, high = estimate.bounds(quantile)
    return Interval(np.asarray(estimate.mean), np.asarray(low), np.asarray(high), n)


def _without_bounds(interval: Interval) -> Interval:
    nothing = np.full_like(interval.mean, np.nan)
    return Interval(interval.mean, nothing, nothing, interval.n)


def _whole(flat: Cells) -> Float[np.ndarray, "varying units"]:
    """Return the cells that vary: those with a NaN, and those without any spread, are no part of a sweep."""
    return np.asarray(flat[np.isfinite(flat).all(axis=-1) & (flat != flat[:, :1]).any(axis=-1)])


def _all_signs(n: int) -> Signs:
    """Return all flips of signs; the first unit keeps its own, as a flip of all changes no |t|."""
    return np.array([(1.0, *signs) for signs in itertools.product((1.0, -1.0), repeat=n - 1)])


def _random_signs(n: int, flips: int, seed: int) -> Signs:
    """Return random flips, the first of which flips nothing."""
    signs = np.random.default_rng(seed).choice([1.0, -1.0], (flips, n))
    signs[0] = 1.0
    return signs


def _largest(
    flips: Signs, cells: int, statistic: Callable[[Signs], Float[np.ndarray, "flips cells"]]
) -> Float[np.ndarray, " flips"]:
    """Return the largest |t| over cells of each flip, some flips at a time."""
    if not cells:
        return np.zeros(len(flips))
    return np.concatenate([np.abs(statistic(batch)).max(axis=1) for batch in _batches(flips, cells)])


def _batches(flips: Signs, cells: int) -> Iterator[Signs]:
    step = max(1, _BATCH_VALUES // cells)
    for start in range(0, len(flips), step):
        yield flips[start : start + step]


def _flipped(flat: Cells, signs: Signs) -> Float[np.ndarray, "flips cells"]:
    n = flat.shape[-1]
    mean, square = signs @ flat.T / n, (flat**2).mean(axis=-1)
    return np.asarray(mean / np.sqrt(np.maximum(square - mean**2, _FLAT * square) / (n - 1)))


def _exchanged(flat: Cells, taken: Signs, n: int) -> Float[np.ndarray, "flips cells"]:
    """Return Welch's t where the units that are `taken` are the first set."""
    centred = flat - flat.mean(axis=-1, keepdims=True)
    m = flat.shape[-1] - n
    means = [members @ centred.T / size for members, size in ((taken, n), (1 - taken, m))]
    squares = [members @ (centred**2).T / size for members, size in ((taken, n), (1 - taken, m))]
    least = _FLAT * (centred**2).mean(axis=-1)
    errors = [
        np.maximum(square - mean**2, least) / (size - 1)
        for square, mean, size in zip(squares, means, (n, m), strict=True)
    ]
    return np.asarray((means[0] - means[1]) / np.sqrt(errors[0] + errors[1]))
