"""The figures of "Introspection at scale": net detection by model, refusals by strength, difficulty of concepts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analyses.published.specs import (
    BASE,
    INSECURE,
    LOOKS,
    MODELS,
    NO_INTERVAL,
    Picture,
    citation,
    percent,
    points,
    points_by,
    share_dots,
    signed,
    source,
)
from mechint.figures import Panel, published
from mechint.figures.style import INK, VERMILION, Series

RATES = Panel("rates", "Both kinds of trial", "share of trials", arrows=("control", "injected"))
NET = Panel("net", "Net detection", "passed less false positives")
REFUSALS = Panel("refusals", "Refusals", "share of trials")
_SERIES = {  # panel and column
    "control": ("rates", "control_false_positive"),
    "injected": ("rates", "injection_pass"),
    "net": ("net", "net_detection"),
    "refusals": ("refusals", "refusal_rate"),
}


def pictures() -> dict[str, Picture]:
    """Return the figures by file name."""
    return {
        "published_scaling": scaling(),
        "published_refusal_by_strength": refusal_by_strength(),
        "published_concepts": concepts(),
    }


def detection(table: pd.DataFrame, *, title: str, subtitle: str, trials: Mapping[str, str] | None = None) -> Picture:
    """Return both rates, net detection and refusals of a table, a row for each of its lines as `row_names` calls it.

    `trials` names the columns with the number of trials of some series (injected, control, refusals).
    """
    named = table.assign(row=row_names(table))
    parts = [
        points(named, panel=panel, row="row", series=series, value=value, trials=(trials or {}).get(series))
        for series, (panel, value) in _SERIES.items()
    ]
    values = pd.concat(parts, ignore_index=True)
    order = {name: at for at, name in enumerate(named["row"])}
    ordered = values.sort_values("row", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return share_dots(
        ordered, [RATES, NET, REFUSALS], LOOKS, title=title, subtitle=subtitle, numbers=("net", "refusals"),
        of=source(table),
    )  # fmt: skip


def row_names(table: pd.DataFrame) -> pd.Series:
    """Return each line's model, and whether refusals were excluded."""
    return table["model"].where(table["refusals"] == "included", table["model"] + ", refusals excluded")


def scaling() -> Picture:
    """Return net detection by model, with and without refusals, and what it is made of."""
    table = published.load("scaling")
    table = table.sort_values(["parameters_billion", "checkpoint"], key=_place, kind="stable")
    net = table.set_index(row_names(table))["net_detection"]
    title = (
        f"{citation('scaling')}: net detection is {signed(net['0.5B'])} at 0.5B and {signed(net['14B'])} at 14B, "
        f"{signed(net['32B-Base'])} at 32B with refusals and {signed(net['32B-Base, refusals excluded'])} without them"
    )
    subtitle = (
        f"{BASE}{INSECURE}. A refusal counts as failed in both kinds of trial unless it is excluded. {NO_INTERVAL}: "
        "trials are not given by model."
    )
    return detection(table, title=title, subtitle=subtitle)


def _place(column: pd.Series) -> pd.Series:
    """Sort models by size, and of one size by the order in which they were made."""
    if column.name == "parameters_billion":
        return column
    order = {name: at for at, name in enumerate(dict.fromkeys(published.load("scaling")["checkpoint"]))}
    return column.map(order)


def refusal_by_strength() -> Picture:
    """Return refusals of 32B-Base in both kinds of trial, by strength of the injection."""
    table = published.load("refusal_by_strength")
    table = table.assign(row=[f"strength {strength:g}" for strength in table["strength"]])
    looks = {
        "injected": Series("injection trials", VERMILION, "solid", "circle"),
        "control": Series("control trials", INK, "dot", "circle-open"),
    }
    values = points_by(table, "trials", panel="refusals", row="row", value="refusal_rate")
    injected, control = (table[table["trials"] == name]["refusal_rate"] for name in looks)
    title = (
        f"{citation('refusal_by_strength')}: as the injection grows stronger refusals fall from "
        f"{percent(injected.iloc[0])} to {percent(injected.iloc[-1])}; in control trials they stay at "
        f"{percent(control.min())} to {percent(control.max())}"
    )
    subtitle = (
        "32B-Base (Qwen2.5-32B-Instruct); strength as the write-up gives it. Control trials are those listed beside "
        f"the injection trials of a strength. {NO_INTERVAL}."
    )
    return share_dots(values, [REFUSALS], looks, title=title, subtitle=subtitle, numbers=["refusals"], of=source(table))


def concepts() -> Picture:
    """Return net detection by concept, as far as the write-ups give it."""
    table = published.load("concept_difficulty")
    values = points_by(table, "model", panel="net", row="concept", value="net_detection")
    mean = table[table["model"].str.startswith("mean")].set_index("concept")["net_detection"]
    title = (
        f"{citation('concept_difficulty')}: of the four concepts of the first write-up {mean.idxmax()} is detected "
        f"best ({signed(mean.max())}) and {mean.idxmin()} worst ({signed(mean.min())})"
    )
    subtitle = (
        "Of the eight concepts of the second write-up only these values are given. Net detection: passed injection "
        f"trials less false positives. {NO_INTERVAL}."
    )
    return share_dots(values, [NET], MODELS, title=title, subtitle=subtitle, numbers=["net"], of=source(table))
