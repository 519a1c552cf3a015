"""Means with squared errors, skewness and degrees of freedom, from which intervals and simultaneous bands are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

Values = Float[np.ndarray, "*cells units"]
OtherValues = Float[np.ndarray, "*cells others"]
Cells = Float[np.ndarray, "*cells"] | float  # of one cell arithmetic makes numbers
_STRAIGHT = 1e-6  # skewness of an estimate below which the transformation is a straight line to rounding
# Small samples show less skewness than there is: of eight log-normal values about half, in the median. What is seen is
# multiplied by 1 + _UNSEEN / n. This number and the next two were chosen by simulation (benchmarks/coverage.py).
_UNSEEN = 8.0
# Times the arm of t that an arm may be: the longer has no limit by itself, and a vertical tangent; and where t is kept
# for the shorter, normal draws are covered too often, since chance makes every sample skewed to some side.
_SHORTEST, _LONGEST = 0.98, 2.0
# Welch's and Satterthwaite's degrees of freedom are estimated too, and too many where the smaller side has drawn small
# values by chance. They are taken to be no more than this many times those of the smaller side.
_MOST_FREEDOM = 2.0


@dataclass(frozen=True)
class Interval:
    """Mean over units with a confidence interval; arrays of one shape, `n` is the number of units."""

    mean: Float[np.ndarray, "*cells"]
    low: Float[np.ndarray, "*cells"]
    high: Float[np.ndarray, "*cells"]
    n: int

    def excludes_zero(self) -> np.ndarray:
        """+1 where the whole interval is above zero, -1 where it is below, 0 elsewhere (also where it is NaN)."""
        return np.asarray(np.subtract(self.low > 0, self.high < 0, dtype=np.int64))


@dataclass(frozen=True)
class Estimate:
    """A mean by cell, its squared standard error with degrees of freedom, and its skewness (of the mean, not of units).

    Zero variance: what was measured does not depend on the unit.
    """

    mean: Cells
    variance: Cells
    skewness: Cells
    freedom: Cells

    def bounds(self, quantile: Cells) -> tuple[Cells, Cells]:
        """Return low and high where t has this quantile: an arm is longer where the sample is skewed to."""
        error = np.sqrt(self.variance)
        least, most = _SHORTEST * quantile, _LONGEST * quantile
        below = np.clip(_corrected(quantile, self.skewness), least, most)
        above = np.clip(-_corrected(-quantile, self.skewness), least, most)
        return self.mean - error * below, self.mean + error * above

    def interval(self, level: float, n: int) -> Interval:
        """Return the interval of a level, of `n` units."""
        low, high = self.bounds(stats.t.ppf((1 + level) / 2, self.freedom))
        return Interval(np.asarray(self.mean), np.asarray(low), np.asarray(high), n)


def _corrected(quantile: Cells, skewness: Cells) -> Cells:
    """Return the quantile of the skewed t: the inverse of t + s t^2/3 + s^2 t^3/27 + s/6, s the mean's skewness."""
    straight = np.abs(skewness) < _STRAIGHT
    size = np.where(straight, 1.0, skewness)
    curved = 3 / size * (np.cbrt(1 + size * (quantile - size / 6)) - 1)
    return np.asarray(np.where(straight, quantile, curved))


def mean_estimate(values: Values) -> Estimate:
    """Return the estimate of the mean of two units or more."""
    n, mean = values.shape[-1], mean_of(values)
    variance, cumulant = _moments(values)
    return Estimate(mean, variance / n, _skewness(cumulant / n**2, variance / n), n - 1.0)


def difference_estimate(first: Values, second: OtherValues) -> Estimate:
    """Return the estimate of the difference of two means, each of two units or more."""
    (variance, third), (other, other_third) = _moments(first), _moments(second)
    n, m = first.shape[-1], second.shape[-1]
    error = variance / n + other / m
    skewness = _skewness(third / n**2 - other_third / m**2, error)
    freedom = _freedom(error, [(variance / n, n - 1), (other / m, m - 1)], min(n, m))
    return Estimate(mean_of(first) - mean_of(second), error, skewness, freedom)


def crossed_estimate(tables: list[np.ndarray]) -> Estimate:
    """Return the estimate of a mean over units and items, or of the difference of two tables with the same units."""
    n, signs = tables[0].shape[-2], (1, -1)[: len(tables)]
    by_unit = np.sum([sign * mean_of(table) for sign, table in zip(signs, tables, strict=True)], axis=0)
    sides = [(1, by_unit), *((sign, table.mean(axis=-2)) for sign, table in zip(signs, tables, strict=True))]
    sizes = [means.shape[-1] for _, means in sides]
    moments = [_moments(means) for _, means in sides]
    errors = [variance / size for (variance, _), size in zip(moments, sizes, strict=True)]
    cumulant = sum(side * third / size**2 for (side, _), (_, third), size in zip(sides, moments, sizes, strict=True))
    rests = [_rest(table) for table in tables]
    # Below zero by chance where units or items do not differ: no less than the larger of both alone.
    items = sum(errors[1:])
    variance = np.maximum(errors[0] + items - sum(rests), np.maximum(errors[0], items))
    terms = [(error, size - 1) for error, size in zip(errors, sizes, strict=True)]
    terms += [(rest, (n - 1) * (table.shape[-1] - 1)) for rest, table in zip(rests, tables, strict=True)]
    freedom = _freedom(variance, terms, min(sizes))
    return Estimate(mean_of(by_unit), variance, _skewness(cumulant, variance), freedom)


def _rest(table: Float[np.ndarray, "*cells units items"]) -> Cells:
    """Return the squared error of the grand mean from the residuals that neither units nor items explain."""
    n, m = table.shape[-2:]
    rows = table.mean(-1, keepdims=True)
    columns = table.mean(-2, keepdims=True)
    mean = table.mean((-1, -2), keepdims=True)
    return np.asarray(((table - rows - columns + mean) ** 2).sum(axis=(-1, -2)) / ((n - 1) * (m - 1) * n * m))


def mean_of(values: Values) -> Float[np.ndarray, "*cells"]:
    """Return means over the last axis (NaN of nothing); that of equal values is their value to the last bit."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    first = values[..., 0]
    return np.asarray(np.where((values == first[..., None]).all(axis=-1), first, values.mean(axis=-1)))


def _moments(values: Values) -> tuple[Cells, Cells]:
    """Return estimates of the variance and the third cumulant of units (0 of two), the latter enlarged for skewness."""
    n = values.shape[-1]
    centred = values - mean_of(values)[..., None]
    third = n * (centred**3).sum(axis=-1) / ((n - 1) * (n - 2)) if n > 2 else np.zeros(values.shape[:-1])
    return np.asarray((centred**2).sum(axis=-1) / (n - 1)), np.asarray((1 + _UNSEEN / n) * third)


def _skewness(cumulant: Cells, variance: Cells) -> Cells:
    """Return the skewness of an estimate, 0 for one that does not vary."""
    nonzero = np.where(variance > 0, variance, 1.0)
    return np.asarray(np.where(variance > 0, cumulant / nonzero**1.5, 0.0))


def _freedom(variance: Cells, terms: Sequence[tuple[Cells, int]], smaller: int) -> Cells:
    """Return the degrees of freedom of a sum of squared errors, each with its own (Satterthwaite, 1946)."""
    squares = sum(error**2 / freedom for error, freedom in terms)
    estimated = variance**2 / np.where(squares > 0, squares, 1.0)
    return np.asarray(np.clip(estimated, 1.0, _MOST_FREEDOM * (smaller - 1)))
