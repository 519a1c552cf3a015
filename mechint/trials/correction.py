"""Rates with the errors of their judge in them: what a share of claims would be, had each been read rightly.

A judge that sees claims with sensitivity s and leaves the others alone with specificity t counts s x + (1 - t)(1 - x)
where the share is x; solved for x it is the estimate of Rogan and Gladen (1978), kept within 0 and 1. s and t are
counted on labelled replies, apart for steered and clean ones, and are uncertain themselves (Jeffreys' posterior of
both). That and the spread over concepts are combined by drawing all of them together. Means over concepts are drawn
from the interval of `mi.stats` at every level at once, and not by resampling concepts: percentiles of resamples cover
88% with eight (docs/intervals.md).

Where a random part of the replies has labels, the estimate is prediction-powered (Angelopoulos and others, 2023): the
judge's share, moved by what it is off in the labelled part. It needs no judge that is equally wrong everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.base.errors import UsageError
from mechint.base.signatures import Seed, checked
from mechint.stats.estimates import Estimate, mean_estimate
from mechint.trials.arms import MISSING, Arms, arms_of, check_grid, flagged, judged_trials, selected
from mechint.trials.rates import COLUMNS, OPPOSITE, warnings_of
from mechint.trials.shares import REFUSALS, CleanShare, Counted, Refusals, Share, clean_share, concept_share

LEAST_INFORMATION = 0.2  # sensitivity + specificity - 1 below which a judge says too little to be corrected
_DRAWS = 4000
_CLAIMS, _RIGHTLY = Counted("claims"), Counted("rightly")
Draws = Float[np.ndarray, " draws"]
Shares = Float[np.ndarray, "*shares"]


@dataclass(frozen=True)
class Confusion:
    """Counts of labelled replies: a judge's yes where there is one (`tp`) and where not (`fp`), its no likewise."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def sensitivity(self) -> float:
        """Share of true claims that are seen; 0.5 where none was labelled."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.5

    @property
    def specificity(self) -> float:
        """Share of other replies in which none is seen; 0.5 where none was labelled."""
        return self.tn / (self.tn + self.fp) if self.tn + self.fp else 0.5

    @property
    def information(self) -> float:
        """Sensitivity + specificity - 1: 1 for a judge without errors, 0 for one that throws a coin."""
        return self.sensitivity + self.specificity - 1

    def draws(self, rng: np.random.Generator, n: int) -> tuple[Draws, Draws]:
        """Return draws of sensitivity and specificity from Jeffreys' posterior."""
        return rng.beta(self.tp + 0.5, self.fn + 0.5, n), rng.beta(self.tn + 0.5, self.fp + 0.5, n)


def rogan_gladen(share: Shares | float, sensitivity: Shares | float, specificity: Shares | float) -> Shares:
    """Return the share of what a judge with these errors has counted in `share` of cases, within 0 and 1."""
    information = np.maximum(np.asarray(sensitivity) + specificity - 1, 1e-9)
    return np.asarray(np.clip((np.asarray(share) + specificity - 1) / information, 0.0, 1.0))


@checked
def confusions(
    trials: pd.DataFrame, labels: pd.DataFrame, outcomes: pd.DataFrame, judge: str, *, counted: str = "claims"
) -> dict[str, Confusion]:
    """Return by series how a judge's outcomes agree with labels (`id, outcome`); `counted` is "claims" or "rightly"."""
    if counted not in ("claims", "rightly"):
        raise UsageError(given=f"counted={counted!r}", allowed="'claims' or 'rightly'", advice="take one of both")
    chosen = outcomes[outcomes["judge"] == judge]
    chosen = chosen[chosen["pass_no"] == chosen["pass_no"].min()]
    both = labels[["id", "outcome"]].merge(chosen[["id", "outcome"]], on="id", suffixes=("_label", ""))
    both = both.merge(trials[["id", "series"]], on="id")
    label = flagged(both.assign(outcome=both["outcome_label"]))[counted]
    verdict = flagged(both)[counted]
    counts: dict[str, Confusion] = {}
    for series in dict.fromkeys(both["series"]):
        yes, seen = label[both["series"] == series], verdict[both["series"] == series]
        counts[series] = Confusion(
            int((yes & seen).sum()), int((~yes & seen).sum()), int((yes & ~seen).sum()), int((~yes & ~seen).sum())
        )
    return counts


