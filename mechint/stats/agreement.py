"""Agreement of predictions with what happened, beyond what the answers' shares give by themselves.

A model that always says the commonest answer is right as often as that is common. Cohen's kappa (1960) is what there is
beyond chance, 0 for it; `mode_baseline` is how often the commonest answer comes, by property where there are several.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.stats.estimates import Interval
from mechint.stats.jackknife import Rows, jackknife_interval

Labels = Shaped[np.ndarray, " items"]
Confusion = Float[np.ndarray, "*draws label other"]


def kappa(counts: Confusion) -> Float[np.ndarray, "*draws"]:
    """Return Cohen's kappa of a table of counts, actual x predicted; NaN where both always say the same one thing."""
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed = np.trace(counts, axis1=-2, axis2=-1) / total
        by_chance = (counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1) / total**2
        return np.asarray((agreed - by_chance) / (1 - by_chance))


@checked
def kappa_interval(
    actual: Labels, predicted: Labels, units: Sequence[Shaped[np.ndarray, " items"]], *, level: float = 0.95
) -> Interval:
    """Return Cohen's kappa of predictions, with its interval over units of one kind or two (items, texts, samples).

    NaN where all actual and all predicted are one and the same label: then nothing was predicted, however often it was
    right. Raises UsageError for no items, and for labels of other numbers.
    """
    if not len(actual) or len(actual) != len(predicted):
        raise UsageError(f"{len(actual)} items, {len(predicted)} predictions", "one for each item", "give both")
    names = np.unique(np.concatenate([actual.astype(str), predicted.astype(str)]))
    rows, columns = np.searchsorted(names, actual.astype(str)), np.searchsorted(names, predicted.astype(str))

    def statistic(kept: Rows) -> float:
        counts = np.zeros((len(names), len(names)))
        np.add.at(counts, (rows[kept], columns[kept]), 1)
        return float(kappa(counts))

    return jackknife_interval(statistic, units, level=level, within=(-1.0, 1.0))


@checked
def mode_baseline(actual: Labels) -> float:
    """Return how often one is right who always says the commonest label; NaN for no items."""
    counts = np.unique(actual.astype(str), return_counts=True)[1]
    return float(counts.max() / counts.sum()) if len(counts) else float("nan")
