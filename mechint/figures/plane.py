"""Units in a plane of two shifts, with what its diagonals mean."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechint.base.signatures import checked
from mechint.figures.panels import DOTTED, guide, whiskers
from mechint.figures.style import INK, Series, finish
from mechint.figures.units import with_units
from mechint.stats import intervals

_HEIGHT = 620


@checked
def plane(
    points: pd.DataFrame,
    series: Mapping[str, Series],
    *,
    x_label: str,
    y_label: str,
    diagonals: tuple[str, str],
    title: str,
    subtitle: str,
) -> go.Figure:
    """Return the figure of `series, unit, x, y`; `diagonals` name the rising and the falling one.

    Series of two units or more get their mean too, large, with 95% intervals over units. Both axes have one
    scale, so that the diagonals are where two shifts are equal, or equal and opposite.
    """
    figure = go.Figure()
    limit = 1.15 * float(np.nanmax(points[["x", "y"]].abs().to_numpy(dtype=float), initial=0.05))
    for name, rows in points.groupby("series", sort=False):
        figure.add_trace(_dots(rows, series[str(name)]))
        if len(rows) > 1:
            figure.add_trace(_mean(rows, series[str(name)]))
    for slope, text in zip((1, -1), diagonals, strict=True):  # labels stand beyond all units, so that they hide none
        figure.add_trace(guide([-limit, limit], [-slope * limit, slope * limit], 1.0, "dash", "#999999"))
        place = {"x": limit, "y": 0.95 * slope * limit, "xanchor": "right"}
        font = {"color": "#555555", "size": 12}
        figure.add_annotation(**place, text=text, showarrow=False, bgcolor="white", font=font)
    figure.add_hline(0, line=DOTTED)
    figure.add_vline(0, line=DOTTED)
    figure.update_xaxes(title_text=x_label, range=[-limit, limit])
    figure.update_yaxes(title_text=y_label, range=[-limit, limit])
    means = [intervals.mean_interval(rows["x"].to_numpy(dtype=float)) for _, rows in points.groupby("series")]
    return finish(figure, title, with_units(subtitle, means), height=_HEIGHT, bottom=100)


def _dots(rows: pd.DataFrame, style: Series) -> go.Scatter:
    return go.Scatter(
        x=rows["x"],
        y=rows["y"],
        mode="markers",
        name=style.label,
        text=rows["unit"],
        marker={"color": style.color, "symbol": style.symbol, "size": 8, "opacity": 0.6},
        hovertemplate=f"{style.label}, %{{text}}: %{{x:.3f}}, %{{y:.3f}}<extra></extra>",
    )


def _mean(rows: pd.DataFrame, style: Series) -> go.Scatter:
    x = intervals.mean_interval(np.asarray(rows["x"], dtype=float))
    y = intervals.mean_interval(np.asarray(rows["y"], dtype=float))
    return go.Scatter(
        x=[float(x.mean)],
        y=[float(y.mean)],
        mode="markers",
        name=f"mean: {style.label}",
        marker={"color": style.color, "symbol": style.symbol, "size": 12, "line": {"width": 1.5, "color": INK}},
        error_x=whiskers([float(x.high - x.mean)], [float(x.mean - x.low)], style.color, 2.5, 6.0),
        error_y=whiskers([float(y.high - y.mean)], [float(y.mean - y.low)], style.color, 2.5, 6.0),
        hovertemplate=f"mean of {style.label}: %{{x:.3f}}, %{{y:.3f}}<extra></extra>",
    )
