"""Which features tell two sets of cells apart, and which of them say the same thing. Correlates, until removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats as scipy_stats
from scipy.cluster import hierarchy

from mechint import stats
from mechint.attribution.features.feature_table import READOUTS, Readout
from mechint.base.errors import UsageError
from mechint.base.signatures import checked

Test = Literal["t", "permutation"]
_ROUNDING = 1e-5  # relative to a feature's largest value: what differs by less does not vary
_PERMUTATIONS = 9999
_BATCH_VALUES = 4_000_000


@checked
def compare(
    table: pd.DataFrame,
    first: pd.Series,
    second: pd.Series | None = None,
    *,
    readout: Readout = "read_mean",
    unit: str = "concept",
    test: Test = "t",
    level: float = 0.95,
) -> pd.DataFrame:
    """Return how well features tell the rows `first` of a table of `feature_table` from the rows `second`.

    Both are True/False by row of the table (`table.series == "injected"`; detected: `injected & (table.logit_diff >
    0)`). Without `second` each row is compared with the clean run of its own conversation, concept by concept. The
    conversations of a concept are averaged first. A concept that has cells on both sides (some conversations detected,
    some missed) is taken for two units, which is on the safe side. Columns: kind, component, layer, index, and those of
    `discriminate`.
    """
    chosen = unit_acts(table[first], readout, unit=unit)
    if second is None:
        contrasts = discriminate(
            chosen, unit_acts(table[first], readout, value="clean", unit=unit), paired=True, test=test, level=level
        )
    else:
        contrasts = discriminate(chosen, unit_acts(table[second], readout, unit=unit), test=test, level=level)
    names = table.drop_duplicates("index").set_index("index")[["kind", "component", "layer"]]
    return names.loc[contrasts["index"]].reset_index().merge(contrasts, on="index")


def unit_acts(
    table: pd.DataFrame, readout: Readout = "read_mean", *, value: str = "acts", unit: str = "concept"
) -> pd.DataFrame:
    """Return the activations of a table of `feature_table` as units x features, a unit's conversations averaged."""
    if readout not in READOUTS or unit not in table.columns or value not in table.columns:
        raise UsageError(
            given=f"readout {readout!r}, unit {unit!r}, value {value!r}",
            allowed=f"{', '.join(READOUTS)}; columns of feature_table",
            advice="choose among these",
        )
    rows = table[table["readout"] == readout]
    if not len(rows):
        raise UsageError("no cells", "one cell or more on either side", "choose cells that the table has")
    return stats.unit_means(rows, ["index"], value, unit).T


@checked
def discriminate(
    first: pd.DataFrame, second: pd.DataFrame, *, paired: bool = False, test: Test = "t", level: float = 0.95
) -> pd.DataFrame:
    """Return, for each feature (column) of two tables of units x features, how far they are apart; surest first.

    Columns: index, first, second (means), difference, d, d_low, d_high, p, q, spread, n_first, n_second.
    - d: Cohen's d = difference / pooled standard deviation; for pairs, / standard deviation of the differences. Its
      interval is the normal one (Hedges & Olkin, 1985), rough for few units.
    - p: "t", Welch's (paired: Student's) t-test; "permutation", of the mean difference (paired: sign flips), exact for
      few units, with which it cannot be small (12 units in two sets: 1/462). q: Benjamini-Hochberg.
    - spread: whether the feature varies within the sets. Without spread there is no d (NaN): either the feature is the
      same in both (p and q NaN, not counted in the FDR), or it tells them apart wholly; p is the permutation test's.
    Raises UsageError for fewer than two units, other features, missing values, or pairs of other units.
    """
    _check(first, second, paired, test)
    a = first.to_numpy(np.float64)
    b = (second.loc[first.index, first.columns] if paired else second[first.columns]).to_numpy(np.float64)
    scale = np.maximum(np.abs(a).max(0), np.abs(b).max(0)) * _ROUNDING
    deviation = (a - b).std(0, ddof=1) if paired else _pooled(a, b)
    spread, differs = deviation > scale, np.abs(a.mean(0) - b.mean(0)) > scale
    table = pd.DataFrame({"index": first.columns, "first": a.mean(0), "second": b.mean(0)})
    table["difference"] = table["first"] - table["second"]
    table["d"] = np.divide(table["difference"], deviation, out=np.full(len(table), np.nan), where=spread)
    half = scipy_stats.norm.ppf((1 + level) / 2) * _error_of_d(table["d"].to_numpy(), len(a), len(b), paired)
    table["d_low"], table["d_high"] = table["d"] - half, table["d"] + half
    table["p"] = _p_values(a, b, paired, test, spread, differs)
    table["q"] = adjusted(table["p"].to_numpy())
    table = table.assign(spread=spread, n_first=len(a), n_second=len(b))
    surest = table["d"].abs().where(spread, np.where(differs, np.inf, -np.inf))
    return (
        table.assign(surest=surest)
        .sort_values(["q", "surest"], ascending=[True, False], kind="stable", ignore_index=True)
        .drop(columns="surest")
    )


