"""Intervals and exact tests over units; the unit of an interval is the concept, not the prompt or the cell.

Differences between concept vectors are many times larger than the effects that are reported (DESIGN.md, FIELD notes),
so prompts of one concept are averaged first and uncertainty is taken over concepts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from mechint.errors import UsageError
from mechint.signatures import Count, Seed, checked

Values = Float[np.ndarray, "*cells units"]
OtherValues = Float[np.ndarray, "*cells others"]
Statistic = Callable[..., np.ndarray]
_BATCH_VALUES = 4_000_000  # resampled values held at once: 32 MB of float64


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


@checked
def bootstrap_mean(values: Values, *, level: float = 0.95, resamples: Count = 2000, seed: Seed = 0) -> Interval:
    """Percentile bootstrap interval of the mean over the last axis; all cells are resampled with the same units.

    Fewer than two units give NaN bounds. A NaN value makes its cell NaN: missing is never counted as zero.
    With fewer than about ten units the interval is somewhat too narrow, as percentile intervals are.
    """
    values = np.asarray(values, dtype=np.float64)
    low, high = _bootstrap((values,), _mean, level, resamples, seed)
    return Interval(_mean(values), low, high, values.shape[-1])


@checked
def bootstrap_difference(
    first: Values, second: OtherValues, *, level: float = 0.95, resamples: Count = 2000, seed: Seed = 0
) -> Interval:
    """Interval of mean(first) - mean(second) for two independent sets of units, e.g. concepts and random vectors.

    For the same units under two conditions subtract first and use `bootstrap_mean`. `n` is the smaller number of units.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    low, high = _bootstrap((first, second), _mean_difference, level, resamples, seed)
    return Interval(_mean_difference(first, second), low, high, min(first.shape[-1], second.shape[-1]))


@checked
def bootstrap_crossed(
    values: Float[np.ndarray, "units items"],
    minus: Float[np.ndarray, "same_units others"] | None = None,
    *,
    level: float = 0.95,
    resamples: Count = 2000,
    seed: Seed = 0,
) -> Interval:
    """Percentile interval of a mean over units and items, both resampled; of a difference of two such means.

    For claims about vectors and wordings at once: an interval over vectors alone takes the few questions that were
    asked for all that could be (Clark, 1973, on language as a fixed effect). Units are drawn alike in both tables,
    items on their own. Raises `UsageError` if the tables have different units, or fewer than two of either.
    """
    tables = [np.asarray(table, dtype=np.float64) for table in (values, minus) if table is not None]
    if len({len(table) for table in tables}) > 1 or min(min(table.shape) for table in tables) < 2:
        raise UsageError(
            given=f"tables of shape {', '.join(str(table.shape) for table in tables)}",
            allowed="(units, items) with the same units in both, two or more of each",
            advice="give one row per vector and one column per wording",
        )
    rng, n = np.random.default_rng(seed), len(tables[0])
    units = rng.multinomial(n, np.full(n, 1 / n), resamples) / n
    drawn = np.zeros(resamples)
    for sign, table in zip((1, -1), tables, strict=False):
        m = table.shape[1]
        items = rng.multinomial(m, np.full(m, 1 / m), resamples) / m
        drawn += sign * np.einsum("ru,ui,ri->r", units, table, items)
    mean = tables[0].mean() - (tables[1].mean() if len(tables) > 1 else 0.0)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(np.array(mean), np.array(low), np.array(high), n)


def _mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(values.mean(axis=axis))


