"""Detection theory of trials: how far steered replies are from clean ones, apart from how readily a model says yes.

d' is z(hits) - z(false alarms) and the criterion -(z(hits) + z(false alarms)) / 2, z the normal quantile (Green and
Swets, 1966). Shares of 0 and 1 have none; half a reply is added to both answers of each arm (the log-linear correction;
Hautus, 1995). A curve of hits against false alarms needs an ordered answer: a judge's confidence, or the logit
difference of the first token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.stats.intervals import PROBABILITY, mean_interval
from mechint.stats.signal_detection import log_linear
from mechint.trials.arms import MISSING, Arms, arms_of, check_grid, judged_trials, selected
from mechint.trials.rates import warnings_of
from mechint.trials.shares import CleanShare, Counted, Refusals, Share, clean_share, concept_share

_CLAIMS = Counted("claims")
Scores = Float[np.ndarray, " replies"]


@checked
def detection_table(
    trials: pd.DataFrame,
    outcomes: pd.DataFrame,
    by: Sequence[str] = ("model", "prompt"),
    *,
    series: str = "injected",
    question: str = "introspection",
    refusals: Refusals = "in",
    unmatched: bool = False,
    max_missing: float = MISSING,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return d' and criterion by group: `*by, judge, measure, refusals, value, low, high, n_concepts, warning`.

    Hits are the mean over concepts. Intervals are over concepts, with the noise of clean replies, by linearising z at
    the shares. Raises UsageError for groups without an arm, and as `rate_table` does.
    """
    rows: list[dict[str, object]] = []
    for judge in dict.fromkeys(outcomes["judge"]):
        table = judged_trials(selected(trials, series, question, by), outcomes, judge, max_missing=max_missing)
        for group in arms_of(table, by):
            _check(group)
            if not unmatched:
                check_grid(group.steered, group.description)
            share, clean = concept_share(group.steered, _CLAIMS, refusals), clean_share(group.clean, _CLAIMS, refusals)
            for name, signs in (("d_prime", (1.0, -1.0)), ("criterion", (-0.5, -0.5))):
                values = _values(share, clean, len(group.steered), len(group.clean), signs)
                interval = mean_interval(values, level=level)
                rows.append(
                    {
                        **group.key,
                        "judge": judge,
                        "measure": name,
                        "refusals": refusals,
                        "value": float(values.mean()),
                        "low": float(interval.low),
                        "high": float(interval.high),
                        "n_concepts": len(values),
                        "warning": warnings_of(group, unmatched),
                    }
                )
    columns = [*by, "judge", "measure", "refusals", "value", "low", "high", "n_concepts", "warning"]
    return pd.DataFrame(rows, columns=columns)


def _check(group: Arms) -> None:
    if not len(group.steered) or not len(group.clean):
        raise UsageError(
            given=f"{group.description}: {len(group.steered)} steered and {len(group.clean)} clean replies",
            allowed="some of each: hits alone do not tell detection from a readiness to say yes",
            advice="sample clean replies, or leave the group out",
        )


def _values(
    share: Share, clean: CleanShare, n_steered: int, n_clean: int, signs: tuple[float, float]
) -> Float[np.ndarray, " units"]:
    """Return values by concept whose mean is signs[0] z(hits) + signs[1] z(alarms), linearised at these shares."""
    units = len(share.over)
    shares = log_linear(share.value * n_steered, n_steered), log_linear(clean.value * n_clean, n_clean)
    z = [float(stats.norm.ppf(value)) for value in shares]
    slopes = [1 / float(stats.norm.pdf(value)) for value in z]
    off_hits, off_alarms = share.values() - share.value, clean.folds(units) - clean.value
    middle = signs[0] * z[0] + signs[1] * z[1]
    return np.asarray(middle + signs[0] * slopes[0] * off_hits + signs[1] * slopes[1] * off_alarms)


