"""Confidence intervals over units; the unit of an interval is the concept, not the prompt or the cell.

Differences between concept vectors are many times larger than the effects that are reported (DESIGN.md, FIELD notes),
so prompts of one concept are averaged first and uncertainty is taken over concepts. Concepts are few, eight by default,
and their effects are skewed. Each interval is therefore Student's t, with the arm made longer to which the sample is
skewed, as by the transformation of Hall (1992, On the removal of skewness by transformation), up to twice as long,
and the other a little shorter. docs/intervals.md says how often each covers, measured on draws of known mean.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.stats.estimates import (
    Cells,
    Interval,
    OtherValues,
    Values,
    crossed_estimate,
    difference_estimate,
    mean_estimate,
    mean_of,
)

PROBABILITY = (0.0, 1.0)  # within which shares lie too
_ROUNDING = 1e-6  # by which probabilities of float32 may exceed 1
__all__ = [
    "PROBABILITY",
    "Interval",
    "binomial_interval",
    "correlation_interval",
    "crossed_interval",
    "difference_interval",
    "mean_interval",
    "ratio_interval",
]


@checked
def mean_interval(values: Values, *, level: float = 0.95, within: tuple[float, float] | None = None) -> Interval:
    """Return the interval of the mean over the last axis.

    `within` holds the least and the largest value that there can be, such as (0, 1) for shares and probabilities; the
    interval stays inside. Units that are all equal have an interval of zero width, as zero strength has at 0.0: what is
    measured does not depend on the unit. Only at an end of `within` can that be chance (8 of 8 answers right); there
    the interval is the exact one of what so many draws may have missed. Fewer than two units give NaN bounds; a NaN
    value makes its cell NaN: missing is never counted as zero. Raises `UsageError` for values outside of `within`.
    """
    _check(level)
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[-1]
    if n < 2:
        return _unbounded(mean_of(values), n)
    interval = mean_estimate(values).interval(level, n)
    return interval if within is None else _inside(interval, values, level, within)


@checked
def difference_interval(first: Values, second: OtherValues, *, level: float = 0.95) -> Interval:
    """Return the interval of mean(first) - mean(second) for two sets of units, e.g. concepts and random vectors.

    For the same units under two conditions subtract first and use `mean_interval`. `n` is the smaller number of units.
    Variances may differ (Welch). NaN bounds with fewer than two units in either.
    """
    _check(level)
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    n = min(first.shape[-1], second.shape[-1])
    if n < 2:
        return _unbounded(mean_of(first) - mean_of(second), n)
    return difference_estimate(first, second).interval(level, n)


@checked
def crossed_interval(
    values: Float[np.ndarray, "*cells units items"],
    minus: Float[np.ndarray, "*cells same_units others"] | None = None,
    *,
    level: float = 0.95,
    within: tuple[float, float] | None = None,
) -> Interval:
    """Return the interval of a mean over units and items, both drawn; of a difference of two such means.

    For claims about vectors and wordings at once: an interval over vectors alone takes the few questions that were
    asked for all that could be (Clark, 1973, on language as a fixed effect). The squared error is the sum of those over
    units and over items, less the rest, which both hold (two crossed random effects). It is never narrower than over
    units alone. Units are the same in both tables, items each table's own. `within` as in `mean_interval`, for one
    table. Raises `UsageError` if the tables have different units, or fewer than two of either.
    """
    _check(level)
    tables = [np.asarray(table, dtype=np.float64) for table in (values, minus) if table is not None]
    if len({table.shape[:-1] for table in tables}) > 1 or min(min(table.shape[-2:]) for table in tables) < 2:
        raise UsageError(
            given=f"tables of shape {', '.join(str(table.shape) for table in tables)}",
            allowed="(units, items) with the same units in both, two or more of each",
            advice="give one row per vector and one column per wording",
        )
    n = tables[0].shape[-2]
    units = mean_estimate(mean_of(tables[0]) - (mean_of(tables[1]) if minus is not None else 0.0)).interval(level, n)
    both = crossed_estimate(tables).interval(level, n)
    low, high = np.minimum(units.low, both.low), np.maximum(units.high, both.high)
    interval = Interval(units.mean, np.asarray(low), np.asarray(high), n)
    return interval if within is None or minus is not None else _inside(interval, tables[0], level, within)


@checked
def ratio_interval(over: Values, under: Float[np.ndarray, "*others units"], *, level: float = 0.95) -> Interval:
    """Return the interval of mean(over) / mean(under) for the same units: Fieller's, corrected for skewness.

    NaN where the interval of mean(under) covers zero, or there is none: then there is nothing to take a part of.
    """
    _check(level)
    over, under = np.broadcast_arrays(np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64))
    whole, n = mean_interval(under, level=level), over.shape[-1]
    nothing = np.full(over.shape[:-1], np.nan)
    if n < 2:
        return Interval(nothing, nothing, nothing, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(whole.excludes_zero() != 0, mean_of(over) / mean_of(under), np.nan)
        # The part of each unit that the ratio does not foretell, in units of the ratio.
        rest = mean_interval((over - ratio[..., None] * under) / mean_of(under)[..., None], level=level)
        low, high = _fieller(over, under, stats.t.ppf((1 + level) / 2, n - 1))
    lows, highs = np.fmin(ratio + rest.low, low), np.fmax(ratio + rest.high, high)
    bounded = np.isfinite(ratio)
    return Interval(ratio, np.where(bounded, lows, np.nan), np.where(bounded, highs, np.nan), n)


@checked
def binomial_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return the exact (Clopper-Pearson) interval of a rate; raises `UsageError` for counts that are impossible."""
    _check(level)
    if not 0 <= successes <= trials or trials == 0:
        raise UsageError(
            given=f"{successes} of {trials}",
            allowed="0 <= successes <= trials, trials > 0",
            advice="check the counts",
        )
    ci = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="exact")
    return Interval(np.array(successes / trials), np.array(ci.low), np.array(ci.high), trials)


