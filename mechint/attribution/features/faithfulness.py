"""Attributed against measured effects of single features, and how much of the shift the top ones bring back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from mechint.attribution.features.cases import check_row
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.patching import feature_effects, stream_effect
from mechint.base.errors import UsageError
from mechint.base.signatures import Seed, checked
from mechint.interventions.listing import check_at_least
from mechint.stats.intervals import Interval, correlation_interval, mean_interval
from mechint.stats.units import strict_means

MEASURED = ("measured", "added", "removed")


@checked
def faithfulness(
    states: FeatureReading,
    clean: int,
    injected: int,
    attributions: pd.DataFrame,
    *,
    top: int = 30,
    n_random: int = 30,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return attributed effects of features beside measured ones: logit_diff with each of them set alone.

    `attributions` is a table of `attribute`, of which the rows of this conversation and intervention are taken: the
    `top` features by size, and `n_random` of the others that are drawn at random. Columns: conversation, intervention,
    component, layer, index, chosen ("top" or "random"), attribution, added (clean run with the feature's injected
    activations, minus clean), removed (injected, minus injected with the feature's clean activations) and measured
    (their mean), all in logits. For a table of measured effects ("patching") one of the two is no test: it is the same
    measurement. Raises UsageError for a table without such rows.
    """
    _check_rows(states, clean, injected)
    check_at_least("top", top)
    check_at_least("n_random", n_random, 0)
    rows = _rows_of(states, injected, attributions)
    order = rows["attribution"].abs().sort_values(ascending=False, kind="stable").index
    others = np.random.default_rng(seed).permutation(order[top:])[:n_random]
    table = rows.loc[[*order[:top], *others], ["conversation", "intervention", "component", "layer", "index"]]
    table["chosen"] = np.where(np.arange(len(table)) < top, "top", "random")
    table["attribution"] = rows["attribution"].loc[table.index]
    sets = [[int(feature)] for feature in table["index"]]
    table["added"] = feature_effects(states, clean, injected, sets).numpy()
    table["removed"] = -feature_effects(states, injected, clean, sets).numpy()
    table["measured"] = (table["added"] + table["removed"]) / 2
    return table.reset_index(drop=True)


@checked
def rank_correlation(
    table: pd.DataFrame, measured: str = "measured", *, unit: str = "intervention", level: float = 0.95
) -> Interval:
    """Return Spearman's rank correlation of attributed and measured effects in tables of `faithfulness`.

    It is taken within each conversation and intervention. The interval's units are those of column `unit` (concepts),
    whose tables are averaged first. For a single conversation and intervention they are its features
    (`correlation_interval`), and the interval says nothing about other concepts. NaN where an effect is the same for
    all features. Raises UsageError for a table without the columns.
    """
    needed = ("conversation", "intervention", "attribution", measured, unit)
    if measured not in MEASURED or not set(needed) <= set(table.columns) or table.empty:
        raise UsageError(
            given=f"measured={measured!r}, columns {', '.join(map(str, table.columns))}",
            allowed=f"a table of faithfulness with rows, and one of {', '.join(MEASURED)}",
            advice="join tables of faithfulness with pd.concat",
        )
    pair = ["attribution", measured]
    groups = [group for _, group in table.groupby(["conversation", "intervention"], sort=False)]
    if len(groups) == 1:
        values = groups[0][pair].to_numpy(dtype=np.float64).T
        rho, n = _spearman(values), values.shape[1]
        return correlation_interval(float(rho), n, level=level) if np.isfinite(rho) else Interval(rho, rho, rho, n)
    correlations = pd.DataFrame(
        {
            "unit": [group[unit].iloc[0] for group in groups],
            "rho": [float(_spearman(group[pair].to_numpy(dtype=np.float64).T)) for group in groups],
        }
    )
    means = strict_means(correlations, ["unit"], "rho")
    return mean_interval(means.to_numpy(dtype=np.float64), level=level, within=(-1, 1))


@checked
def recovered_by_top(
    states: FeatureReading, clean: int, injected: int, order: Sequence[int], ks: Sequence[int]
) -> pd.DataFrame:
    """Return the fraction of the shift of logit_diff that the first k features of `order` bring into the clean run.

    They are given their injected activations, each at every read position. Columns: k, logit_diff, recovered (NaN if
    there is no shift). `attrs` holds what bounds it: recovered_by_all (all features of the dictionary that differ) and
    recovered_by_stream (the SAE's error too; what is still missing is read from the caches above the dictionary's
    layer), and logit_diff_shift. Raises UsageError for a k outside 0 to len(order).
    """
    _check_rows(states, clean, injected)
    if not ks or not all(0 <= k <= len(order) for k in ks):
        raise UsageError(f"ks={list(ks)}", f"numbers of features from 0 to {len(order)}", "give fewer features")
    differing = (states.acts[clean] != states.acts[injected]).any(0).nonzero()[:, 0].tolist()
    effects = feature_effects(states, clean, injected, [*(list(order)[:k] for k in ks), differing]).numpy()
    start, stop = float(states.logit_diffs[clean]), float(states.logit_diffs[injected])
    shift = stop - start if stop != start else float("nan")
    table = pd.DataFrame({"k": list(ks), "logit_diff": start + effects[:-1], "recovered": effects[:-1] / shift})
    table.attrs = {
        "recovered_by_all": float(effects[-1] / shift),
        "recovered_by_stream": stream_effect(states, clean, injected) / shift,
        "logit_diff_shift": stop - start,
    }
    return table


def _check_rows(states: FeatureReading, *rows: int) -> None:
    for row in rows:
        check_row(states, row)


def _rows_of(states: FeatureReading, injected: int, attributions: pd.DataFrame) -> pd.DataFrame:
    reading = states.reading
    required: dict[str, str | int] = {"kind": "feature", "conversation": reading.rendered.label}
    required |= {"intervention": reading.names[injected], "layer": states.dictionary.layer}
    missing = [name for name in (*required, "component", "index", "attribution") if name not in attributions]
    rows = attributions
    for name, value in required.items():
        rows = rows if missing else rows[rows[name] == value]
    if missing or rows.empty:
        raise UsageError(
            given=f"a table without {', '.join(missing) or f'rows where {required}'}",
            allowed="a table of attribute for the same reading and SAE",
            advice="pass what attribute() or attribute_all() returned for these states",
        )
    return rows.reset_index(drop=True)


def _spearman(pairs: Float[np.ndarray, "two *sets n"]) -> Float[np.ndarray, "*sets"]:
    """Pearson correlation of ranks (ties share theirs) over the last axis; NaN where all are equal."""
    ranks = stats.rankdata(pairs, axis=-1)
    a, b = ranks - ranks.mean(-1, keepdims=True)
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.asarray(np.divide((a * b).sum(-1), size, out=np.full(size.shape, np.nan), where=size > 0))