def adjusted(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return p-values adjusted for the false discovery rate (Benjamini & Hochberg, 1995); NaN stays, and is no test."""
    q_values = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q_values[tested] = scipy_stats.false_discovery_control(p[tested])
    return q_values


@checked
def clusters(acts: pd.DataFrame | Float[np.ndarray, "cells features"], threshold: float = 0.8) -> pd.DataFrame:
    """Return groups of features whose activations go together over cells: index, cluster, size, representative, r.

    Average linkage on 1 - |r| (Pearson), cut where the mean |r| between groups falls below `threshold`. Clusters are
    numbered from the largest on. The representative is the member with the highest mean |r| to the others; `r` is the
    correlation with it, negative for a feature that falls when it rises. Constant features are clusters of their own,
    with r NaN. Raises UsageError for fewer than three cells, missing values, and thresholds outside 0..1.
    """
    frame = pd.DataFrame(acts)
    values = frame.to_numpy(dtype=np.float64)
    if len(values) < 3 or not frame.shape[1] or not np.isfinite(values).all() or not 0 < threshold <= 1:
        raise UsageError(
            given=f"{len(values)} cells x {frame.shape[1]} features, threshold {threshold}",
            allowed="3 cells or more, finite, a threshold in (0, 1]",
            advice="read more conversations or concepts",
        )
    varies = values.std(0) > np.abs(values).max(0) * _ROUNDING
    r = np.full((values.shape[1],) * 2, np.nan)
    r[np.ix_(varies, varies)] = np.atleast_2d(np.corrcoef(values[:, varies], rowvar=False)) if varies.any() else 0
    labels = _labels(np.abs(r[np.ix_(varies, varies)]), threshold)
    groups = [np.flatnonzero(varies)[labels == label] for label in np.unique(labels)]
    groups += [np.array([place]) for place in np.flatnonzero(~varies)]
    groups.sort(key=lambda group: (-len(group), group[0]))
    names = list(frame.columns)
    return pd.concat([_cluster(number, group, r, names) for number, group in enumerate(groups)], ignore_index=True)


def _labels(closeness: np.ndarray, threshold: float) -> np.ndarray:
    if len(closeness) < 2:
        return np.ones(len(closeness), dtype=np.int64)
    distance = np.clip(1 - closeness, 0, None)[np.triu_indices(len(closeness), 1)]
    tree = hierarchy.linkage(distance, method="average")
    return np.asarray(hierarchy.fcluster(tree, 1 - threshold + 1e-12, criterion="distance"))


def _cluster(number: int, group: np.ndarray, r: np.ndarray, names: Sequence[int]) -> pd.DataFrame:
    central = group[np.argmax(np.abs(r[np.ix_(group, group)]).sum(0))]
    summary = {"cluster": number, "size": len(group), "representative": names[central]}
    return pd.DataFrame({"index": [names[place] for place in group], **summary, "r": r[group, central]})


def _pooled(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    weights = len(a) - 1, len(b) - 1
    variance = (weights[0] * a.var(0, ddof=1) + weights[1] * b.var(0, ddof=1)) / sum(weights)
    return np.asarray(np.sqrt(variance))


def _error_of_d(d: np.ndarray, n: int, m: int, paired: bool) -> np.ndarray:
    """Standard error of d (Hedges & Olkin, 1985, for two sets; with half the variance of d for pairs)."""
    null_variance = 1 / n if paired else (n + m) / (n * m)
    return np.asarray(np.sqrt(null_variance + d**2 / (2 * (n if paired else n + m))))


def _p_values(
    a: np.ndarray, b: np.ndarray, paired: bool, test: str, spread: np.ndarray, differs: np.ndarray
) -> np.ndarray:
    p_values = np.full(a.shape[1], np.nan)
    permuted = (~spread & differs) if test == "t" else (spread | differs)
    if test == "t" and spread.any():
        first, second = a[:, spread], b[:, spread]
        if paired:
            tested = scipy_stats.ttest_1samp(first - second, 0.0)
        else:  # from moments: a set in which a feature is constant is nothing to warn of
            moments = [x for side in (first, second) for x in (side.mean(0), side.std(0, ddof=1), len(side))]
            tested = scipy_stats.ttest_ind_from_stats(*moments, equal_var=False)
        p_values[spread] = tested.pvalue
    if permuted.any():
        p_values[permuted] = _permutation(a[:, permuted].T, b[:, permuted].T, paired)
    return p_values


def _permutation(a: np.ndarray, b: np.ndarray, paired: bool) -> np.ndarray:
    def mean(x: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(x.mean(axis=axis))

    def difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(x.mean(axis=axis) - y.mean(axis=axis))

    result = scipy_stats.permutation_test(
        (a - b,) if paired else (a, b),
        mean if paired else difference,
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        batch=max(1, _BATCH_VALUES // (a.size + b.size)),
        axis=-1,
        rng=np.random.default_rng(0),
    )
    return np.asarray(result.pvalue)


def _check(first: pd.DataFrame, second: pd.DataFrame, paired: bool, test: str) -> None:
    if test not in get_args(Test):
        raise UsageError(f"test {test!r}", ", ".join(get_args(Test)), "choose one of these")
    if set(first.columns) != set(second.columns) or not len(first.columns):
        raise UsageError("sets of other features", "the same features on both sides", "take both from one table")
    if paired and set(first.index) != set(second.index):
        raise UsageError("pairs of other units", "the same units on both sides", "compare them as two sets")
    if min(len(first), len(second)) < 2:
        raise UsageError(
            given=f"{len(first)} and {len(second)} units",
            allowed="two units or more on both sides",
            advice="add concepts: they are the units",
        )
    if first.isna().to_numpy().any() or second.isna().to_numpy().any():
        raise UsageError("missing activations", "a value for every unit and feature", "take both from one table")