@checked
def correlation_interval(coefficient: float, n: int, *, level: float = 0.95) -> Interval:
    """Return the interval of Spearman's rank correlation of `n` pairs, on Fisher's scale.

    With the standard error of Bonett and Wright (2000). NaN bounds for fewer than four pairs, and where the order is
    the same, or wholly reversed: ranks without an exchange do not say how many there are to expect.
    """
    _check(level)
    if n < 4 or not abs(coefficient) < 1:
        return Interval(np.array(coefficient), np.array(np.nan), np.array(np.nan), n)
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt((1 + coefficient**2 / 2) / (n - 3))
    place = np.arctanh(coefficient)
    low, high = np.tanh(place - half), np.tanh(place + half)
    return Interval(np.array(coefficient), np.array(low), np.array(high), n)


def _fieller(over: Values, under: Values, quantile: float) -> tuple[Cells, Cells]:
    """Return the bounds of the ratios r for which mean(over - r under) is zero as far as t can tell."""
    n, scale = over.shape[-1], quantile**2
    a = over - mean_of(over)[..., None]
    b = under - mean_of(under)[..., None]
    pairs = n * (n - 1)
    square = scale * (b * b).sum(axis=-1) / pairs
    product = scale * (a * b).sum(axis=-1) / pairs
    other = scale * (a * a).sum(axis=-1) / pairs
    first, middle = mean_of(under) ** 2 - square, mean_of(over) * mean_of(under) - product
    root = np.sqrt(np.maximum(middle**2 - first * (mean_of(over) ** 2 - other), 0.0))
    return (middle - root) / first, (middle + root) / first


def _inside(interval: Interval, values: np.ndarray, level: float, within: tuple[float, float]) -> Interval:
    """Return an interval inside of the bounds of its values; where all lie at one of them, the exact interval.

    If n draws show nothing else, all else has a share of at most 1 - ((1 - level) / 2) ** (1 / n), wherever it lies.
    """
    least, most = within
    if least >= most or (values < least - _ROUNDING).any() or (values > most + _ROUNDING).any():
        raise UsageError(
            given=f"values from {np.nanmin(values):g} to {np.nanmax(values):g}, within={within}",
            allowed="values within the bounds, the first of which is the lower",
            advice="give the least and the largest value that there can be",
        )
    unseen = (most - least) * (1 - ((1 - level) / 2) ** (1 / interval.n))
    axes = tuple(range(interval.mean.ndim, values.ndim))
    lowest, highest = (values <= least).all(axis=axes), (values >= most).all(axis=axes)
    low = np.where(highest, most - unseen, np.clip(interval.low, least, most))
    high = np.where(lowest, least + unseen, np.clip(interval.high, least, most))
    return Interval(interval.mean, low, high, interval.n)


def _check(level: float) -> None:
    if not 0 < level < 1:
        raise UsageError(given=f"level {level}", allowed="0 < level < 1", advice="use 0.95 for a 95% interval")


def _unbounded(mean: Cells, n: int) -> Interval:
    return Interval(np.asarray(mean), np.full_like(mean, np.nan), np.full_like(mean, np.nan), n)
