"""Rates of detection trials by pool or cell: sensitivity apart from criterion, beside what a push alone would give.

Areas and rates compare steered trials with the clean texts, intervals are over vectors and texts. `estimator=
"published"` gives what was published instead, for comparison: accuracy over all trials, d' of rates that are cut off at
.01 and .99, trials as units, and no control.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.signatures import checked
from mechint.evals.texts import CONTROL, OWN
from mechint.stats.detected import Trials
from mechint.stats.intervals import PROBABILITY, Interval
from mechint.stats.jackknife import Rows, jackknife_interval
from mechint.stats.signal_detection import auc, d_prime

Estimator = Literal["ours", "published"]
LEAST_MASS = 0.1  # of both answers, below which their odds say little of what the model would answer
_CLIP = 0.01, 0.99
_GROUPS = ("recipe", "pool", "layers", "dose", "vector", "wording", "positive", "asked_in")


@checked
def detection_rates(
    table: pd.DataFrame,
    by: str | Sequence[str] = ("recipe", "pool"),
    *,
    alarms: float = 0.01,
    estimator: Estimator = "ours",
    level: float = 0.95,
) -> pd.DataFrame:
    """Return one row for each group of steered trials of a table of `detection`.

    Each value has its bounds in `<value>_low` and `<value>_high`: `auc`; `auc_control`, of the control questions after
    the same first turns; `auc_above_control`, their difference; `hits` and `alarms` where the answers are equally
    likely, with `d_prime` (log-linear) and `criterion`; `hits_at`, above a threshold with at most `alarms` on the dev
    texts, and `alarms_at`, how many there are on the clean ones. `mass` and `mass_clean` are means of the probability
    of both answers, `says` and `says_clean` the shares of trials in which the right answer has more than half of all
    probability. `n_trials`, `n_vectors`, `n_texts`, `n_clean` (distinct texts). `warning` says where `mass` is below
    0.1, the odds of answers that are hardly ever given, and where `alarms_at` is surely above `alarms`: a threshold
    that was set on texts with other wordings, and does not hold on these.

    With `estimator="published"`: `accuracy`, `hits`, `alarms`, `d_prime` and `n_trials`, without intervals.
    Raises UsageError for groups with fewer than 20 distinct clean texts, and for a table without steered trials.
    """
    names = [by] if isinstance(by, str) else list(by)
    if unknown := [name for name in names if name not in _GROUPS or name not in table]:
        raise UnknownNameError(
            f"groups by {unknown}", ", ".join(name for name in _GROUPS if name in table), "name these"
        )
    steered = table[table["kind"] == "steered"]
    if steered.empty:
        raise UsageError("a table without steered trials", "a table of mi.evals.detection", "compute it first")
    rows = []
    for key, group in steered.groupby(names, sort=False):
        clean = _like(table[table["kind"] == "clean"], names, key)
        described = dict(zip(names, key, strict=True))
        if estimator == "published":
            rows.append(described | _published(group, clean))
        else:
            rows.append(
                described | _ours(group, clean, _like(table[table["kind"] == "dev"], names, key), alarms, level)
            )
    return pd.DataFrame(rows)


@checked
def clean_rates(table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Return one row for each recipe and pool of clean texts: `auc` against the clean ones, and alarms in each.

    A detector of steering has an area of 0.5 for odd and long texts; one of odd text does not. Texts that were made
    from clean ones are compared with them text by text. `alarms` is the share of texts that the model calls steered,
    with its interval over texts. "null" is what strength 0 does: `auc` is 0.5 exactly.
    """
    rows = []
    untouched = table[(table["question"] == OWN) & ~table["kind"].isin(["steered"])]
    for (recipe, kind), group in untouched.groupby(["recipe", "kind"], sort=False):
        clean = untouched[(untouched["kind"] == "clean") & (untouched["recipe"] == recipe)]
        area = _area_over_texts(group, clean, level)
        called = group["score"].to_numpy() > 0
        alarms = jackknife_interval(
            lambda rows, called=called: float(called[rows].mean()),  # type: ignore[misc]
            [group["text"].to_numpy()],
            level=level,
            within=PROBABILITY,
        )
        counts = {"n_texts": group["text"].nunique(), "mass": float(group["mass"].mean())}
        rows.append({"recipe": recipe, "pool": kind, **_named("auc", area), **_named("alarms", alarms), **counts})
    return pd.DataFrame(rows)


