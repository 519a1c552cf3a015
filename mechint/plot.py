"""One call that draws any table of the toolkit: what its columns are decides how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import pandas as pd

from mechint import figures, stats
from mechint.capture import EMBED
from mechint.errors import UsageError
from mechint.figures.style import BLUE, BROWN, GREEN, INK, METRICS, ORANGE, PURPLE, SKY, VERMILION, VIOLET, Series

if TYPE_CHECKING:
    import plotly.graph_objects as go

_CLEAN = Series("clean", INK, "dot", "circle-open")
_COLORS = (VERMILION, BLUE, GREEN, VIOLET, ORANGE, SKY, BROWN, PURPLE)
_DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot", "dot")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "x", "star", "hexagon", "triangle-down")
_MOST = 12  # curves or rows of dots that a reader can tell apart
_OPTION = "p_"
_YES_NO = ("p_yes", "p_no", "p_yes_shift", "p_no_shift")


def plot(table: pd.DataFrame, metric: str | None = None, *, title: str = "") -> go.Figure:
    """Return a figure of a table of `score`, `logit_lens` or `generate`; in notebooks it shows itself.

    Tables with a layer become curves by layer, others rows of dots, option lists a grid of probabilities, texts a
    table; one look for each intervention. Points are means over conversations with their 95% bootstrap interval.
    `metric` is a column (`logit_diff` where there is one, else `p_yes`). Raises UsageError for a table that is none of
    these, an unknown metric, and for more interventions than can be told apart.
    """
    for needed, draw in _KINDS:
        if needed <= set(table.columns):
            return draw(table, metric, title)
    raise UsageError(
        given=f"a table with the columns {', '.join(map(str, table.columns))}",
        allowed="tables of mi.score, mi.logit_lens and mi.generate",
        advice="keep the columns that say what a row is, or draw it with one of mi.figures",
    )


def _curves(table: pd.DataFrame, metric: str | None, title: str) -> go.Figure:
    column = _metric(table, metric)
    named = table.assign(series=table["intervention"], panel="all", layer=_layers(table))
    means = stats.group_means(named, ["panel", "series", "layer"], column, unit="conversation")
    label = _label(column)
    return figures.layer_curves(
        means,
        [figures.LayerPanel("all", "", label)],
        _looks(table["intervention"]),
        title=title or f"{_sentence(label)} by layer",
        subtitle=_units(table),
        columns=1,
    )


def _dots(table: pd.DataFrame, metric: str | None, title: str) -> go.Figure:
    column = _metric(table, metric)
    named = table.assign(panel="all", row=table["intervention"], series=_kinds(table["intervention"]))
    means = stats.group_means(named, ["panel", "row", "series"], column, unit="conversation")
    units = named.rename(columns={"conversation": "unit", column: "value"})[["panel", "row", "series", "unit", "value"]]
    label = _label(column)
    series = {"clean": _CLEAN, "intervention": Series("intervention", VERMILION, "solid", "circle", 3.0)}
    return figures.dots(
        means,
        units,
        [
            figures.DotPanel(
                "all", "", label, log_odds=column in ("p_yes", "p_no"), zero=column not in ("p_yes", "p_no")
            )
        ],
        series,
        title=title or f"{_sentence(label)} by intervention",
        subtitle=_units(table) + " Small: single conversations.",
        packed=True,
    )


def _options(table: pd.DataFrame, metric: str | None, title: str) -> go.Figure:
    columns = [name for name in _option_columns(table) if metric in (None, name)]
    if not columns:
        raise _unknown(metric, _option_columns(table))
    means = table.melt(["conversation", "intervention"], columns, "option", "value")
    rows, options = list(dict.fromkeys(table["intervention"])), [name.removeprefix(_OPTION) for name in columns]
    found = stats.group_means(means, ["intervention", "option"], "value", unit="conversation")
    shaped = found.set_index(["intervention", "option"]).loc[[(row, name) for row in rows for name in columns]]
    size = (len(rows), len(columns))
    mean, low, high = (shaped[name].to_numpy(float).reshape(size) for name in ("mean", "low", "high"))
    panel = figures.GridPanel("", stats.Interval(mean, low, high, table["conversation"].nunique()))
    return figures.grid(
        [panel], rows=rows, columns=options, row_label="", column_label="option", label="probability",
        title=title or "Probability of each option", subtitle=_units(table), sequential=True,
    )  # fmt: skip


def _texts(table: pd.DataFrame, metric: str | None, title: str) -> go.Figure:
    if metric is not None:
        raise _unknown(metric, [])
    columns = [name for name in ("conversation", "intervention", "sample", "text") if name in table]
    rows = [[str(value) for value in row] for row in table[columns].itertuples(index=False)]
    return figures.text_table(columns, rows, title=title or "What the model says", subtitle=f"{len(table)} replies.")


# The columns that tell a kind of table, the most telling first.
_KINDS: tuple[tuple[set[str], Callable[[pd.DataFrame, str | None, str], go.Figure]], ...] = (
    ({"conversation", "intervention", "text"}, _texts),
    ({"conversation", "intervention", "layer"}, _curves),
    ({"conversation", "intervention", "logit_diff"}, _dots),
    ({"conversation", "intervention", "entropy"}, _options),
)


def _metric(table: pd.DataFrame, metric: str | None) -> str:
    numbers = [str(name) for name in table.select_dtypes("number").columns if name != "layer"]
    chosen = metric or next((name for name in ("logit_diff", "p_yes") if name in numbers), "")
    if chosen not in numbers:
        raise _unknown(metric, numbers)
    return chosen


def _option_columns(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns if str(name).startswith(_OPTION) and name not in _YES_NO]


def _unknown(metric: str | None, allowed: Sequence[str]) -> UsageError:
    known = ", ".join(allowed) or "none: this table has nothing to choose from"
    return UsageError(f"metric={metric!r}", known, "name a column of the table")


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


def _looks(interventions: pd.Series) -> Mapping[str, Series]:
    names = list(dict.fromkeys(interventions))
    if len(names) > _MOST:
        raise UsageError(
            f"{len(names)} interventions in one figure",
            f"at most {_MOST}",
            "select some: table[table.intervention == ...]",
        )
    others = [name for name in names if name != "clean"]
    looks = zip(others, cycle(_COLORS), cycle(_DASHES), cycle(_SYMBOLS), strict=False)
    found = {name: Series(name, color, dash, symbol) for name, color, dash, symbol in looks}
    return {**({"clean": _CLEAN} if "clean" in names else {}), **found}


def _units(table: pd.DataFrame) -> str:
    count = table["conversation"].nunique()
    if count == 1:
        return f"Conversation {table['conversation'].iloc[0]}; one conversation has no interval."
    return f"Mean over {count} conversations with its 95% bootstrap interval."
