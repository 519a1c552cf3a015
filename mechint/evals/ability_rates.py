"""What a training has cost, in each measure beside the base's own value, with intervals over texts, facts, concepts.

`estimator="published"` is what was published: the accuracy on facts alone, without an interval.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.evals.ability import FACTS, NEUTRAL_SET, STEERED, TEXT
from mechint.evals.responders import BASE, SELF
from mechint.stats.estimates import Interval
from mechint.stats.intervals import PROBABILITY, mean_interval

Estimator = Literal["ours", "published"]
# The measures of each set, and whether their values are shares.
MEASURES: dict[str, dict[str, bool]] = {
    TEXT: {"loss": False},
    NEUTRAL_SET: {"loss": False, "kl": False},
    FACTS: {"right": True, "log_odds": False},
    STEERED: {"right": True, "shift": False, "loss": False},
}


@checked
def ability_rates(table: pd.DataFrame, *, estimator: Estimator = "ours", level: float = 0.95) -> pd.DataFrame:
    """Return one row for each set, dose and measure of a table of `ability`.

    `set`, `dose`, `measure`: "loss" and "kl" in nats per token, "right" a share, "log_odds" and "shift" in nats;
    `value` of the model and `base`, that of the base, means over `n_items` texts, facts or concepts; `difference`, the
    first less the second on the same ones. Values and differences have bounds (`_low`, `_high`). NaN where there is no
    base. With `estimator="published"`: `value`, `base` and `difference` of the accuracy on facts. Raises UsageError for
    a table without the model's own rows.
    """
    if table.empty or SELF not in set(table["model"]):
        raise UsageError("a table without the model's rows", "a table of mi.evals.ability", "compute it first")
    rows = []
    for (set_, dose), group in table.groupby(["set", "dose"], sort=False):
        for measure, is_share in MEASURES[str(set_)].items():
            row = _compared(group, measure, is_share, level)
            rows.append({"set": set_, "dose": dose, "measure": measure, **row})
    rates = pd.DataFrame(rows)
    if estimator == "ours":
        return rates
    of_facts = rates[(rates["set"] == FACTS) & (rates["measure"] == "right")]
    return of_facts[["set", "measure", "value", "base", "difference", "n_items"]].reset_index(drop=True)


def _compared(group: pd.DataFrame, measure: str, is_share: bool, level: float) -> dict[str, float | int]:
    wide = group.set_index(["item", "model"])[measure].unstack("model")
    own = wide[SELF].to_numpy(dtype=np.float64)
    value = mean_interval(own, level=level, within=PROBABILITY if is_share else None)
    row: dict[str, float | int] = _named("value", value)
    if BASE in wide:
        other = wide[BASE].to_numpy(dtype=np.float64)
        difference = mean_interval(own - other, level=level, within=(-1.0, 1.0) if is_share else None)
        row |= {"base": float(other.mean()), **_named("difference", difference)}
    else:
        row |= dict.fromkeys(("base", "difference", "difference_low", "difference_high"), float("nan"))
    return row | {"n_items": len(own)}


def _named(name: str, interval: Interval) -> dict[str, float | int]:
    return {name: float(interval.mean), f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
