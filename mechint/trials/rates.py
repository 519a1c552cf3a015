"""Rates of a sweep by group, with intervals over concepts, and with refusals in, out and at their worst and best.

Published tables leave refusals out of one model and count them as false alarms in the next. Injection removes refusals,
so what is left without them is a selected part of either arm; no convention is right alone. Here all stand in rows of
one table (`refusals`): "in" counts a refusal as a denial, "out" leaves it out of both arms, "lowest" and "highest" are
what a rate would be if refusals hid the answer that is worst, or best, for it (bounds as of Manski, 1989). The lowest
net detection takes every clean refusal for a false alarm, as was published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.signatures import checked
from mechint.stats.intervals import Interval, mean_interval
from mechint.trials.arms import MISSING, Arms, arms_of, check_grid, judged_trials, selected
from mechint.trials.outcomes import Lexicon, mentions
from mechint.trials.shares import (
    REFUSALS,
    CleanShare,
    Counted,
    Refusals,
    Share,
    clean_interval,
    clean_share,
    concept_share,
    net_interval,
    share_interval,
)

FEW_CONCEPTS = 10
COLUMNS = (
    "judge",
    "measure",
    "refusals",
    "estimate",
    "value",
    "low",
    "high",
    "n_trials",
    "n_clean",
    "n_judged",
    "n_concepts",
    "method",
    "warning",
)


@dataclass(frozen=True)
class Measure:
    """A rate: what is counted in steered replies, in clean ones, or in the first less the second."""

    steered: Counted | None = None
    clean: Counted | None = None
    refusals: tuple[Refusals, ...] = ("in",)


_CLAIMS, _REFUSES, _COHERENT = Counted("claims"), Counted("refuses"), Counted("coherent")
# `foils` and `above_foils` are columns where `foils=` is given.
MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "hits": Measure(_CLAIMS, None, REFUSALS),
        "false alarms": Measure(None, _CLAIMS, REFUSALS),
        "net": Measure(_CLAIMS, _CLAIMS, REFUSALS),
        "introspection": Measure(Counted("rightly"), None, REFUSALS),
        "identification": Measure(Counted("rightly", "claims")),
        "chance": Measure(Counted("foils", "claims")),
        "identification above chance": Measure(Counted("above_foils", "claims")),
        "leaks": Measure(Counted("leaks")),
        "refusal": Measure(_REFUSES),
        "clean refusal": Measure(None, _REFUSES),
        "coherence": Measure(_COHERENT),
        "clean coherence": Measure(None, _COHERENT),
    }
)
NEED_FOILS = ("chance", "identification above chance")
OPPOSITE: Mapping[Refusals, Refusals] = MappingProxyType(
    {"in": "in", "out": "out", "lowest": "highest", "highest": "lowest"}
)


@checked
def rate_table(
    trials: pd.DataFrame,
    outcomes: pd.DataFrame,
    by: Sequence[str] = ("model", "prompt"),
    *,
    measures: Sequence[str] | None = None,
    series: str = "injected",
    question: str = "introspection",
    foils: pd.DataFrame | None = None,
    unmatched: bool = False,
    max_missing: float = MISSING,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return rates by group: `*by` and `COLUMNS`, a row for each judge, measure and convention of refusals.

    `outcomes` are classes of replies (`outcome_table`), of one judge or several. Steered replies are those of a
    `series` to a `question`; the clean ones to it are one sample for each model and prompt, whatever else the groups
    differ in. `value` is the mean over concepts, [low, high] its interval over them (`mi.stats`); of clean replies
    alone, over replies. Fewer than two concepts have NaN bounds. `foils` (`matches_of_others`) gives identification
    its chance.

    Raises UsageError for groups that pool unequal grids, unless `unmatched`, for more than `max_missing` replies
    without a verdict, and where a measure that was named lacks an arm; without names, such measures are left out.
    """
    chosen = _measures(measures, has_foils=foils is not None)
    everything = selected(trials, series, question, by)
    rows: list[dict[str, object]] = []
    for judge in dict.fromkeys(outcomes["judge"]):
        table = judged_trials(everything, outcomes, judge, max_missing=max_missing)
        for group in arms_of(_with_foils(table, foils, judge), by):
            if not unmatched:
                check_grid(group.steered, group.description)
            for name in chosen:
                if not _lacks_an_arm(name, group, named=measures is not None):
                    rows += _rows(name, group, judge, level, unmatched)
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


def _measures(names: Sequence[str] | None, *, has_foils: bool) -> list[str]:
    if names is None:
        return [name for name in MEASURES if has_foils or name not in NEED_FOILS]
    for name in names:
        if name not in MEASURES:
            raise UnknownNameError(given=f"measure {name!r}", allowed=", ".join(MEASURES), advice="name these")
        if name in NEED_FOILS and not has_foils:
            raise UsageError(
                given=f"the measure {name!r} without foils",
                allowed="foils=, the share of other concepts that each named text fits",
                advice="give foils=matches_of_others(trials, verdicts, lexicon)",
            )
    return list(names)


