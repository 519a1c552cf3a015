"""Differences that were declared before they were looked at, on the cells that all their groups have.

A published prompt was compared with others over layers and strengths that only it had. Here a difference is taken over
the cells (concept, layers, strength, ...) of all groups in it; how many are dropped for that is told. A plan is data:

    Contrast("coder less base", left=[{"model": "coder"}], right=[{"model": "base"}])
    Contrast("asymmetry of the prompt",      # what the prompt does to one model, less what it does to the other
             left=[{"model": "a", "prompt": "explained"}, {"model": "b", "prompt": "plain"}],
             right=[{"model": "a", "prompt": "plain"}, {"model": "b", "prompt": "explained"}])

The unit is the concept: with the same concepts in all groups their differences are tested by exact sign flips,
categories of concepts by exchanging concepts between them. What clean replies two groups share cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from mechint.base.errors import UsageError
from mechint.stats.intervals import Interval, difference_interval, mean_interval
from mechint.stats.units import sign_flip_test
from mechint.trials.plans import Contrast, Group
from mechint.trials.rates import MEASURES, OPPOSITE
from mechint.trials.shares import Refusals, Values, clean_share, concept_share

MOST_TRUNCATED = 0.2  # largest difference in the share of replies that were cut off
_FLIPS = 2**16
_MATCHED = ("model", "prompt", "series", "concept", "layers", "strength", "steer")
# What a filter on these makes impossible to match: two categories share no concept, two depths no layer.
_EXCLUDES: Mapping[str, tuple[str, ...]] = {
    "category": ("concept",),
    "series": ("concept",),
    "depth": ("layers",),
    "weights_hash": ("model",),
    "prompt_hash": ("prompt",),
}


@dataclass(frozen=True)
class Difference:
    """A contrast as measured: its value by unit (of both sides, where they have units of their own), and its cells.

    `concepts` names the units, those of the left side first.
    """

    contrast: Contrast
    left: Values
    right: Float[np.ndarray, " others"] | None
    cells_matched: int
    cells_dropped: int
    note: str
    concepts: tuple[str, ...]

    @property
    def value(self) -> float:
        """The difference of the means over units."""
        return float(self.left.mean()) - (float(self.right.mean()) if self.right is not None else 0.0)

    def interval(self, level: float) -> Interval:
        """Return the interval of the difference over units."""
        if self.right is None:
            return mean_interval(self.left, level=level)
        return difference_interval(self.left, self.right, level=level)

    def p_value(self) -> float:
        """Return the two-sided p of no difference: of sign flips, or of exchanging units; exact where they are few."""
        if self.right is None:
            return sign_flip_test(self.left, max_flips=_FLIPS) if len(self.left) > 1 else 1.0
        if min(len(self.left), len(self.right)) == 1:
            return _p_of_a_single(self.left, self.right)
        result = stats.permutation_test(
            (self.left, self.right),
            _difference_of_means,
            vectorized=True,
            n_resamples=_FLIPS,
            rng=np.random.default_rng(0),
        )
        return float(result.pvalue)

    @property
    def smallest_p(self) -> float:
        """The smallest two-sided p that so many units can have."""
        if self.right is None:
            return float(min(1.0, 2.0 ** (1 - len(self.left))))
        return min(1.0, 2 / math.comb(len(self.left) + len(self.right), len(self.left)))

    @property
    def n_concepts(self) -> int:
        """How many units there are."""
        return len(self.left) + (len(self.right) if self.right is not None else 0)


def _p_of_a_single(left: Values, right: Float[np.ndarray, " others"]) -> float:
    """Return the two-sided p of exchanging the only unit of a side with each of the other side."""
    units = np.concatenate([left, right])
    n = len(units)
    if n == 2:
        return 1.0
    single = units[:1] if len(left) == 1 else units[-1:]
    ranks = [float((units >= single).mean()), float((units <= single).mean())]
    return min(1.0, 2 * min(ranks))


def _difference_of_means(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(first.mean(axis=axis) - second.mean(axis=axis))


def difference(contrast: Contrast, table: pd.DataFrame) -> Difference:
    """Return a contrast measured on a table of `judged_trials`.

    Raises UsageError for a group without trials, groups with no cell in common, replies that were cut off in one group
    and not in another, and for two sets of concepts in a contrast of more than two groups.
    """
    groups = [_of(table, group, contrast.name) for group in contrast.groups]
    matched, cells, dropped = _matched(contrast, groups)
    note = "unmatched: groups differ in their cells" if contrast.unmatched and dropped else ""
    note = "; ".join(text for text in (note, _truncation(contrast, table, matched)) if text)
    if "concept" in matching(contrast):
        shared = sorted(set.intersection(*(set(group["concept"]) for group in matched)))
        return Difference(
            contrast, _paired(contrast, table, matched, shared), None, cells, dropped, note, tuple(shared)
        )
    if len(matched) > 2:
        raise UsageError(
            given=f"{contrast.name}: {len(matched)} groups that share no concepts",
            allowed="two groups, or groups with the same concepts",
            advice="declare one contrast for each pair",
        )
    values = _sides(contrast, table, matched)
    names = tuple(str(name) for group in matched for name in sorted(group["concept"].unique()))
    return Difference(contrast, values[0], values[1], cells, dropped, note, names)


def matching(contrast: Contrast) -> list[str]:
    """Return the columns in which the groups of a contrast have to agree: those that no group says itself."""
    if contrast.match:
        return list(contrast.match)
    named = {column for group in contrast.groups for column in group}
    excluded = {other for column in named for other in _EXCLUDES.get(column, ())}
    return [column for column in _MATCHED if column not in named | excluded]


def _of(table: pd.DataFrame, group: Group, name: str) -> pd.DataFrame:
    rows = table[~table["is_clean"] & table["is_judged"]]
    if "series" not in group:
        rows = rows[rows["series"] == "injected"]
    for column, value in group.items():
        if column not in rows.columns:
            raise UsageError(
                given=f"{name}: a group by {column!r}",
                allowed=f"columns of trials: {', '.join(map(str, table.columns))}",
                advice="name columns of the table of trials",
            )
        rows = rows[rows[column].isin(value if isinstance(value, list | tuple) else [value])]
    if not len(rows):
        raise UsageError(
            given=f"{name}: no trials of {described(group)}",
            allowed="groups that the table of trials has",
            advice="see which there are: trials.value_counts(['model', 'prompt', 'category'])",
        )
    return rows


def described(group: Group) -> str:
    """Return a group in words."""
    return ", ".join(f"{column} {value}" for column, value in group.items())


def _matched(contrast: Contrast, groups: Sequence[pd.DataFrame]) -> tuple[list[pd.DataFrame], int, int]:
    """Return the rows of each group in cells that all have, with the numbers of cells kept and dropped."""
    columns = matching(contrast)
    keys = [pd.MultiIndex.from_frame(rows[columns]) for rows in groups]
    cells = [set(key) for key in keys]
    common, everything = set.intersection(*cells), set.union(*cells)
    if contrast.unmatched:
        return list(groups), len(common), len(everything) - len(common)
    if not common:
        raise UsageError(
            given=f"{contrast.name}: groups with no cell of {', '.join(columns)} in common",
            allowed="groups that have some cells in common",
            advice="match other columns (match=['concept', 'depth']), or say unmatched=True; the result says so too",
        )
    rows = [group[key.isin(list(common))] for group, key in zip(groups, keys, strict=True)]
    return rows, len(common), len(everything) - len(common)


def _paired(contrast: Contrast, table: pd.DataFrame, groups: Sequence[pd.DataFrame], concepts: Sequence[str]) -> Values:
    """Return the contrast by concept."""
    steered = MEASURES[contrast.measure].steered
    assert steered is not None
    shares = [concept_share(group, steered, contrast.refusals, concepts).values() for group in groups]
    values = sum(sign * share for sign, share in zip(contrast.signs, shares, strict=True))
    return np.asarray(values - _clean_values(contrast, table, _clean_weights(contrast, groups), len(concepts)))


def _sides(contrast: Contrast, table: pd.DataFrame, groups: Sequence[pd.DataFrame]) -> list[Values]:
    """Return the values of two groups by their own concepts, less the clean replies that they do not share."""
    steered = MEASURES[contrast.measure].steered
    assert steered is not None
    weights = _clean_weights(contrast, groups)
    values = []
    for sign, group in zip(contrast.signs, groups, strict=True):
        share = concept_share(group, steered, contrast.refusals).values()
        its = {source: sign * weight for source, weight in weights.items() if sign * weight > 0}
        values.append(share - _clean_values(contrast, table, its, len(share)))
    return values


def _clean_weights(contrast: Contrast, groups: Sequence[pd.DataFrame]) -> dict[int, float]:
    """Return how often the clean replies of each model and prompt are subtracted; those that cancel are left out."""
    if MEASURES[contrast.measure].clean is None:
        return {}
    weights: dict[int, float] = {}
    for sign, group in zip(contrast.signs, groups, strict=True):
        sources = group["source"].unique()
        for source in sources:
            weights[int(source)] = weights.get(int(source), 0.0) + sign / len(sources)
    return {source: weight for source, weight in weights.items() if abs(weight) > 1e-12}


def _clean_values(contrast: Contrast, table: pd.DataFrame, weights: Mapping[int, float], units: int) -> Values:
    counted = MEASURES[contrast.measure].clean
    total = np.zeros(units)
    for source, weight in weights.items():
        assert counted is not None
        clean = table[table["is_clean"] & table["is_judged"] & (table["source"] == source)]
        if not len(clean):
            raise UsageError(
                given=f"{contrast.name}: a model and prompt without clean replies",
                allowed="clean replies of each model and prompt whose net detections are compared",
                advice="sample them, or compare hits",
            )
        refusals: Refusals = OPPOSITE[contrast.refusals]
        total += weight * clean_share(clean, counted, refusals).folds(units)
    return total


def _truncation(contrast: Contrast, table: pd.DataFrame, groups: Sequence[pd.DataFrame]) -> str:
    """Raise UsageError where one group's replies were cut off much more often; return what is not known of it."""
    shares = []
    for group in groups:
        is_own = table["is_clean"] & table["source"].isin(group["source"].unique())
        stopped = pd.concat([group["stopped"], table.loc[is_own, "stopped"]])
        if (stopped == "").any():
            return "whether replies were cut off is not recorded"
        shares.append(float((stopped == "length").mean()))
    if max(shares) - min(shares) > MOST_TRUNCATED and not contrast.any_length:
        raise UsageError(
            given=f"{contrast.name}: from {min(shares):.0%} to {max(shares):.0%} of replies were cut off",
            allowed=f"groups that differ by at most {MOST_TRUNCATED:.0%}",
            advice="sample longer replies, or say any_length=True",
        )
    return ""
