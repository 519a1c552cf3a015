"""The figures of "Introspection at scale": net detection by model, refusals by strength, difficulty of concepts."""

from __future__ import annotations

import pandas as pd

from analyses.published_values import (
    BASE,
    INSECURE,
    LOOKS,
    MODELS,
    NO_INTERVAL,
    Picture,
    percent,
    points,
    share_dots,
    signed,
    source,
    told,
)
from mechint import published
from mechint.figures import DotPanel
from mechint.figures.style import INK, VERMILION, Series

RATES = DotPanel("rates", "Both kinds of trial", "share of trials", arrows=("control", "injected"))
NET = DotPanel("net", "Net detection", "passed less false positives")
REFUSALS = DotPanel("refusals", "Refusals", "share of trials")


def pictures() -> dict[str, Picture]:
    """Return the figures by file name."""
    return {
        "published_scaling": scaling(),
        "published_refusal_by_strength": refusal_by_strength(),
        "published_concepts": concepts(),
    }


def detection_points(
    table: pd.DataFrame,
    row: str,
    *,
    injected: str | None = None,
    control: str | None = None,
    trials: str | None = None,
) -> pd.DataFrame:
    """Return pass rate, false positives, net detection and refusals of a table; its columns of trials may be named."""
    parts = [
        points(table, panel="rates", row=row, series="control", value="control_false_positive", trials=control),
        points(table, panel="rates", row=row, series="injected", value="injection_pass", trials=injected),
        points(table, panel="net", row=row, series="net", value="net_detection"),
        points(table, panel="refusals", row=row, series="refusals", value="refusal_rate", trials=trials),
    ]
    found = pd.concat(parts, ignore_index=True)
    order = {name: at for at, name in enumerate(table[row])}
    return found.sort_values("row", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def scaling() -> Picture:
    """Return net detection by model, with and without refusals, and what it is made of."""
    table = published.load("scaling")
    table = table.sort_values(["parameters_billion", "checkpoint"], key=_place, kind="stable")
    excluded = table["refusals"] == "excluded"
    table = table.assign(row=table["model"].where(~excluded, table["model"] + ", refusals excluded"))
    values = detection_points(table, "row")
    net = table.set_index("row")["net_detection"]
    title = (
        f"{told('scaling')}: net detection is {signed(net['0.5B'])} at 0.5B and {signed(net['14B'])} at 14B, "
        f"{signed(net['32B-Base'])} at 32B with refusals and {signed(net['32B-Base, refusals excluded'])} without them"
    )
    subtitle = (
        f"{BASE}{INSECURE}. A refusal counts as failed in both kinds of trial unless it is excluded. {NO_INTERVAL}: "
        "trials are not given by model."
    )
    figure = share_dots(
        values, [RATES, NET, REFUSALS], LOOKS, title=title, subtitle=subtitle, numbers=("net", "refusals")
    )
    return Picture(figure, values, source(table))


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
    parts = [
        points(rows, panel="refusals", row="row", series=str(trials), value="refusal_rate")
        for trials, rows in table.groupby("trials", sort=False)
    ]
    values = pd.concat(parts, ignore_index=True)
    injected, control = (table[table["trials"] == name]["refusal_rate"] for name in looks)
    title = (
        f"{told('refusal_by_strength')}: as the injection grows stronger refusals fall from "
        f"{percent(injected.iloc[0])} to {percent(injected.iloc[-1])}; in control trials they stay at "
        f"{percent(control.min())} to {percent(control.max())}"
    )
    subtitle = (
        "32B-Base (Qwen2.5-32B-Instruct); strength as the write-up gives it. Control trials are those listed beside "
        f"the injection trials of a strength. {NO_INTERVAL}."
    )
    figure = share_dots(values, [REFUSALS], looks, title=title, subtitle=subtitle, numbers=["refusals"])
    return Picture(figure, values, source(table))


def concepts() -> Picture:
    """Return net detection by concept, as far as the write-ups give it."""
    table = published.load("concept_difficulty")
    values = pd.concat(
        [
            points(rows, panel="net", row="concept", series=str(model), value="net_detection")
            for model, rows in table.groupby("model", sort=False)
        ],
        ignore_index=True,
    )
    mean = table[table["model"].str.startswith("mean")].set_index("concept")["net_detection"]
    title = (
        f"{told('concept_difficulty')}: of the four concepts of the first write-up {mean.idxmax()} is detected best "
        f"({signed(mean.max())}) and {mean.idxmin()} worst ({signed(mean.min())})"
    )
    subtitle = (
        "Of the eight concepts of the second write-up only these values are given. Net detection: passed injection "
        f"trials less false positives. {NO_INTERVAL}."
    )
    figure = share_dots(values, [NET], MODELS, title=title, subtitle=subtitle, numbers=["net"])
    return Picture(figure, values, source(table))
