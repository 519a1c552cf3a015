"""What a battery amounts to: stance and bias by group, shift apart from compression, and a contrast with controls.

A model that has become indifferent answers nearer to even odds: questions that it denied move up. So what changed is a
line, after = shift + slope x before, over the items of a group: the shift is at even odds, the slope is 1 without
compression. `contrast` compares questions on the model itself with controls at the same log odds before.

`estimator="published"` is what was published: the mean of P(yes), whatever its mass, over questions that were all keyed
yes, at a free first token; and its difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.evals.detection_rates import LEAST_MASS
from mechint.stats.compression import compression, matched_contrast
from mechint.stats.estimates import Interval
from mechint.stats.intervals import PROBABILITY, mean_interval

Estimator = Literal["ours", "published"]
FREE, ALL = "free", "all"
_KEY = ["item", "group", "side", "format"]


@checked
def stances(
    after: pd.DataFrame, before: pd.DataFrame | None = None, *, estimator: Estimator = "ours", level: float = 0.95
) -> pd.DataFrame:
    """Return one row for each group of items of a table of `battery`.

    `stance`, above 0 where clauses are affirmed, and `bias`, above 0 where the positive answer is given to anything, in
    nats, means over items with intervals (`_low`, `_high`); `stance_<format>` for each format; `mass`, `refusal`,
    `n_items`; `low_mass`, the share of answers with a mass below 0.1, and a `warning` where there are any. With a table
    of the base, `stance_before`, `mass_before`, and `shift` and `slope` over items and formats, whose units are items.

    Answers of little mass are left in, and marked. `estimator="published"` gives `p_yes` and, with a base,
    `p_yes_before` and `shift`, their difference. Raises UsageError for a base that was asked other questions.
    """
    _check(after, before)
    groups = after["group"].drop_duplicates()
    if estimator == "published":
        return pd.DataFrame([_published(after, before, group) for group in groups])
    read, base = _read(after), None if before is None else _read(before)
    rows = []
    for group in groups:
        chosen = read[read["group"] == group]
        row = _described(chosen, level)
        if base is not None:
            row |= _change(chosen, base[base["group"] == group], level)
        rows.append(row)
    return pd.DataFrame(rows)


@checked
def contrast(after: pd.DataFrame, before: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Return how far each group on the model itself, and all of them, moved beyond controls with the same log odds.

    One row for each: `contrast` in nats, from the line of all controls at each item's own log odds before, with its
    interval over items, those of the groups wider so that all hold together; `outside`, the share of items whose log
    odds before no control has, where the line is only believed. Raises UsageError for a base that was asked other
    questions, and for no controls.
    """
    _check(after, before)
    both = _read(after).merge(_read(before), on=_KEY, suffixes=("", "_before"), validate="one_to_one")
    of_self = list(both[both["side"] == "self"]["group"].drop_duplicates())
    # Bounds of the groups hold together (Bonferroni's correction), that of all items by itself.
    levels = {group: 1 - (1 - level) / len(of_self) for group in of_self}
    rows = [_above_controls(both, group, [group], levels[group]) for group in of_self]
    return pd.DataFrame([*rows, _above_controls(both, ALL, of_self, level)])


def _above_controls(both: pd.DataFrame, name: str, groups: Sequence[str], level: float) -> dict[str, float | str]:
    chosen = both[both["group"].isin(groups) | (both["side"] == "control")]
    interval, outside = matched_contrast(
        chosen["stance_before"].to_numpy(),
        chosen["stance"].to_numpy(),
        (chosen["side"] == "control").to_numpy(),
        chosen["item"].to_numpy(dtype=str),
        level=level,
    )
    n_items = int(chosen[chosen["side"] == "self"]["item"].nunique())
    return {"group": name, **_named("contrast", interval), "outside": outside, "n_items": n_items}


def _read(table: pd.DataFrame) -> pd.DataFrame:
    """Return stance, bias, mass and refusal of each item in each format."""
    wide = table.set_index([*_KEY, "keying"])["log_odds"].unstack("keying")
    affirmed, negated = wide["affirmed"], wide["negated"]
    grouped = table.groupby(_KEY, sort=False)
    refusal = grouped["refusal"].mean()
    columns = {
        "stance": (affirmed - negated) / 2,
        "bias": (affirmed + negated) / 2,
        "mass": grouped["mass"].mean(),
        "refusal": refusal,
        "low": grouped["mass"].agg(lambda mass: float((mass < LEAST_MASS).mean())),
    }
    return pd.DataFrame(columns).reset_index()


def _described(rows: pd.DataFrame, level: float) -> dict[str, float | str | int]:
    items = rows.groupby("item", sort=False)
    row: dict[str, float | str | int] = {"group": rows["group"].iloc[0], "side": rows["side"].iloc[0]}
    for name in ("stance", "bias"):
        row |= _named(name, mean_interval(items[name].mean().to_numpy(), level=level))
    for name, of_format in rows.groupby("format", sort=False):
        row[f"stance_{name}"] = float(of_format["stance"].mean())
    row |= _named("mass", mean_interval(items["mass"].mean().to_numpy(), level=level, within=PROBABILITY))
    low = float(rows["low"].mean())
    warning = f"mass below {LEAST_MASS:g} in {low:.0%} of answers" if low else ""
    return row | {
        "refusal": float(rows["refusal"].mean()),
        "n_items": items.ngroups,
        "low_mass": low,
        "warning": warning,
    }


def _change(rows: pd.DataFrame, base: pd.DataFrame, level: float) -> dict[str, float]:
    both = rows.merge(base, on=_KEY, suffixes=("", "_before"), validate="one_to_one")
    line = compression(
        both["stance_before"].to_numpy(), both["stance"].to_numpy(), both["item"].to_numpy(dtype=str), level=level
    )
    means = {name: float(both[name].mean()) for name in ("stance_before", "mass_before")}
    return means | _named("shift", line.shift) | _named("slope", line.slope)


def _published(after: pd.DataFrame, before: pd.DataFrame | None, group: str) -> dict[str, float | str]:
    row: dict[str, float | str] = {"group": group, "p_yes": _mean_p(after, group)}
    if before is None:
        return row
    earlier = _mean_p(before, group)
    return row | {"p_yes_before": earlier, "shift": _mean_p(after, group) - earlier}


def _mean_p(table: pd.DataFrame, group: str) -> float:
    rows = table[(table["group"] == group) & (table["keying"] == "affirmed") & (table["format"] == FREE)]
    return float(rows["p_yes"].mean())


def _check(after: pd.DataFrame, before: pd.DataFrame | None) -> None:
    keys = [*_KEY, "keying"]
    for table in (after, before):
        if table is not None and not (counts := table.groupby(_KEY)["keying"].nunique()).eq(2).all():
            raise UsageError(
                given=f"{int(counts.ne(2).sum())} items in one keying alone",
                allowed="both keyings of each item, in each format",
                advice="compute the rest of the table: a shard has only a part of it",
            )
    if before is not None and set(map(tuple, after[keys].to_numpy())) != set(map(tuple, before[keys].to_numpy())):
        raise UsageError("a base that was asked other questions", "the same items and formats", "ask both the same")


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {
        name: float(np.asarray(interval.mean)),
        f"{name}_low": float(interval.low),
        f"{name}_high": float(interval.high),
    }
