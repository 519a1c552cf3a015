"""From a table of cells to what figures draw: values by unit (concept, random vector) with their series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from mechint import stats
from mechint.figures.names import check_names
from mechint.figures.style import CONTROL_GROUPS

_SERIES = ("clean", "injected", "random", "contrast", "swapped")


def series_of(table: pd.DataFrame) -> pd.Series:
    """Return what each row is drawn as: `clean`, `injected`, `random`, ... or the group of a control question.

    Control questions under anything but a concept, and clean ones, have no series ("").
    """
    check_names(table["series"], _SERIES, "series")
    control = table["kind"] == "control"
    named = table["series"].where(~control, table["group"])
    return named.where(~control | (table["series"] == "injected"), "")


def by_unit(table: pd.DataFrame, by: Sequence[str], panels: Mapping[str, str]) -> pd.DataFrame:
    """Return panel, `*by`, series, unit, value: each column of `panels` averaged over a vector's conversations.

    The unit of a clean row is its conversation's row alone, so that it has no interval of its own.
    """
    rows = table.assign(series=series_of(table))
    rows = rows[rows["series"] != ""]
    parts = []
    for panel, column in panels.items():
        means = stats.strict_means(rows, [*by, "series", "unit"], column).reset_index(name="value")
        parts.append(means.assign(panel=panel))
    values = pd.concat(parts, ignore_index=True)
    return values[values["value"].notna()]


def counts(table: pd.DataFrame) -> str:
    """Return how many concepts, random vectors and control questions a table has, as words for a subtitle."""
    kinds = {kind: table.loc[table["series"] == kind, "unit"].nunique() for kind in ("injected", "random")}
    questions = {
        group: table.loc[table["group"] == group, "conversation"].nunique()
        for group in CONTROL_GROUPS
        if (table["group"] == group).any()
    }
    controls = ", ".join(f"{number} {group}" for group, number in questions.items()) or "none"
    return f"{kinds['injected']} concepts, {kinds['random']} random vectors, control questions: {controls}"


def percent_shift(clean: float, injected: float, shift: float | None = None) -> str:
    """Return two probabilities and their difference as published tables write them; `shift` if it is told apart."""
    moved = injected - clean if shift is None else shift
    return f"{_percent(clean)} → {_percent(injected)} ({moved:+.3%})".replace("-", "\N{MINUS SIGN}")


def _percent(value: float) -> str:
    return f"{value:.3%}"