def _with_foils(table: pd.DataFrame, foils: pd.DataFrame | None, judge: str) -> pd.DataFrame:
    if foils is None:
        return table
    shares = foils[(foils["judge"] == judge) & (foils["pass_no"] == foils["pass_no"].min())].set_index("id")["foils"]
    values = table["id"].map(shares).fillna(0.0)
    return table.assign(foils=values, above_foils=table["rightly"] - values)


def _lacks_an_arm(name: str, group: Arms, *, named: bool) -> bool:
    """Whether a measure has no replies in an arm that it needs; an error where it was asked for by name."""
    needed = {"steered": (MEASURES[name].steered, group.steered), "clean": (MEASURES[name].clean, group.clean)}
    lacking = [arm for arm, (counted, table) in needed.items() if counted is not None and not len(table)]
    if lacking and named:
        raise UsageError(
            given=f"{name} of {group.description}, which has no {lacking[0]} replies",
            allowed="groups with both arms for net detection, and with the arm that other measures are of",
            advice="sample that arm, leave out the group, or take other measures",
        )
    return bool(lacking)


def _rows(name: str, group: Arms, judge: str, level: float, unmatched: bool) -> list[dict[str, object]]:
    measure = MEASURES[name]
    warning = warnings_of(group, unmatched) if measure.steered is not None else ""
    rows: list[dict[str, object]] = []
    for refusals in measure.refusals:
        value, interval, method = _interval(name, group, refusals, level)
        rows.append(
            {
                **group.key,
                "judge": judge,
                "measure": name,
                "refusals": refusals,
                "estimate": "raw",
                "value": value,
                "low": float(interval.low),
                "high": float(interval.high),
                "n_trials": group.n_steered,
                "n_clean": group.n_clean,
                "n_judged": len(group.steered) + len(group.clean),
                "n_concepts": group.steered["concept"].nunique(),
                "method": method,
                "warning": warning,
            }
        )
    return rows


def _interval(name: str, group: Arms, refusals: Refusals, level: float) -> tuple[float, Interval, str]:
    steered, clean = arm_shares(name, group, refusals)
    if steered is None:
        assert clean is not None
        return clean.value, clean_interval(clean, level), "exact over replies"
    if clean is None and name == "identification above chance":
        interval = mean_interval(steered.values(), level=level)
        return steered.value, interval, "t over concepts, corrected for skewness"
    if clean is None:
        method = "t over concepts, corrected for skewness" if steered.of_everything else "Fieller's over concepts"
        return steered.value, share_interval(steered, level), method
    interval = net_interval(steered, clean, level)
    return steered.value - clean.value, interval, "t over concepts, clean replies dealt to them"


def arm_shares(name: str, group: Arms, refusals: Refusals) -> tuple[Share | None, CleanShare | None]:
    """Return the shares of both arms that a measure is made of; for the lowest net detection, the highest clean one."""
    measure = MEASURES[name]
    both = measure.steered is not None and measure.clean is not None
    steered = concept_share(group.steered, measure.steered, refusals) if measure.steered is not None else None
    other = OPPOSITE[refusals] if both else refusals
    return steered, clean_share(group.clean, measure.clean, other) if measure.clean is not None else None


def warnings_of(group: Arms, unmatched: bool) -> str:
    """Return what a reader must know of a group's intervals, as one text."""
    n = group.steered["concept"].nunique()
    texts = ["grids may differ"] if unmatched else []
    texts += [group.left] if group.left else []
    if n < 2:
        texts.append("one concept: no interval")
    elif n < FEW_CONCEPTS:
        texts.append(f"{n} concepts: intervals of fewer than {FEW_CONCEPTS} rest on the shape of their spread")
    return "; ".join(texts)


@checked
def matches_of_others(trials: pd.DataFrame, verdicts: pd.DataFrame, lexicon: Lexicon) -> pd.DataFrame:
    """Return for each judged steered reply the share of the design's other concepts that its named text fits.

    Columns `id, judge, pass_no, foils`: the chance that a claim names rightly what was not injected.
    """
    steered = trials[(trials["series"] != "clean") & (trials["concept"] != "")]
    concepts = sorted({name for joined in steered["concept"] for name in joined.split("+")})
    judged = verdicts[verdicts["error"] == ""].merge(steered[["id", "concept"]], on="id")
    named = judged["named"].map(lambda text: text if isinstance(text, str) else "")
    words = {concept: tuple(lexicon.get(concept, ())) for concept in concepts}
    counts = []
    for text, joined in zip(named, judged["concept"], strict=True):
        others = [concept for concept in concepts if concept not in joined.split("+")]
        counts.append(np.mean([mentions(text, other, words) for other in others]) if text and others else 0.0)
    return judged[["id", "judge", "pass_no"]].assign(foils=np.asarray(counts, dtype=np.float64))