@checked
def roc_table(
    trials: pd.DataFrame,
    scores: pd.DataFrame,
    by: Sequence[str] = ("model", "prompt"),
    *,
    series: str = "injected",
    question: str = "introspection",
    level: float = 0.95,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return curves of hits against false alarms, and the areas under them.

    `scores` has `id` and `score`, larger for surer claims: `confidence_scores` of a judge, or `logit_scores`. The
    curves are `*by, threshold, hits, false_alarms`: shares of replies with a score of the threshold or more, hits in
    the mean over concepts. Areas are `*by, value, low, high, n_concepts, n_scored`; 0.5 is chance. Their intervals are
    over concepts, with the noise of clean replies (placements; DeLong and others, 1988). Trials without a score are
    left out.
    """
    table = selected(trials, series, question, by)
    table = table.assign(score=table["id"].map(scores.drop_duplicates("id").set_index("id")["score"]))
    table = table.assign(is_judged=table["score"].notna())
    curves, areas = [], []
    for group in arms_of(table, by):
        _check(group)
        steered, clean = _scores(group.steered), _scores(group.clean)
        codes = pd.factorize(group.steered["concept"])[0]
        weights = 1 / np.bincount(codes)[codes] / (codes.max() + 1)
        for threshold in [np.inf, *np.unique(np.concatenate([steered, clean]))[::-1]]:
            hits, alarms = float(weights[steered >= threshold].sum()), float((clean >= threshold).mean())
            curves.append({**group.key, "threshold": threshold, "hits": hits, "false_alarms": alarms})
        values = _placements(steered, clean, codes, weights)
        # All alike, they may be at an end by chance; else folds of clean replies may lie a little outside of it.
        interval = mean_interval(values, level=level, within=PROBABILITY if np.ptp(values) == 0.0 else None)
        low, high = np.clip([float(interval.low), float(interval.high)], 0.0, 1.0)
        area = {"value": float(values.mean()), "low": low, "high": high, "n_concepts": len(values)}
        areas.append({**group.key, **area, "n_scored": len(steered) + len(clean)})
    columns = [*by, "value", "low", "high", "n_concepts", "n_scored"]
    return pd.DataFrame(curves, columns=[*by, "threshold", "hits", "false_alarms"]), pd.DataFrame(
        areas, columns=columns
    )


def _scores(table: pd.DataFrame) -> Scores:
    return np.asarray(table["score"].to_numpy(dtype=np.float64))


def _placements(
    steered: Scores, clean: Float[np.ndarray, " others"], codes: np.ndarray, weights: Scores
) -> Float[np.ndarray, " units"]:
    """Return values by concept whose mean is the area: where its replies lie among the clean ones, ties by half."""
    above = (stats.rankdata(np.concatenate([steered, clean]))[: len(steered)] - stats.rankdata(steered)) / len(clean)
    units = int(codes.max()) + 1
    by_concept = np.bincount(codes, weights=above) / np.bincount(codes)
    order = np.argsort(steered, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    ranks = [np.searchsorted(steered[order], clean, side=side) for side in ("left", "right")]
    passed = 1 - (sums[ranks[0]] + sums[ranks[1]]) / 2
    return np.asarray(by_concept + CleanShare(0.0, passed - passed.mean()).folds(units))


def confidence_scores(verdicts: pd.DataFrame, judge: str) -> pd.DataFrame:
    """Return a judge's confidence that a reply claims something, as scores. Raises UsageError where it has none."""
    chosen = verdicts[(verdicts["judge"] == judge) & (verdicts["error"] == "")]
    chosen = chosen[chosen["pass_no"] == chosen["pass_no"].min()]
    scores = chosen[["id"]].assign(score=chosen["confidence"].astype(np.float64).to_numpy())
    return _recorded(scores, f"the judge {judge}")


def logit_scores(trials: pd.DataFrame) -> pd.DataFrame:
    """Return logit(" yes") - logit(" no") where replies begin, as scores. Raises UsageError where none is recorded."""
    return _recorded(trials[["id"]].assign(score=trials["first_token_logit_diff"].to_numpy()), "the trials")


def _recorded(scores: pd.DataFrame, source: str) -> pd.DataFrame:
    scores = scores[scores["score"].notna()].reset_index(drop=True)
    if not len(scores):
        raise UsageError(
            given=f"{source}: no scores",
            allowed="verdicts with a confidence, or trials with first_token_logit_diff",
            advice="take a judge that has one (local:MODEL), or sample with mechint",
        )
    return scores
