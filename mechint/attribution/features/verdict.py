"""Causes or only correlates: the verdict on features, by one rule that is written down here.

The other steps of the same question lie in the neighbouring modules and are named here too.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint import stats
from mechint.attribution.features.cases import Case, cases_of
from mechint.attribution.features.clamping import Positions, ablate, clamp
from mechint.attribution.features.discrimination import adjusted, discriminate
from mechint.attribution.features.matched_effects import Candidates, trials
from mechint.attribution.features.necessity import measure, necessity, sufficiency
from mechint.attribution.features.random_sets import NEAR, MassBy
from mechint.attribution.features.recovery import curves, direction, one_sided
from mechint.base.errors import FeatureWarning, UsageError
from mechint.base.signatures import Seed, checked
from mechint.stats import intervals

__all__ = [
    "Case",
    "Rule",
    "Verdict",
    "ablate",
    "cases_of",
    "clamp",
    "curves",
    "judge",
    "measure",
    "necessity",
    "sufficiency",
    "trials",
    "verdict",
]

Verdict = Literal["cause", "opposes", "sufficient only", "undecided", "correlate", "neither", "no effect to explain"]


_EFFECTS = ("lost", "gained")
_MATCHED = tuple(f"{effect}_matched" for effect in _EFFECTS)
_MEASURED = (*_EFFECTS, *_MATCHED, "mass", "matched_mass", "clean", "injected", "logit_diff_shift")


@checked
@dataclass(frozen=True)
class Rule:
    """Thresholds of `judge`.

    `alpha`: false discovery rate; `least`: smallest fraction of the shift that a cause carries; `negligible`: fraction
    below which an effect counts as none; `least_shift`: smallest mean shift, in logits, that is worth explaining;
    `large`: |Cohen's d| of a feature that discriminates; `level`: of the intervals.
    """

    alpha: float = 0.05
    least: float = 0.1
    negligible: float = 0.02
    least_shift: float = 0.25
    large: float = 0.8
    level: float = 0.95

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.least < 1 and 0 < self.level < 1):
            raise UsageError(f"{self}", "alpha, least and level between 0 and 1", "keep the defaults")
        if not (self.least_shift >= 0 and self.large > 0 and 0 <= self.negligible <= self.least):
            allowed = "least_shift from 0 on, large above 0, negligible from 0 to least"
            raise UsageError(f"{self}", allowed, "keep the defaults")


@checked
def verdict(
    cases: Sequence[Case],
    candidates: Candidates,
    *,
    rule: Rule | None = None,
    discrimination: pd.DataFrame | None = None,
    positions: Positions = "read",
    n_random: int = NEAR,
    mass_by: MassBy = "change",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return the verdict of `judge` on each candidate, from `trials` of all cases; arguments as of these two.

    Candidates that were chosen for their effect in the very same cases are flattered a little: choose them in others.
    """
    table = trials(cases, candidates, positions=positions, n_random=n_random, mass_by=mass_by, seed=seed)
    return judge(table, rule=rule, discrimination=discrimination)


