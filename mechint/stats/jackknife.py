"""Intervals of any statistic of trials that belong to units of one or two kinds, such as vectors and texts.

Each unit is left out in turn; what the statistic moves by gives its squared error (Tukey, 1958; Miller, 1974). Of two
kinds that cross, the squared errors of both are added, and that of their combinations is taken off, in which single
trials were counted twice (Cameron, Gelbach and Miller, 2011). t has as many degrees of freedom as the rarer kind has
units, less one. Statistics with bounds have their interval on the scale of log odds, so that it stays within them; at a
bound it is the exact one of what so many units may have missed. `python -m benchmarks.coverage` measures how often such
intervals cover (docs/intervals.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import special, stats

from mechint.base.errors import UsageError
from mechint.stats.estimates import Interval

Rows = Bool[np.ndarray, " row"]
Units = Shaped[np.ndarray, " row"]
Statistic = Callable[[Rows], float]
NO_UNIT = ""  # the label of trials that belong to no unit of a kind: clean ones have no vector


def jackknife_interval(
    statistic: Statistic,
    units: Sequence[Units],
    *,
    level: float = 0.95,
    within: tuple[float, float] | None = None,
) -> Interval:
    """Return the interval of a statistic over its units of one kind or two; `n` is the number of the rarer.

    `statistic` gets flags that say which trials are in. `units` are labels by trial, `NO_UNIT` where a trial has none.
    `within` are the least and the largest value that there can be. Bounds are NaN for fewer than two units of a kind,
    and where there is no statistic without some unit. Raises UsageError for no kind of units, and for more than two.
    """
    if not 1 <= len(units) <= 2:
        raise UsageError(f"{len(units)} kinds of units", "one kind, or two that cross", "give vectors, texts, or both")
    labels = [np.asarray(kind).astype(str) for kind in units]
    value = statistic(np.ones(len(labels[0]), dtype=bool))
    n = min(len(_names(kind)) for kind in labels)
    variance = _variance(statistic, labels) if n > 1 and np.isfinite(value) else np.nan
    if np.isnan(variance):
        return Interval(np.array(value), np.array(np.nan), np.array(np.nan), n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * np.sqrt(variance))
    low, high = (value - half, value + half) if within is None else _bounded(value, half, within, level, n)
    return Interval(np.array(value), np.array(low), np.array(high), n)


def _variance(statistic: Statistic, labels: Sequence[Units]) -> float:
    """Return the squared error: no less than that of either kind of units alone."""
    single = [_squared_error(statistic, kind) for kind in labels]
    if len(labels) == 1:
        return single[0]
    both = np.char.add(np.char.add(labels[0], "\0"), labels[1])
    is_crossed = (labels[0] != NO_UNIT) & (labels[1] != NO_UNIT)
    pairs = _squared_error(statistic, np.where(is_crossed, both, NO_UNIT))
    return float(np.maximum(sum(single) - pairs, max(single)))


def _squared_error(statistic: Statistic, kind: Units) -> float:
    names = _names(kind)
    without = np.array([statistic(kind != name) for name in names])
    return float((len(names) - 1) / len(names) * ((without - without.mean()) ** 2).sum())


def _names(kind: Units) -> Shaped[np.ndarray, " names"]:
    return np.unique(kind[kind != NO_UNIT])


def _bounded(value: float, half: float, within: tuple[float, float], level: float, n: int) -> tuple[float, float]:
    """Return the bounds of a statistic that lies between two values."""
    least, most = within
    unseen = (most - least) * (1 - ((1 - level) / 2) ** (1 / n))
    if value <= least or value >= most:
        return (least, least + unseen) if value <= least else (most - unseen, most)
    share = (value - least) / (most - least)
    arm = half / (most - least) / (share * (1 - share))
    low, high = special.expit(special.logit(share) - arm), special.expit(special.logit(share) + arm)
    return float(least + (most - least) * low), float(least + (most - least) * high)