@checked
def corrected_rates(
    trials: pd.DataFrame,
    outcomes: pd.DataFrame,
    errors: Mapping[str, Confusion],
    by: Sequence[str] = ("model", "prompt"),
    *,
    judge: str,
    naming: Confusion | None = None,
    bounds: Mapping[str, Confusion] | None = None,
    series: str = "injected",
    question: str = "introspection",
    unmatched: bool = False,
    max_missing: float = MISSING,
    level: float = 0.95,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return hits, false alarms and net detection by group as `rate_table` does, corrected for the errors of a judge.

    `errors` are counts of labelled replies by series (`confusions`), of claims; `naming` those of claims that name
    rightly, for introspection; `bounds` those of replies that claim or refuse, by series too: with them there are the
    lowest and the highest rates, of which the highest is no less than that of claims. Raises UsageError for an arm
    without counts. Where a judge's sensitivity + specificity - 1 is below 0.2 in an arm, what needs that arm is not
    identified: NaN, and the warning says so.
    """
    counted = [errors] if bounds is None else [errors, bounds]
    if missing := [arm for arm in (series, "clean") if any(arm not in counts for counts in counted)]:
        raise UsageError(
            given=f"no labelled replies of the series {', '.join(missing)}",
            allowed="counts for the steered and for the clean arm: a judge may err differently in both",
            advice="label some replies of each arm",
        )
    rows: list[dict[str, object]] = []
    table = judged_trials(selected(trials, series, question, by), outcomes, judge, max_missing=max_missing)
    for group in arms_of(table, by):
        if not unmatched:
            check_grid(group.steered, group.description)
        for refusals in ("in", "out") if bounds is None else REFUSALS:
            rng = np.random.default_rng(seed)
            arms = _arms(group, _Errors(errors, bounds or {}, naming), series, refusals, rng)
            for name, corrected in arms.items():
                rows.append(_row(name, group, judge, refusals, corrected, level, unmatched))
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


@dataclass(frozen=True)
class _Corrected:
    """A corrected share, and draws of what it may be."""

    value: float
    draws: Draws
    problem: str = ""

    def minus(self, other: _Corrected) -> _Corrected:
        return _Corrected(self.value - other.value, self.draws - other.draws, self._problem(other))

    def at_least(self, other: _Corrected) -> _Corrected:
        value, draws = np.maximum(self.value, other.value), np.maximum(self.draws, other.draws)
        return _Corrected(float(value), draws, self._problem(other))

    def _problem(self, other: _Corrected) -> str:
        return "; ".join(dict.fromkeys(text for text in (self.problem, other.problem) if text))


@dataclass(frozen=True)
class _Errors:
    """Counts of a judge's errors: of claims, and of claims or refusals, by series; of claims that name rightly."""

    claims: Mapping[str, Confusion]
    bounds: Mapping[str, Confusion]
    naming: Confusion | None

    def of(self, arm: str, refusals: Refusals) -> Confusion:
        """Return those of what is counted in an arm: with refusals at their highest, of claims or refusals."""
        return self.bounds[arm] if refusals == "highest" else self.claims[arm]


def _arms(
    group: Arms, errors: _Errors, series: str, refusals: Refusals, rng: np.random.Generator
) -> dict[str, _Corrected]:
    """Return the corrected rates of a group by measure; the lowest net detection is less the highest false alarms."""

    def steered(convention: Refusals) -> _Corrected:
        share = _steered(group, _CLAIMS, errors.of(series, convention), convention, rng)
        return share.at_least(steered("in")) if convention == "highest" else share

    def clean(convention: Refusals) -> _Corrected:
        share = _clean(group, errors.of("clean", convention), convention, rng)
        return share.at_least(clean("in")) if convention == "highest" else share

    other = OPPOSITE[refusals]
    hits, alarms = steered(refusals), clean(refusals)
    arms = {"hits": hits, "false alarms": alarms, "net": hits.minus(alarms if other == refusals else clean(other))}
    if errors.naming is not None and other == refusals:
        arms["introspection"] = _steered(group, _RIGHTLY, errors.naming, refusals, rng)
    return arms


def _steered(
    group: Arms, counted: Counted, errors: Confusion, refusals: Refusals, rng: np.random.Generator
) -> _Corrected:
    share = concept_share(group.steered, counted, refusals)
    return _solved(share.value, share_draws(share, rng, _DRAWS), errors, rng, "steered")


def _clean(group: Arms, errors: Confusion, refusals: Refusals, rng: np.random.Generator) -> _Corrected:
    if not len(group.clean):
        return _Corrected(float("nan"), np.full(_DRAWS, np.nan), "no clean replies")
    share = clean_share(group.clean, _CLAIMS, refusals)
    return _solved(share.value, _clean_draws(share, rng, _DRAWS), errors, rng, "clean")


def _solved(value: float, draws: Draws, errors: Confusion, rng: np.random.Generator, arm: str) -> _Corrected:
    if errors.information < LEAST_INFORMATION:
        problem = f"not identified: sensitivity + specificity - 1 is {errors.information:.2f} in {arm} replies"
        return _Corrected(float("nan"), np.full(len(draws), np.nan), problem)
    point = float(rogan_gladen(value, errors.sensitivity, errors.specificity)) if np.isfinite(value) else value
    return _Corrected(point, rogan_gladen(draws, *errors.draws(rng, len(draws))))


def share_draws(share: Share, rng: np.random.Generator, n: int) -> Draws:
    """Return draws of a share over concepts, whose quantiles are the bounds of its intervals at all levels."""
    values = share.values()
    units = len(values)
    if units < 2 or not np.isfinite(values).all():
        return np.full(n, np.nan)
    if np.ptp(values) == 0.0:
        # As the exact interval of as many units that are all 0, or all 1.
        unseen = 1 - rng.random(n) ** (1 / units)
        return np.asarray({0.0: unseen, 1.0: 1 - unseen}.get(float(values[0]), np.full(n, values[0])))
    single = mean_estimate(values)
    parts = (single.mean, single.variance, single.skewness, single.freedom)
    t = rng.standard_t(units - 1, n)
    low, high = Estimate(*[np.full(n, part) for part in parts]).bounds(np.abs(t))
    return np.asarray(np.clip(np.where(t < 0, low, high), 0.0, 1.0))


def _clean_draws(share: CleanShare, rng: np.random.Generator, n: int) -> Draws:
    if share.counts is not None:
        yes, of = share.counts
        return rng.beta(yes + 0.5, of - yes + 0.5, n)
    error = float(np.sqrt((share.influence**2).mean() / len(share.influence)))
    return np.asarray(np.clip(rng.normal(share.value, error, n), 0.0, 1.0))


def _row(
    name: str, group: Arms, judge: str, refusals: str, corrected: _Corrected, level: float, unmatched: bool
) -> dict[str, object]:
    low, high = np.quantile(corrected.draws, [(1 - level) / 2, (1 + level) / 2])
    warning = "; ".join(text for text in (corrected.problem, warnings_of(group, unmatched)) if text)
    return {
        **group.key,
        "judge": judge,
        "measure": name,
        "refusals": refusals,
        "estimate": "corrected",
        "value": corrected.value,
        "low": float(low),
        "high": float(high),
        "n_trials": group.n_steered,
        "n_clean": group.n_clean,
        "n_judged": len(group.steered) + len(group.clean),
        "n_concepts": group.steered["concept"].nunique(),
        "method": "Rogan-Gladen, judge's errors and concepts drawn together",
        "warning": warning,
    }
