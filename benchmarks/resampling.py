"""The intervals of a mean that `mechint.stats.intervals` was chosen among: Student's t, and four made by resampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from scipy import stats

Draws = Float[np.ndarray, "draws units"]
Ends = Float[np.ndarray, " draws"]
Bounds = tuple[Ends, Ends]
TAILS = np.array([0.025, 0.975])
RESAMPLES = 1000
_BATCH = 500  # draws that are resampled at once


def t(values: Draws) -> Bounds:
    """Return Student's intervals."""
    error = stats.t.ppf(TAILS[1], values.shape[-1] - 1) * stats.sem(values, axis=-1)
    return values.mean(axis=-1) - error, values.mean(axis=-1) + error


def percentiles(values: Draws, tails: Float[np.ndarray, " two"] = TAILS) -> Bounds:
    """Return percentiles of resampled means."""
    low, high = np.concatenate(
        [np.quantile(batch @ _weights(values), tails, axis=1) for batch in _batches(values)], axis=1
    )
    return low, high


def widened(values: Draws) -> Bounds:
    """Return percentiles further out, by t instead of the normal distribution and by n / (n - 1) (Hesterberg, 2015)."""
    n = values.shape[-1]
    return percentiles(values, stats.norm.cdf(stats.t.ppf(TAILS, n - 1) * np.sqrt(n / (n - 1))))


def accelerated(values: Draws) -> Bounds:
    """Return BCa intervals (Efron, 1987)."""
    ends = []
    for batch in _batches(values):
        drawn, mean = np.sort(batch @ _weights(values), axis=1), batch.mean(axis=1, keepdims=True)
        below = (drawn < mean).mean(axis=1) + 0.5 * (drawn == mean).mean(axis=1)
        bias = stats.norm.ppf(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))[:, None]
        centred = batch - mean
        acceleration = (centred**3).sum(axis=1) / (6 * (centred**2).sum(axis=1) ** 1.5)
        moved = bias + stats.norm.ppf(TAILS)
        shares = stats.norm.cdf(bias + moved / (1 - acceleration[:, None] * moved))
        places = np.clip((shares * RESAMPLES).astype(int), 0, RESAMPLES - 1)
        ends.append(np.take_along_axis(drawn, places, axis=1))
    low, high = np.concatenate(ends).T
    return low, high


def studentised(values: Draws) -> Bounds:
    """Return the intervals of the studentised bootstrap."""
    n, weights, ends = values.shape[-1], _weights(values), []
    for batch in _batches(values):
        mean, error = batch.mean(axis=1, keepdims=True), batch.std(axis=1, ddof=1, keepdims=True) / np.sqrt(n)
        drawn = batch @ weights
        variance = np.maximum((batch**2) @ weights - drawn**2, 0) / (n - 1)
        quantiles = np.quantile((drawn - mean) / np.sqrt(variance + 1e-12 * error**2), TAILS, axis=1)
        ends.append(np.stack([mean[:, 0] - quantiles[1] * error[:, 0], mean[:, 0] - quantiles[0] * error[:, 0]]))
    low, high = np.concatenate(ends, axis=1)
    return low, high


METHODS: Mapping[str, Callable[[Draws], Bounds]] = {
    "percentiles": percentiles,
    "widened": widened,
    "BCa": accelerated,
    "studentised": studentised,
    "t": t,
}


def _weights(values: Draws) -> Float[np.ndarray, "units resamples"]:
    """Return the share that each unit has of each resampled mean, the same for every draw."""
    n = values.shape[-1]
    return np.asarray(np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).T / n)


def _batches(values: Draws) -> list[Draws]:
    return [values[start : start + _BATCH] for start in range(0, len(values), _BATCH)]
