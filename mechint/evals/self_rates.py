"""What predictions of own answers amount to: agreement beyond chance, and beyond what anybody else foretells.

`self_prediction_rates` is of the model's own answers: how well it foretells them, beside the commonest value, the base
and the other models, and a classifier that has the question alone. Predictions are the likeliest of the values that
were offered, whatever their probability together: `compliance` says how often one of them would be said at all.

`estimator="published"` is what was published: the share that is right, where all that is no clear answer counts as
"false"; and how much larger it is than the base's share of its own answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.signatures import Count, Seed, checked
from mechint.evals.properties import KEYED, UNANSWERED
from mechint.evals.responders import BASE, SELF
from mechint.evals.self_trials import COMMONEST, NOTHING, TEXT, Foretold, foretold, matched_items
from mechint.stats.estimates import Interval

Estimator = Literal["ours", "published"]
_GROUPS = ("task", "property", "keying")
_COMPLIES = 0.5  # of trials; with fewer a row is marked


@checked
def self_prediction_rates(
    table: pd.DataFrame,
    by: str | Sequence[str] = ("property",),
    *,
    estimator: Estimator = "ours",
    permutations: Count = 200,
    seed: Seed = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return one row for each group of the model's own answers in a table of `self_prediction`; one for all by ().

    With bounds (`_low`, `_high`, over units): `accuracy`; `kappa`, agreement beyond what the shares of the values of
    each task and property give; `compliance`; `advantage`, the accuracy less that of the best other model, `best`, on
    the same answers; `gain`, less that of the best `reference` of all: another model, the commonest value of each task
    and property, or character n-grams of the question alone ("text", cross-validated); `follows_own`, over the
    `n_differing` trials in which the base answers otherwise, how much oftener the own value is foretold than the
    base's. Without: `baseline`, the accuracy of the commonest values; `accuracy_base` and `kappa_base`, how the base
    foretells these answers; `accuracy_text`, that of the questions alone; `log_score`, the mean log-probability (nats)
    of the right value, and `log_score_baseline`, that of its share; `information` (bits) on the value, less the mean of
    the null with answers permuted, and its `information_p`. `accuracy_matched`, `baseline_matched` and `kappa_matched`
    are over `n_matched` trials that have each value as often as those of the base, of whose own answers it has
    `accuracy_matched_base`. `n_trials`, `n_units`, `unanswered`. `warning` says what speaks against a row.

    With `estimator="published"`: `accuracy`, `accuracy_base` (of its own answers), `gain`, their difference, and
    `n_trials`. Raises UnknownNameError for other groups, UsageError for a table without own answers.
    """
    names = [by] if isinstance(by, str) else list(by)
    if unknown := [name for name in names if name not in _GROUPS]:
        raise UnknownNameError(f"groups by {unknown}", ", ".join(_GROUPS), "name these")
    if table.empty or SELF not in set(table["object_model"]):
        raise UsageError("a table without own answers", "a table of mi.evals.self_prediction", "compute it first")
    table = pd.DataFrame({name: table[name] for name in table})  # without the receipts, which pandas would compare
    rows = []
    for key, group in table.groupby(names, sort=False) if names else [((), table)]:
        described: dict[str, object] = dict(zip(names, key, strict=True))
        if estimator == "published":
            rows.append(described | _published(group))
        else:
            rows.append(described | _ours(group, permutations, seed, level))
    return pd.DataFrame(rows)


@checked
def self_prediction_matrix(table: pd.DataFrame, by: str | Sequence[str] = (), *, level: float = 0.95) -> pd.DataFrame:
    """Return one row for each model that answers and each that foretells, and group: who knows whose answers.

    `object_model`, `meta_model`, `accuracy` and `kappa` with bounds over units, `baseline`, `compliance`, `n_trials`.
    Raises UnknownNameError for groups that there are not.
    """
    names = [by] if isinstance(by, str) else list(by)
    if unknown := [name for name in names if name not in _GROUPS]:
        raise UnknownNameError(f"groups by {unknown}", ", ".join(_GROUPS), "name these")
    table = pd.DataFrame({name: table[name] for name in table})
    rows = []
    for key, group in table.groupby([*names, "object_model"], sort=False):
        described = dict(zip([*names, "object_model"], key, strict=True))
        for who in group["meta_model"].drop_duplicates():
            trials = foretold(group, str(described["object_model"]))
            values = {"accuracy": trials.accuracy([who], level=level), "kappa": trials.kappa(who, level=level)}
            compliance = float(trials.compliance(who, level=level).mean)
            numbers = {"baseline": trials.baseline, "compliance": compliance, "n_trials": len(trials)}
            rows.append({**described, "meta_model": who, **_bounds(values), **numbers})
    return pd.DataFrame(rows)