def judge(table: pd.DataFrame, *, rule: Rule | None = None, discrimination: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the verdict on each candidate of a table of `trials`, one row per candidate, by the rule of `_word`.

    All is over concepts, a concept's conversations averaged first. Columns:
    - lost (by removal) and gained (by insertion), lost_matched and gained_matched (others of the same mass), and their
      differences lost_excess and gained_excess: in logits, with intervals (_low, _high), and as fractions of the mean
      shift (lost_fraction, lost_fraction_low, ...; NaN where the shift's interval covers zero);
    - p_lost, p_gained: exact one-sided sign-flip test that the excess is above zero in the shift's direction (NaN where
      it has none); p_opposes: that lost_excess is below; q_lost, q_gained, q_opposes: FDR over the candidates;
    - d, d_q, discriminates: from `discrimination`, a table of `compare` or `discriminate`, where a set takes its surest
      feature's; by default of injected against clean, concept by concept;
    - clean, injected, mass, matched_mass (means over concepts), n, verdict.
    `attrs` holds the rule and the shift with its interval. Warns (FeatureWarning) where there are too few concepts for
    an exact test to tell a single cause among so many candidates. Raises UsageError for fewer than two concepts.
    """
    rule = rule or Rule()
    units = {name: stats.unit_means(table, ["component"], name, "concept") for name in _MEASURED}
    if units["lost"].shape[1] < 2 or units["lost"].isna().to_numpy().any():
        raise UsageError(
            given=f"trials of concepts {', '.join(map(str, units['lost'].columns))}",
            allowed="two concepts or more, each with every candidate",
            advice="add concepts: they are the units",
        )
    names = units["lost"].index
    shifts = units["logit_diff_shift"].to_numpy()[0]
    judged = _measures(units, shifts, rule)
    candidates = table.drop_duplicates("component").set_index("component")[["kind", "layer", "index", "features"]]
    judged = candidates.loc[names].join(judged)
    judged = judged.join(_discrimination(judged, units, discrimination, rule))
    shift = intervals.mean_interval(shifts, level=rule.level)
    judged["verdict"] = [_word(row, shift, rule) for _, row in judged.iterrows()]
    _warn(len(shifts), len(judged), rule)
    result = judged.reset_index()
    bounds = {"mean": float(shift.mean), "low": float(shift.low), "high": float(shift.high), "n": shift.n}
    result.attrs = {"rule": asdict(rule), "logit_diff_shift": bounds}
    return result


def _word(row: pd.Series, shift: intervals.Interval, rule: Rule) -> Verdict:
    """The rule, in this order. An effect is sure if q < alpha; its excess is over others of the same mass.

    1. "no effect to explain": the interval of the shift covers zero, or its mean is under `least_shift`.
    2. "cause": removing the candidate loses at least `least` of the shift, with an excess of `least` that is sure.
    3. "opposes": removing it makes the shift grow by at least `least`, surely more than removing others does.
    4. "sufficient only": inserting it gains at least `least`, with an excess of `least` that is sure, but removing it
       does not lose as much: others can stand in for it.
    5. "undecided": the intervals do not rule out that it is one of these.
    6. "correlate": it discriminates (|d| >= large or wholly, d_q < alpha), but neither removing nor inserting it does
       more than others: not surely, or so little (`negligible`) that it does not matter how sure it is.
    7. "neither": all else, such as a feature with a sure but small effect, and one that does not even discriminate.
    """
    if not shift.excludes_zero() or abs(float(shift.mean)) < rule.least_shift:
        return "no effect to explain"
    if _strong(row, "lost", rule):
        return "cause"
    if row["q_opposes"] < rule.alpha and row["lost_fraction"] <= -rule.least:
        return "opposes"
    if _strong(row, "gained", rule):
        return "sufficient only"
    if not all(_small(row, effect, rule) for effect in _EFFECTS):
        return "undecided"
    return "correlate" if row["discriminates"] and all(_none(row, effect, rule) for effect in _EFFECTS) else "neither"


def _strong(row: pd.Series, effect: str, rule: Rule) -> bool:
    smaller = min(row[f"{effect}_fraction"], row[f"{effect}_excess_fraction"])
    return bool(row[f"q_{effect}"] < rule.alpha and smaller >= rule.least)


def _small(row: pd.Series, effect: str, rule: Rule) -> bool:
    """Whether the intervals rule out an effect of `least`, of its own or beyond others, and one the other way."""
    high = min(row[f"{effect}_fraction_high"], row[f"{effect}_excess_fraction_high"])
    return bool(high < rule.least and row[f"{effect}_fraction_low"] > -rule.least)


def _none(row: pd.Series, effect: str, rule: Rule) -> bool:
    return bool(row[f"q_{effect}"] >= rule.alpha or row[f"{effect}_excess_fraction"] < rule.negligible)


def _measures(units: dict[str, pd.DataFrame], shifts: Float[np.ndarray, " concept"], rule: Rule) -> pd.DataFrame:
    """Means, intervals and p-values over concepts, one row per candidate."""
    names = units["lost"].index
    by_concept = {column: table.loc[names].to_numpy(dtype=np.float64) for column, table in units.items()}
    for effect in _EFFECTS:
        by_concept[f"{effect}_excess"] = by_concept[effect] - by_concept[f"{effect}_matched"]
    columns: dict[str, np.ndarray | list[float] | int] = {}
    for column in (effect + kind for effect in _EFFECTS for kind in ("", "_matched", "_excess")):
        interval = intervals.mean_interval(by_concept[column], level=rule.level)
        fraction = intervals.ratio_interval(by_concept[column], shifts, level=rule.level)
        for suffix, value in (("", interval), ("_fraction", fraction)):
            for end, bound in (("", value.mean), ("_low", value.low), ("_high", value.high)):
                columns[f"{column}{suffix}{end}"] = bound
    way = direction(shifts, rule.level)
    tested = {
        "lost": by_concept["lost_excess"],
        "gained": by_concept["gained_excess"],
        "opposes": -by_concept["lost_excess"],
    }
    for test, values in tested.items():
        p = np.array([one_sided(way * differences) for differences in values])
        columns |= {f"p_{test}": p, f"q_{test}": adjusted(p)}
    columns |= {column: by_concept[column].mean(1) for column in ("clean", "injected", "mass", "matched_mass")}
    return pd.DataFrame(columns | {"n": len(shifts)}, index=names)


def _discrimination(
    candidates: pd.DataFrame, units: dict[str, pd.DataFrame], discrimination: pd.DataFrame | None, rule: Rule
) -> pd.DataFrame:
    """d, its adjusted p-value, and whether it tells the sets apart, for each candidate."""
    if discrimination is None:
        contrasts = discriminate(units["injected"].T, units["clean"].T, paired=True, level=rule.level).set_index(
            "index"
        )
        rows = contrasts.loc[candidates.index]
    else:
        rows = pd.DataFrame(
            [_surest(discrimination, features) for features in candidates["features"]], index=candidates.index
        )
    large = (rows["d"].abs() >= rule.large) | ~rows["spread"].astype(bool)
    return pd.DataFrame({"d": rows["d"], "d_q": rows["q"], "discriminates": large & (rows["q"] < rule.alpha)})


def _surest(discrimination: pd.DataFrame, features: Sequence[int]) -> pd.Series:
    if missing := {"index", "d", "q", "spread"} - set(discrimination.columns):
        allowed = "a table of `compare` or `discriminate`"
        raise UsageError(f"discrimination without {', '.join(sorted(missing))}", allowed, "do not drop columns")
    rows = discrimination[discrimination["index"].isin(features)]
    if not len(rows):  # not active in any cell: it tells nothing apart
        return pd.Series({"d": np.nan, "q": np.nan, "spread": True})
    return rows.sort_values("q", kind="stable").iloc[0]


def _warn(concepts: int, candidates: int, rule: Rule) -> None:
    if 2.0**-concepts * candidates >= rule.alpha:
        warnings.warn(
            f"{concepts} concepts: the smallest p of the exact test is {2.0**-concepts:.2g}, too large for a single "
            f"cause among {candidates} candidates at a false discovery rate of {rule.alpha:g}; take more concepts, or "
            "fewer candidates",
            FeatureWarning,
            stacklevel=4,
        )
