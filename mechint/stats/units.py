"""Means over units with intervals, and exact tests; rows of one unit are averaged first, missing stays missing."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from mechint.base.errors import UsageError
from mechint.base.signatures import Count, Seed, checked
from mechint.stats.intervals import PROBABILITY, mean_interval

_LARGEST = float(np.finfo(np.float64).max)  # infinite bounds are no numbers for `@checked`
# Columns of tables whose values lie within bounds.
RANGES = {**dict.fromkeys(("p_yes", "p_no", "yes_no_mass"), PROBABILITY), "perplexity": (1.0, _LARGEST)}


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
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=max_flips,
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


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
    within: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
) -> pd.DataFrame:
    """Tidy frame `*by, mean, low, high, n`: each group's mean over its units with its interval (`mean_interval`).

    Rows of one unit are averaged first. Groups with one unit have NaN bounds; a NaN value makes its group's mean NaN.
    `within` are bounds of the values as in `mean_interval`; a mapping has them by what stands in the first column of
    `by`, for frames that hold several measures.
    """
    wide = unit_means(table, by, value, unit)
    counts = table.groupby([*by, unit], sort=False, dropna=False, observed=True).size().unstack(unit, fill_value=0)
    present = counts.reindex(index=wide.index, columns=wide.columns).to_numpy() > 0
    out = pd.DataFrame(index=wide.index, columns=["mean", "low", "high", "n"], dtype=np.float64)
    patterns, which = np.unique(present, axis=0, return_inverse=True)
    first = wide.index.get_level_values(0)
    ranges = [within.get(name) if isinstance(within, Mapping) else within for name in first]
    for number, limits in dict.fromkeys(zip(which.ravel().tolist(), ranges, strict=True)):
        # Groups that share their units and bounds are computed together.
        rows = (which.ravel() == number) & np.array([limits == bounds for bounds in ranges])
        values = wide.to_numpy(dtype=np.float64)[np.ix_(rows, patterns[number])]
        interval = mean_interval(values, level=level, within=limits)
        out.loc[rows] = np.column_stack([interval.mean, interval.low, interval.high, np.full(rows.sum(), interval.n)])
    return out.astype({"n": np.int64}).reset_index()
