"""Drawing tables of readouts: curves by layer or strength, dots, grids of options and names, replies, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING

import pandas as pd

from mechint import figures, stats
from mechint.base.errors import UsageError
from mechint.figures.heatmaps import SEQUENTIAL
from mechint.figures.style import (
    BLUE,
    BROWN,
    GREEN,
    INK,
    METRICS,
    ORANGE,
    PURPLE,
    SERIES,
    SKY,
    VERMILION,
    VIOLET,
    Series,
)
from mechint.models.capture import EMBED
from mechint.readouts.naming import name_probabilities
from mechint.stats import intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

_CLEAN = Series("clean", INK, "dot", "circle-open")
_COLORS = (VERMILION, BLUE, GREEN, VIOLET, ORANGE, SKY, BROWN, PURPLE)
_DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot", "dot")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "x", "star", "hexagon", "triangle-down")
_MOST = 12  # curves or rows of dots that a reader can tell apart
_OPTION = "p_"
_APART = ", clean"
_YES_NO = ("p_yes", "p_no", "p_yes_shift", "p_no_shift")


@dataclass(frozen=True)
class Request:
    """What the caller asked for."""

    metric: str | None
    by: str
    title: str


def curves(table: pd.DataFrame, request: Request) -> go.Figure:
    column = _metric(table, request.metric)
    points = _with_units(table.assign(series=_series(table, request.by), layer=_layers(table)), ["series", "layer"])
    means = stats.group_means(
        points.assign(panel="all"), ["panel", "series", "layer"], column, unit="unit", within=stats.RANGES.get(column)
    )
    label = _label(column)
    layers = _injected(table)
    return figures.curves(
        means,
        [figures.Panel("all", "", label)],
        _looks(points["series"]),
        title=request.title or f"{_sentence(label)} by layer",
        subtitle=_units(points) + (" Shaded: injected layers." if layers else ""),
        injected_layers=layers,
    )


def rows(table: pd.DataFrame, request: Request) -> go.Figure:
    """One value for each cell: a curve over strengths if there are any to group, else dots."""
    if request.by != "intervention" and "strength" in table and pd.api.types.is_numeric_dtype(table["strength"]):
        return _strengths(table, request)
    return _dots(table, request)


def _strengths(table: pd.DataFrame, request: Request) -> go.Figure:
    column = _metric(table, request.metric, "strength")
    points = table[table["strength"] > 0]
    if points.empty:
        raise UsageError("no strength above zero", "one or more", "say in `strength` how strong each intervention was")
    points = _with_units(points.assign(panel="all", series=points[request.by].astype(str)), ["series", "strength"])
    means = stats.group_means(
        points, ["panel", "series", "strength"], column, unit="unit", within=stats.RANGES.get(column)
    )
    label, log = _label(column), column == "perplexity"
    clean = _clean_mean(table, points, column)
    reference = (1.0 if log else 0.0) if clean is None else clean
    panel = figures.Panel("all", "", label, "log" if log else "linear", [reference], height=310)
    return figures.curves(
        means,
        [panel],
        _looks(points["series"]),
        x="strength",
        x_label="strength",
        log_x=True,
        title=request.title or f"{_sentence(label)} by strength",
        subtitle=_units(points) + ("" if clean is None else " Dotted: clean."),
    )


def _clean_mean(table: pd.DataFrame, points: pd.DataFrame, column: str) -> float | None:
    """Return the mean of the clean rows, if there are any and all groups are of the same conversations as these."""
    clean = table[table["intervention"] == "clean"]
    sets = {frozenset(group) for _, group in points.groupby("series")["conversation"]}
    return float(clean[column].mean()) if len(clean) and sets == {frozenset(clean["conversation"])} else None


def _dots(table: pd.DataFrame, request: Request) -> go.Figure:
    column = _metric(table, request.metric)
    named = table.assign(panel="all", row=table[request.by], series=_kinds(table["intervention"]))
    points = _with_units(named, ["row", "series"])
    within = stats.RANGES.get(column)
    means = stats.group_means(points, ["panel", "row", "series"], column, unit="unit", within=within)
    units = stats.strict_means(points, ["panel", "row", "series", "unit"], column).rename("value").reset_index()
    panel = figures.Panel("all", "", _label(column), "log-odds" if column in ("p_yes", "p_no") else "linear")
    series = {"clean": _CLEAN, "intervention": Series("intervention", VERMILION, "solid", "circle", 3.0)}
    return figures.dots(
        means,
        units,
        [panel],
        series,
        title=request.title or f"{_sentence(panel.label)} by {request.by}",
        subtitle=_units(points, "row") + " Small: what the mean is over.",
        packed=True,
    )


def options(table: pd.DataFrame, request: Request, noun: str = "option") -> go.Figure:
    columns = [name for name in _option_columns(table) if request.metric in (None, name)]
    if not columns:
        raise _unknown(request.metric, _option_columns(table))
    series = _series(table, request.by)
    long = table.assign(series=series).melt(["conversation", "intervention", "series"], columns, "option", "value")
    points = _with_units(long, ["series"])
    groups = list(dict.fromkeys(series))
    labels = [name.removeprefix(_OPTION) for name in columns]
    means = stats.group_means(points, ["series", "option"], "value", unit="unit", within=intervals.PROBABILITY)
    shaped = means.set_index(["series", "option"]).loc[[(group, name) for group in groups for name in columns]]
    size = (len(groups), len(columns))
    bounds = {name: shaped[name].to_numpy(float).reshape(size) for name in ("mean", "low", "high")}
    values = intervals.Interval(**bounds, n=points["unit"].nunique())
    return figures.heatmap(
        [figures.HeatPanel("", values, mark="")],
        figures.Scale("probability", colors=SEQUENTIAL),
        rows=groups,
        columns=labels,
        column_label=noun,
        title=request.title or "Probability of each option",
        subtitle=_units(points),
    )


def names(table: pd.DataFrame, request: Request) -> go.Figure:
    """A table of `name_log_probs`: how probable each name is among them, for each group or by layer."""
    probabilities = table if "p" in table else name_probabilities(table)
    if probabilities["name"].str.strip().nunique() == probabilities["name"].nunique():
        probabilities = probabilities.assign(name=probabilities["name"].str.strip())
    request = replace(request, title=request.title or "Probability of each name among them")
    if "layer" in probabilities:
        several = request.by == "intervention" and probabilities["intervention"].nunique() > 1
        series = probabilities["intervention"] + ": " + probabilities["name"] if several else probabilities["name"]
        points = probabilities.assign(name=series).rename(columns={"p": "probability"})
        return curves(points, replace(request, metric=request.metric or "probability", by="name"))
    keys = list(dict.fromkeys(["conversation", "intervention", request.by]))
    wide = probabilities.assign(name=_OPTION + probabilities["name"]).pivot(index=keys, columns="name", values="p")
    wide = wide[[_OPTION + name for name in dict.fromkeys(probabilities["name"])]].reset_index()
    order = wide["intervention"].map(list(dict.fromkeys(probabilities["intervention"])).index)
    return options(wide.iloc[order.argsort(kind="stable")], request, "name")


def texts(table: pd.DataFrame, request: Request) -> go.Figure:
    if request.metric is not None:
        raise _unknown(request.metric, [])
    columns = [name for name in ("conversation", "intervention", "sample", "text") if name in table]
    cells = [[str(value) for value in row] for row in table[columns].itertuples(index=False)]
    return figures.text_table(
        columns, cells, title=request.title or "What the model says", subtitle=f"{len(table)} replies."
    )


def losses(table: pd.DataFrame, request: Request) -> go.Figure:
    """A table of `text_loss`, whose texts have numbers."""
    return rows(table.rename(columns={"text": "conversation"}), replace(request, metric=request.metric or "perplexity"))


def _metric(table: pd.DataFrame, metric: str | None, *others: str) -> str:
    numbers = [str(name) for name in table.select_dtypes("number").columns if name not in ("layer", *others)]
    chosen = metric or next((name for name in ("logit_diff", "p_yes") if name in numbers), "")
    if chosen not in numbers:
        raise _unknown(metric, numbers)
    return chosen


def _option_columns(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns if str(name).startswith(_OPTION) and name not in _YES_NO]


def _unknown(metric: str | None, allowed: Sequence[str]) -> UsageError:
    choices = ", ".join(allowed) or "none: this table has nothing to choose from"
    return UsageError(f"metric={metric!r}", choices, "name a column of the table")


def _label(column: str) -> str:
    base = column.removesuffix("_shift")
    return ("shift of " if base != column else "") + METRICS.get(base, base)


def _sentence(text: str) -> str:
    """Return a label as the beginning of a sentence; names of measures keep their letters."""
    return text[0].upper() + text[1:] if text.startswith("shift") else text


def _layers(table: pd.DataFrame) -> pd.Series:
    return table["layer"].map(lambda layer: "embed" if layer == EMBED else layer)


def _kinds(interventions: pd.Series) -> pd.Series:
    return interventions.map(lambda name: "clean" if name == "clean" else "intervention")


def _series(table: pd.DataFrame, by: str) -> pd.Series:
    """Return the group of each row; clean rows of a group with others are one of their own."""
    groups = table[by].astype(str)
    clean = table["intervention"] == "clean"
    mixed = groups.isin(set(groups[clean]) & set(groups[~clean]))
    return groups.where(~(clean & mixed), groups + _APART)


def _with_units(table: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Add `unit`: what the mean of a row's group is over."""
    several = table.groupby(list(groups), sort=False, observed=True)["intervention"].transform("nunique") > 1
    return table.assign(unit=table["intervention"].where(several, table["conversation"]), several=several)