def _ours(
    steered: pd.DataFrame, clean: pd.DataFrame, dev: pd.DataFrame, alarms: float, level: float
) -> dict[str, float | int | str]:
    trained, control = _trials(steered, clean, OWN), _trials(steered, clean, CONTROL)
    rates = trained.rates(level=level)
    hits_at, threshold = trained.hits_at(dev["score"].to_numpy(dtype=np.float64), alarms, level=level)
    values = {
        "auc": trained.area(level=level),
        "auc_control": control.area(level=level),
        "auc_above_control": trained.area_above(control, level=level),
        **rates,
        "hits_at": hits_at,
        "alarms_at": trained.alarms(threshold, level=level),
    }
    injected, unsteered = steered[steered["question"] == OWN], clean[clean["question"] == OWN]
    mass, mass_clean = float(injected["mass"].mean()), float(unsteered["mass"].mean())
    row: dict[str, float | int | str] = {}
    for name, interval in values.items():
        row |= _named(name, interval)
    return row | {
        "mass": mass,
        "mass_clean": mass_clean,
        "says": float((injected["says"] == injected["positive"]).mean()),
        "says_clean": float((unsteered["says"] == unsteered["negative"]).mean()),
        "n_trials": len(injected),
        "n_vectors": injected["vector"].nunique(),
        "n_texts": injected["text"].nunique(),
        "n_clean": trained.clean_texts,
        "warning": _warning(min(mass, mass_clean), values["alarms_at"], alarms),
    }


def _warning(mass: float, alarms_at: Interval, alarms: float) -> str:
    """Return what speaks against reading a row as it stands, "" for nothing."""
    faults = {
        f"mass below {LEAST_MASS:g}": mass < LEAST_MASS,
        "the threshold of the dev texts does not hold on others": float(alarms_at.low) > alarms,
    }
    return "; ".join(fault for fault, is_so in faults.items() if is_so)


def _trials(steered: pd.DataFrame, clean: pd.DataFrame, question: str) -> Trials:
    both = pd.concat([rows[rows["question"] == question] for rows in (steered, clean)])
    both = both.sort_values(["kind", "vector", "layers", "dose", "text"], kind="stable")
    return Trials(
        both["score"].to_numpy(dtype=np.float64),
        (both["kind"] == "steered").to_numpy(),
        both["vector"].to_numpy(dtype=str),
        both["text"].to_numpy(dtype=str),
    )


def _area_over_texts(group: pd.DataFrame, clean: pd.DataFrame, level: float) -> Interval:
    """Return the area between two pools of clean texts, each text left out of both in turn."""
    scores = np.concatenate([group["score"], clean["score"]])
    is_first = np.arange(len(scores)) < len(group)
    texts = np.concatenate([group["text"], clean["text"]])

    def statistic(rows: Rows) -> float:
        return auc(scores[rows & is_first], scores[rows & ~is_first])

    return jackknife_interval(statistic, [texts], level=level, within=PROBABILITY)


def _published(steered: pd.DataFrame, clean: pd.DataFrame) -> dict[str, float | int]:
    answers = [rows[rows["question"] == OWN]["score"].to_numpy() > 0 for rows in (steered, clean)]
    hits, alarms = float(answers[0].mean()), float(answers[1].mean())
    count = len(answers[0]) + len(answers[1])
    return {
        "accuracy": float((answers[0].sum() + (~answers[1]).sum()) / count),
        "hits": hits,
        "alarms": alarms,
        "d_prime": d_prime(*np.clip([hits, alarms], *_CLIP).tolist()),
        "n_trials": count,
    }


def _like(rows: pd.DataFrame, names: Sequence[str], key: tuple[object, ...]) -> pd.DataFrame:
    """Return the clean rows that a group is compared with: those that agree in what clean trials have too."""
    for name, value in zip(names, key, strict=True):
        if name in ("recipe", "asked_in", "positive", "wording"):
            rows = rows[rows[name] == value]
    return rows


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {name: float(interval.mean), f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
