"""Hits against false alarms, with the lines on which d' is the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy import stats

from mechint.base.signatures import checked
from mechint.figures.names import check_names
from mechint.figures.panels import guide, whiskers
from mechint.figures.style import Series, finish
from mechint.figures.units import with_units

_LINES = (0.0, 1.0, 2.0, 3.0)  # of d'
_SIZE = 560
_SIDE = 0.04  # of the axes, beyond 0 and 1
_APART = 0.016  # of the axis, from one point to the next that has the same x


@checked
def hits_and_alarms(
    points: pd.DataFrame, series: Mapping[str, Series], *, title: str, subtitle: str, x_label: str, y_label: str
) -> go.Figure:
    """Return the figure of `series, unit, x, y`, and `x_low, x_high, y_low, y_high` (NaN draws none).

    x is the share of false alarms and y that of hits, from 0 to 1; each point has the name of its unit beside it.
    Points of one x are drawn side by side, so that no interval covers another.
    """
    check_names(points["series"], series, "series")
    points = _side_by_side(points)
    figure = go.Figure([_line(value) for value in _LINES])
    for value in _LINES:
        # Where the line meets the falling diagonal: hits and correct rejections are equal there.
        hits = float(stats.norm.cdf(value / 2))
        place = {"x": 1 - hits, "y": hits, "text": f"d' = {value:g}"}
        figure.add_annotation(**place, showarrow=False, bgcolor="white", font={"size": 11, "color": "#555555"})
    for name, style in series.items():
        rows = points[points["series"] == name]
        if len(rows):
            figure.add_trace(_dots(rows, style))
    ends = [-_SIDE, 1 + _SIDE]
    figure.update_xaxes(title_text=x_label, range=ends, tickformat=".0%")
    figure.update_yaxes(title_text=y_label, range=ends, tickformat=".0%")
    return finish(figure, title, with_units(subtitle, [points]), height=_SIZE, bottom=110)


def _side_by_side(points: pd.DataFrame) -> pd.DataFrame:
    """Return points with places (`at`) so that those of about one x stand beside each other, and where names stand."""
    x = points["x"]
    crowd = (x / _APART).round()
    number, last = x.groupby(crowd).cumcount(), x.groupby(crowd).transform("size") - 1
    side = np.where(2 * number < last, "top left", "top right")
    return points.assign(at=x + _APART * (number - last / 2), side=side)


def _line(value: float) -> go.Scatter:
    z = np.linspace(-5, 5, 201)
    x, y = stats.norm.cdf(z), stats.norm.cdf(z + value)
    return guide(x, y, 1.0, "solid" if value == 0 else "dot", "#777777")


def _dots(rows: pd.DataFrame, style: Series) -> go.Scatter:
    bars = {}
    for axis in ("x", "y"):
        up, down = rows[f"{axis}_high"] - rows[axis], rows[axis] - rows[f"{axis}_low"]
        bars[f"error_{axis}"] = whiskers(up.fillna(0.0), down.fillna(0.0), style.color, 1.2, 4.0)
    return go.Scatter(
        x=rows["at"],
        y=rows["y"],
        mode="markers+text",
        name=style.label,
        text=rows["unit"],
        textposition=rows["side"].to_list(),
        textfont={"size": 11, "color": style.color},
        cliponaxis=False,
        marker={"color": style.color, "symbol": style.symbol, "size": 10, "line": {"width": 1.5, "color": style.color}},
        customdata=rows["x"],
        hovertemplate=f"%{{text}}, {style.label}: hits %{{y:.1%}}, false alarms %{{customdata:.1%}}<extra></extra>",
        **bars,
    )