def _looks(series: pd.Series) -> Mapping[str, Series]:
    """Return how each group looks: as in other figures if all are series of these."""
    names = list(dict.fromkeys(series))
    if len(names) > _MOST:
        raise UsageError(
            f"{len(names)} curves in one figure",
            f"at most {_MOST}",
            "select some, table[table.intervention == ...], or group them: mi.plot(table, by=column)",
        )
    if set(names) <= set(SERIES):
        return {name: SERIES[name] for name in names}
    bases = list(dict.fromkeys(name.removesuffix(_APART) for name in names if name != "clean"))
    looks = zip(bases, cycle(_COLORS), cycle(_DASHES), cycle(_SYMBOLS), strict=False)
    styles = {name: Series(name, color, dash, symbol) for name, color, dash, symbol in looks}
    return {
        name: _CLEAN
        if name == "clean"
        else styles.get(name)
        or replace(styles[name.removesuffix(_APART)], label=name, dash="dot", symbol="circle-open")
        for name in names
    }


def _injected(table: pd.DataFrame) -> list[int]:
    """Return the layers that all injections of a table have in common with each other, if they are the same."""
    interventions = set(table["intervention"])
    touched = {
        tuple(layer["layer"] for layer in receipt["layers"])
        for receipt in table.attrs.get("receipts", [])
        if receipt["intervention"] in interventions and receipt["layers"]
    }
    return list(touched.pop()) if len(touched) == 1 else []


def _units(points: pd.DataFrame, group: str = "series") -> str:
    """Return what the means are over, for rows that have `unit`."""
    counts = points.groupby(group, sort=False)["conversation"].nunique()
    if points["several"].all():
        return "Means with 95% intervals over interventions, whose conversations are averaged first."
    if points["several"].any():
        return "Means with 95% intervals over interventions; where there is only one, over conversations."
    if counts.max() == 1:
        names = points["conversation"].unique()
        return f"Conversation {names[0]}; one has no interval." if len(names) == 1 else "One conversation each."
    number = f"{counts.max()}" if counts.nunique() == 1 else f"{counts.min()} to {counts.max()}"
    return f"Means over {number} conversations with their 95% intervals."
