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
    actual: Labels,
    predicted: Labels,
    units: Sequence[Shaped[np.ndarray, " items"]],
    *,
    strata: Labels | None = None,
    level: float = 0.95,
) -> Interval:
    """Return Cohen's kappa of predictions, with its interval over units of one kind or two (items, texts, samples).

    With `strata` (a property, a task) chance is what each stratum's own shares give, as labels of one are never
    mistaken for those of another: the agreement beyond chance of all, by what there could be. NaN where all actual and
    all predicted are one and the same label: then nothing was predicted, however often it was right. Raises UsageError
    for no items, and for labels of other numbers.
    """
    if not len(actual) or len(actual) != len(predicted):
        raise UsageError(f"{len(actual)} items, {len(predicted)} predictions", "one for each item", "give both")
    names = np.unique(np.concatenate([actual.astype(str), predicted.astype(str)]))
    rows, columns = np.searchsorted(names, actual.astype(str)), np.searchsorted(names, predicted.astype(str))
    stratum = np.zeros(len(rows), dtype=int) if strata is None else np.unique(strata, return_inverse=True)[1]
    shape = stratum.max() + 1, len(names), len(names)

    def statistic(kept: Rows) -> float:
        counts = np.zeros(shape)
        np.add.at(counts, (stratum[kept], rows[kept], columns[kept]), 1)
        return stratified_kappa(counts)

    return jackknife_interval(statistic, units, level=level, within=(-1.0, 1.0))


def stratified_kappa(counts: Float[np.ndarray, "stratum label other"]) -> float:
    """Return the agreement beyond chance of all strata by what there could be; NaN where there could be none."""
    total = counts.sum(axis=(-2, -1))
    weighted = np.where(total > 0, total, 1)
    agreed = np.trace(counts, axis1=-2, axis2=-1)
    by_chance = (counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1) / weighted
    most = float((total - by_chance).sum())
    return float((agreed - by_chance).sum()) / most if most > 0 else float("nan")


@checked
def mode_baseline(actual: Labels, *, strata: Labels | None = None) -> float:
    """Return how often one is right who always says the commonest label, of each stratum if any; NaN for no items."""
    if not len(actual):
        return float("nan")
    of_each = [actual] if strata is None else [actual[strata == name] for name in np.unique(strata)]
    return sum(_commonest(labels) for labels in of_each) / len(actual)


def _commonest(labels: Labels) -> int:
    """Return how often the commonest label comes."""
    return int(np.unique(labels.astype(str), return_counts=True)[1].max())
