"""Rank correlation of cells that belong to units, with an interval over the units: the jackknife on Fisher's scale.

Cells of one concept share its vector, so that their number says little. Each unit is left out in turn; what the
correlation moves by gives its standard error, with as many degrees of freedom as there are other units (Tukey, 1958;
Miller, 1974). On draws of correlated units and cells the interval holds the correlation in 92 to 98% of draws with six
units or more (`tests/stats/test_correlations.py`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.stats.estimates import Interval

_MOST = 1 - 1e-9  # of a correlation: the scale has no end
_FEWEST = 3  # units, of which one is left out
Values = Float[np.ndarray, " cells"]


@checked
def clustered_rank_correlation(
    first: Values, second: Values, units: Shaped[np.ndarray, " cells"], *, level: float = 0.95
) -> Interval:
    """Return Spearman's rank correlation of two values by cell, with its interval over the units of the cells.

    `n` is the number of units. NaN where either value is the same in all cells; bounds are NaN for fewer than three
    units, and where a unit, left out, leaves no correlation. Raises UsageError for values that are not finite.
    """
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UsageError("a value that is not finite", "finite values in every cell", "leave such cells out")
    names = np.unique(units)
    n, whole = len(names), _on_scale(first, second)
    nothing = np.array(np.nan)
    if n < _FEWEST:
        return Interval(np.array(np.tanh(whole)), nothing, nothing, n)
    without = np.array([_on_scale(first[units != name], second[units != name]) for name in names])
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    half = stats.t.ppf((1 + level) / 2, n - 1) * error
    return Interval(np.array(np.tanh(whole)), np.array(np.tanh(whole - half)), np.array(np.tanh(whole + half)), n)


def _on_scale(first: Values, second: Values) -> float:
    """Return the rank correlation on Fisher's scale, NaN where one of both has no ranks."""
    if not len(first) or np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return float("nan")
    coefficient = float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])
    return float(np.arctanh(np.clip(coefficient, -_MOST, _MOST)))