def _mean_difference(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(first.mean(axis=axis) - second.mean(axis=axis))


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Statistic, level: float, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds with the shape of the cells; only cells without NaN, and samples of two or more units, have any."""
    if not 0 < level < 1:
        raise UsageError(given=f"level {level}", allowed="0 < level < 1", advice="use 0.95 for a 95% interval")
    cells = samples[0].shape[:-1]
    flat = [sample.reshape(-1, sample.shape[-1]) for sample in samples]
    bounds = np.full((2, len(flat[0])), np.nan)
    usable = np.logical_and.reduce([np.isfinite(sample).all(axis=-1) for sample in flat])
    if usable.any() and min(sample.shape[-1] for sample in samples) >= 2:
        chosen = tuple(sample[usable] for sample in flat)
        interval = stats.bootstrap(
            chosen,
            statistic,
            axis=-1,
            vectorized=True,
            confidence_level=level,
            n_resamples=resamples,
            batch=max(1, _BATCH_VALUES // sum(sample.size for sample in chosen)),
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        bounds[:, usable] = interval.low, interval.high
    return bounds[0].reshape(cells), bounds[1].reshape(cells)


@checked
def sign_flip_test(
    differences: Float[np.ndarray, " units"],
    *,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    max_flips: Count = 2**16,
    seed: Seed = 0,
) -> float:
    """p-value of the paired sign-flip test of mean difference zero; exact up to log2(max_flips) units.

    With n units the smallest possible two-sided p is 2 / 2**n. Raises `UsageError` when nothing is given.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or differences.size == 0:
        raise UsageError(
            given=f"differences of shape {differences.shape}",
            allowed="one value per unit, at least one",
            advice="average within each concept, then subtract the two conditions",
        )
    result = stats.permutation_test(
        (differences,),
        _mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=max_flips,
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


@checked
def binomial_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Exact (Clopper-Pearson) interval of a rate; raises `UsageError` for counts that are impossible."""
    if not 0 <= successes <= trials or trials == 0:
        raise UsageError(
            given=f"{successes} of {trials}",
            allowed="0 <= successes <= trials, trials > 0",
            advice="check the counts",
        )
    ci = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="exact")
    return Interval(np.array(successes / trials), np.array(ci.low), np.array(ci.high), trials)


@checked
def unit_means(table: pd.DataFrame, by: Sequence[str], value: str, unit: str) -> pd.DataFrame:
    """Mean of `value` within each group and unit: one row per group (index `by`), one column per unit.

    A unit that a group does not have, and a group with a missing value, are both NaN here.
    """
    if missing := [name for name in [*by, value, unit] if name not in table.columns]:
        raise UsageError(
            given=f"columns {', '.join(missing)}",
            allowed=", ".join(map(str, table.columns)),
            advice="name columns that the table has",
        )
    return strict_means(table, [*by, unit], value).unstack(unit)


@checked
def strict_means(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.Series:
    """Mean of `value` within each group, in order of appearance; NaN where any of its values is, unlike in pandas."""
    grouped = table.groupby(list(by), sort=False, dropna=False, observed=True)[value]
    return grouped.mean().where(grouped.count() == grouped.size())


@checked
def group_means(
    table: pd.DataFrame,
    by: Sequence[str],
    value: str,
    *,
    unit: str = "concept",
    level: float = 0.95,
    resamples: Count = 2000,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Tidy frame `*by, mean, low, high, n`: each group's mean over its units and the bootstrap interval.

    Rows of one unit are averaged first. Groups with one unit have NaN bounds; a NaN value makes its group's mean NaN.
    """
    wide = unit_means(table, by, value, unit)
    counts = table.groupby([*by, unit], sort=False, dropna=False, observed=True).size().unstack(unit, fill_value=0)
    present = counts.reindex(index=wide.index, columns=wide.columns).to_numpy() > 0
    out = pd.DataFrame(index=wide.index, columns=["mean", "low", "high", "n"], dtype=np.float64)
    patterns, which = np.unique(present, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):  # groups that share their units are resampled together
        rows = which.ravel() == number
        values = wide.to_numpy(dtype=np.float64)[np.ix_(rows, pattern)]
        part = bootstrap_mean(values, level=level, resamples=resamples, seed=seed)
        out.loc[rows] = np.column_stack([part.mean, part.low, part.high, np.full(rows.sum(), part.n)])
    return out.astype({"n": np.int64}).reset_index()
