"""Rates from a judge's outcomes on all replies and from labels on a random part of them: prediction-powered estimates.

The share of claims that the judge counts in all replies is moved by the mean of label less judge in the labelled part
(Angelopoulos and others, 2023). How far the judge is leant on is itself estimated (their PPI++): not at all, if its
outcomes say nothing of the labels. Nothing is assumed of the judge's errors; the labelled replies must be drawn at
random from each arm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.stats.intervals import mean_interval
from mechint.trials.arms import MISSING, Arms, arms_of, check_grid, flagged, judged_trials, selected
from mechint.trials.rates import COLUMNS, warnings_of
from mechint.trials.shares import CleanShare, Share, Values, net_interval

_FEWEST = 10  # labelled replies of an arm


@checked
def prediction_powered(
    trials: pd.DataFrame,
    outcomes: pd.DataFrame,
    labels: pd.DataFrame,
    by: Sequence[str] = ("model", "prompt"),
    *,
    judge: str,
    series: str = "injected",
    question: str = "introspection",
    unmatched: bool = False,
    max_missing: float = MISSING,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return hits and net detection by group as `rate_table` does, from outcomes and labels (`id, outcome`) together.

    Refusals count as denials. Raises UsageError for a group with fewer than ten labelled replies in an arm.
    """
    table = judged_trials(selected(trials, series, question, by), outcomes, judge, max_missing=max_missing)
    label = table["id"].map(labels.drop_duplicates("id").set_index("id")["outcome"])
    is_claim = flagged(table[["id"]].assign(outcome=label.to_numpy(dtype=object)))["claims"].to_numpy(dtype=np.float64)
    table = table.assign(label=np.where(label.notna(), is_claim, np.nan))
    rows: list[dict[str, object]] = []
    for group in arms_of(table, by):
        if not unmatched:
            check_grid(group.steered, group.description)
        steered, clean = _steered(group), _clean(group)
        hits = mean_interval(steered.over, level=level)
        net = net_interval(steered, clean, level)
        for name, value, interval in (("hits", steered.value, hits), ("net", steered.value - clean.value, net)):
            rows.append(
                {
                    **group.key,
                    "judge": judge,
                    "measure": name,
                    "refusals": "in",
                    "estimate": "prediction-powered",
                    "value": value,
                    "low": float(interval.low),
                    "high": float(interval.high),
                    "n_trials": group.n_steered,
                    "n_clean": group.n_clean,
                    "n_judged": len(group.steered) + len(group.clean),
                    "n_concepts": group.steered["concept"].nunique(),
                    "method": "prediction-powered, t over concepts",
                    "warning": warnings_of(group, unmatched),
                }
            )
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


def _steered(group: Arms) -> Share:
    """Return values by concept whose mean is the estimate."""
    verdict, label = _columns(group.steered, group, "steered")
    weight, rest, is_labelled = _rectified(verdict, label)
    codes = pd.factorize(group.steered["concept"])[0]
    units = codes.max() + 1
    shares = np.bincount(codes, weights=verdict) / np.bincount(codes)
    moved = np.bincount(codes[is_labelled], weights=rest[is_labelled] - rest[is_labelled].mean(), minlength=units)
    values = weight * shares + rest[is_labelled].mean() + units / is_labelled.sum() * moved
    return Share(values, np.ones(units))


def _clean(group: Arms) -> CleanShare:
    verdict, label = _columns(group.clean, group, "clean")
    weight, rest, is_labelled = _rectified(verdict, label)
    moved = np.where(is_labelled, np.nan_to_num(rest) - rest[is_labelled].mean(), 0.0)
    influence = weight * (verdict - verdict.mean()) + len(verdict) / is_labelled.sum() * moved
    return CleanShare(weight * float(verdict.mean()) + float(rest[is_labelled].mean()), influence)


def _columns(table: pd.DataFrame, group: Arms, arm: str) -> tuple[Values, Values]:
    label = table["label"].to_numpy(dtype=np.float64)
    n = int(np.isfinite(label).sum())
    if n < _FEWEST:
        raise UsageError(
            given=f"{n} labelled {arm} replies of {group.description}",
            allowed=f"at least {_FEWEST}, drawn at random from each arm",
            advice="label more of them, or correct by the judge's errors (corrected_rates)",
        )
    return table["claims"].to_numpy(dtype=np.float64), label


def _rectified(verdict: Values, label: Values) -> tuple[float, Values, np.ndarray]:
    """Return how far the judge is leant on, label less as much of the verdict, and which replies have labels."""
    is_labelled = np.isfinite(label)
    pair = verdict[is_labelled], label[is_labelled]
    variance = float(verdict.var())
    covariance = float(((pair[0] - pair[0].mean()) * (pair[1] - pair[1].mean())).mean())
    share = is_labelled.sum() / len(label)
    weight = float(np.clip(covariance / (variance * (1 + share)), 0.0, 1.0)) if variance > 0 else 0.0
    return weight, label - weight * verdict, is_labelled
