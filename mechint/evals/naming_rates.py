"""How well a concept is named, beyond what its vector makes the model say anyway, by mode and dose.

`estimator="published"` is what was counted there: whether the word comes first while the vector goes on, whatever it
would have said to another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.signatures import checked
from mechint.stats.intervals import PROBABILITY, Interval, mean_interval

Estimator = Literal["ours", "published"]
_GROUPS = ("mode", "dose")
_BOTH = (-1.0, 1.0)  # bounds of a difference of two shares


@checked
def naming_rates(
    table: pd.DataFrame,
    by: str | Sequence[str] = _GROUPS,
    *,
    estimator: Estimator = "ours",
    level: float = 0.95,
) -> pd.DataFrame:
    """Return one row for each mode and dose of a table of `realtime`, with intervals over concepts (`_low`, `_high`).

    `naming`, the share of questions after the concept to which its name is the likeliest of the names; `leakage`, the
    same share of unrelated questions; `naming_above_leakage`, their difference by concept; `lift` and `leaked_lift`,
    nats that steering adds to the name's log probability in both, and `lift_above_leakage`; `choice`, the share of
    lists of which the concept is chosen, and `chance`, one in so many; `loss`, what steering adds to that of plain
    text; `n_concepts`, `mass` of all names where they are asked for.

    `estimator="published"`: `naming`, the share of concepts whose name comes first in active steering, and `n_trials`.
    Raises UsageError for a table without questions of both kinds.
    """
    names = [by] if isinstance(by, str) else list(by)
    if unknown := [name for name in names if name not in _GROUPS]:
        raise UnknownNameError(f"groups by {unknown}", ", ".join(_GROUPS), "name these")
    steered = table[table["concept"] != ""]
    if set(steered["kind"]) < {"asked", "unrelated"}:
        raise UsageError(
            given=f"a table with questions {sorted(set(steered['kind']))}",
            allowed="questions after the concept and unrelated ones",
            advice="compute the rest of the table: a shard has only a part of it",
        )
    rows = []
    for key, group in steered.groupby(names, sort=False) if names else [((), steered)]:
        described = dict(zip(names, key, strict=True))
        if estimator == "published":
            active = group[(group["mode"] == "active") & (group["kind"] == "asked")]
            rows.append(described | {"naming": float(active["first"].mean()), "n_trials": len(active)})
        else:
            rows.append(described | _ours(group, level))
    return pd.DataFrame(rows)


def _ours(group: pd.DataFrame, level: float) -> dict[str, float | int]:
    concepts = sorted(set(group["concept"]))

    def of_kind(kind: str, column: str) -> np.ndarray:
        rows = group[group["kind"] == kind]
        means = rows.groupby("concept")[column].mean().reindex(concepts)
        return np.asarray(means.to_numpy(dtype=np.float64))

    hits, leaked = of_kind("asked", "hit"), of_kind("unrelated", "hit")
    lift, leaked_lift = of_kind("asked", "lift"), of_kind("unrelated", "lift")
    values = {
        "naming": mean_interval(hits, level=level, within=PROBABILITY),
        "leakage": mean_interval(leaked, level=level, within=PROBABILITY),
        "naming_above_leakage": mean_interval(hits - leaked, level=level, within=_BOTH),
        "lift": mean_interval(lift, level=level),
        "leaked_lift": mean_interval(leaked_lift, level=level),
        "lift_above_leakage": mean_interval(lift - leaked_lift, level=level),
        "loss": mean_interval(of_kind("asked", "loss"), level=level),
    }
    if (group["kind"] == "choice").any():
        values["choice"] = mean_interval(of_kind("choice", "hit"), level=level, within=PROBABILITY)
    row: dict[str, float | int] = {}
    for name, interval in values.items():
        row |= _named(name, interval)
    mass = float(group[group["kind"] == "asked"]["mass"].mean())
    return row | {"chance": 1 / len(concepts), "n_concepts": len(concepts), "mass": mass}


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {name: float(interval.mean), f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