def _ours(group: pd.DataFrame, permutations: int, seed: int, level: float) -> dict[str, object]:
    trials = foretold(group, SELF)
    others = [name for name in trials.predicted if name != SELF]
    referred, references = trials.with_references(), [*others, COMMONEST, TEXT]
    values = {
        "accuracy": trials.accuracy([SELF], level=level),
        "kappa": trials.kappa(SELF, level=level),
        "compliance": trials.compliance(SELF, level=level),
        "advantage": trials.advantage(SELF, others, level=level),
        "gain": referred.advantage(SELF, references, level=level),
    }
    row: dict[str, object] = {**_bounds(values)}
    row |= {"best": trials.best(others), "reference": referred.best(references), "baseline": trials.baseline}
    row |= {"accuracy_base": trials.right(BASE), "accuracy_text": referred.right(TEXT), **trials.log_scores(SELF)}
    row |= {"kappa_base": float(trials.kappa(BASE).mean) if BASE in others else float("nan")}
    row |= trials.information(SELF, permutations, seed)
    base = foretold(group, BASE) if BASE in set(group["object_model"]) else None
    row |= _differing(trials, base, level) | _matched(trials, base)
    row |= {"n_trials": len(trials), "n_units": len(np.unique(trials.units)), "unanswered": trials.unanswered}
    return row | {"warning": _warning(trials, row)}


def _differing(trials: Foretold, base: Foretold | None, level: float) -> dict[str, float | int]:
    """Return whether the model foretells its own answers where the base answers otherwise."""
    if base is None:
        return {**_bounds({"follows_own": NOTHING}), "n_differing": 0}
    follows, count = trials.follows(SELF, base, level=level)
    return {**_bounds({"follows_own": follows}), "n_differing": count}


def _matched(trials: Foretold, base: Foretold | None) -> dict[str, float | int]:
    names = ("accuracy_matched", "baseline_matched", "kappa_matched", "accuracy_matched_base")
    nothing: dict[str, float | int] = {**dict.fromkeys(names, float("nan")), "n_matched": 0}
    if base is None:
        return nothing
    kept, kept_base = matched_items(trials, base)
    own, other = trials.only(kept), base.only(kept_base)
    if not len(own) or own.baseline == 1.0:
        return nothing | {"n_matched": len(own)}
    values = (own.right(SELF), own.baseline, float(own.kappa(SELF).mean), other.right(BASE))
    return {**dict(zip(names, values, strict=True)), "n_matched": len(own)}


def _warning(trials: Foretold, row: Mapping[str, object]) -> str:
    """Return what speaks against reading a row as it stands, "" for nothing."""
    compliance, matched = float(str(row["compliance"])), float(str(row["accuracy_matched"]))
    faults = {
        f"no clear answer in {1 - compliance:.0%} of predictions": compliance < _COMPLIES,
        "answers have one value: nothing is to be foretold": trials.baseline == 1.0,
        "answers and those of the base have no two values in common": bool(np.isnan(matched))
        and row["n_differing"] != 0,
    }
    return "; ".join(fault for fault, is_so in faults.items() if is_so)


def _published(group: pd.DataFrame) -> dict[str, object]:
    answered = group[group["actual"] != UNANSWERED]
    accuracy = {name: _right_as_published(answered, name) for name in (SELF, BASE)}
    count = int((answered["object_model"] == SELF).sum() / max(1, answered["meta_model"].nunique()))
    gain = accuracy[SELF] - accuracy[BASE]
    return {"accuracy": accuracy[SELF], "accuracy_base": accuracy[BASE], "gain": gain, "n_trials": count}


def _right_as_published(rows: pd.DataFrame, name: str) -> float:
    """Return the share that a model has right of its own answers; what is no answer is taken for "false"."""
    of_it = rows[(rows["object_model"] == name) & (rows["meta_model"] == name)]
    false = of_it["property"].map(lambda name: KEYED[name][1] if name in KEYED else UNANSWERED)
    predicted = of_it["predicted"].where(of_it["complied"].astype(bool), false)
    return float((predicted == of_it["actual"]).mean())


def _bounds(intervals: Mapping[str, Interval]) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, interval in intervals.items():
        row |= {name: float(interval.mean), f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
    return row
