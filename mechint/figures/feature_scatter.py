"""Features in a plane: what is attributed to them, or how well they discriminate, against what ablating them does."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.figures.panels import guide, whiskers
from mechint.figures.style import MINUS, Series, finish
from mechint.figures.texts import text_width
from mechint.figures.verdicts import UNTESTED, VERDICTS, check_components
from mechint.stats.intervals import Interval

_HEIGHT = 480
_CROWDED = 3.0  # times that the largest value is above what most are: then most get a panel of their own
_MOST = 0.75  # of the points
_EFFECT = "measured: part of the shift, logits"
_LEAST_D, _D_TICKS = 0.05, (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_WIDTH = 920  # pixels of all panels
# Where names may stand: to which side, and how many pixels above the point.
_SIDES = ((1, 16), (-1, 16), (1, -16), (-1, -16), (1, 34), (-1, 34), (1, -34), (-1, -34))


# Where a panel begins and ends: x from, x to, y from, y to.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Panel:
    """One panel, about how many pixels wide."""

    column: int
    width: float

    def pixels(self, places: Float[np.ndarray, "points 2"], box: Box) -> Float[np.ndarray, "points 2"]:
        """Return places in pixels from the lower left corner."""
        low, high = np.array(box[::2]), np.array(box[1::2])
        return np.asarray((places - low) / (high - low) * [self.width, _HEIGHT])


@dataclass(frozen=True)
class _Axes:
    """Columns and names of both axes: both on one scale with a diagonal where they are equal, or x by its logarithm."""

    x: str
    y: str
    x_label: str
    y_label: str
    diagonal: bool


@checked
def attribution_scatter(
    features: pd.DataFrame, *, correlation: Interval | None, title: str, subtitle: str, n_labels: int = 8
) -> go.Figure:
    """Return the figure of `component, attribution, measured, verdict` (bounds: `attribution_low`, ...), in logits.

    `correlation` is the rank correlation, written below the title; the `n_labels` features farthest from the diagonal
    are named. Where a few features are far larger than most, a second panel shows most. Raises UsageError without rows.
    """
    check_components(features, ("component", "attribution", "measured"))
    axes = _Axes("attribution", "measured", "attributed, logits", _EFFECT, True)
    points = _with_both(features, axes)
    far = (points["attribution"] - points["measured"]).abs() + 0.2 * points["measured"].abs()
    caption = f"{subtitle} {_correlation_text(correlation, len(points))}".strip()
    return _scatter(points, axes, far.nlargest(n_labels).index, title, caption)


@checked
def discrimination_scatter(
    features: pd.DataFrame, *, x_label: str, d_limit: float | None, title: str, subtitle: str, n_labels: int = 8
) -> go.Figure:
    """Return the figure of `component, d, measured, verdict`: do features that discriminate cause anything?

    `d` is Cohen's d (named by `x_label`), drawn by its size on a logarithmic axis. Below `d_limit` is shaded: there p
    does not survive the correction for the number of features. The features farthest out are named. Raises UsageError
    without rows.
    """
    check_components(features, ("component", "d", "measured"))
    axes = _Axes("size", "measured", x_label, _EFFECT, False)
    points = _with_both(features.assign(size=np.log10(features["d"].abs().clip(lower=_LEAST_D))), axes)
    out = points["size"] / max(points["size"].max(), 1.0) + points["measured"].abs() / max(
        points["measured"].abs().max(), 1e-9
    )
    figure = _scatter(points, axes, out.nlargest(n_labels).index, title, subtitle)
    figure.update_xaxes(tickvals=np.log10(_D_TICKS), ticktext=[f"{tick:g}" for tick in _D_TICKS])
    if d_limit is not None and np.isfinite(d_limit):
        low, high = figure.layout.xaxis.range[0], float(np.log10(max(d_limit, _LEAST_D)))
        figure.add_vrect(low, high, fillcolor="#999999", opacity=0.16, line_width=0, layer="below")
    return figure


def _with_both(features: pd.DataFrame, axes: _Axes) -> pd.DataFrame:
    """Return the features that have both values."""
    both = features[features[[axes.x, axes.y]].notna().all(axis=1)]
    if both.empty:
        raise UsageError(f"features none of which has both {axes.x} and {axes.y}", "one or more", "measure some")
    return both


def _correlation_text(correlation: Interval | None, n: int) -> str:
    if correlation is None or np.isnan(correlation.mean):
        return f"Too little varies over {n} features for a rank correlation."
    values = (correlation.mean, correlation.low, correlation.high)
    mean, low, high = (f"{float(value):.2f}".replace("-", MINUS) for value in values)
    bounds = "" if np.isnan(correlation.low) else f" [{low}, {high}]"
    return f"Rank correlation of attributed and measured: {mean}{bounds} over {n} features."


def _scatter(points: pd.DataFrame, axes: _Axes, named: pd.Index, title: str, subtitle: str) -> go.Figure:
    limits = _limits(points, axes)
    titles = ["All features", "Enlarged: the dashed box"] if len(limits) > 1 else []
    figure = make_subplots(
        rows=1, cols=len(limits), horizontal_spacing=0.09, subplot_titles=[f"<b>{panel}</b>" for panel in titles]
    )
    for column, box in enumerate(limits, start=1):
        place = {"row": 1, "col": column}
        for trace in _lines(box, axes, legend=column == 1):
            figure.add_trace(trace, **place)
        for trace in _points(points[_within(points, axes, box)], axes, legend=column == 1):
            figure.add_trace(trace, **place)
        # A feature is named where it stands apart: in the smallest panel that holds it.
        inside = points.loc[named][_within(points.loc[named], axes, box)]
        smaller = limits[column] if column < len(limits) else None
        apart = inside if smaller is None else inside[~_within(inside, axes, smaller)]
        _label(figure, apart, points, axes, box, _Panel(column, _WIDTH / len(limits)))
        figure.update_xaxes(title_text=axes.x_label, range=box[:2], **place)
        figure.update_yaxes(title_text=axes.y_label if column == 1 else None, range=box[2:], **place)
    if len(limits) > 1:
        figure.add_trace(_frame(limits[1]), row=1, col=1)
    return finish(figure, title, subtitle, height=_HEIGHT, bottom=90)


def _limits(points: pd.DataFrame, axes: _Axes) -> list[Box]:
    """Return the box of all points and, where a few are far away, that of most."""
    sizes = points[[axes.x, axes.y]].abs().max(axis=1) if axes.diagonal else points[axes.y].abs()
    most = float(sizes.quantile(_MOST, interpolation="lower"))
    boxes = [_box(points, axes)]
    if most > 0 and sizes.max() > _CROWDED * most:
        boxes.append(_box(points[sizes <= most], axes))
    return boxes


def _box(points: pd.DataFrame, axes: _Axes) -> Box:
    spans = [_span(points, name) for name in (axes.x, axes.y)]
    if axes.diagonal:  # one scale on both
        spans = [(min(low for low, _ in spans), max(high for _, high in spans))] * 2
    return (*spans[0], *spans[1])


def _span(points: pd.DataFrame, name: str) -> tuple[float, float]:
    values = points[[column for column in (name, f"{name}_low", f"{name}_high") if column in points]].to_numpy(float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if name != "size":
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.12 * max(high - low, 1e-3)
    return low - room, high + room


def _within(points: pd.DataFrame, axes: _Axes, box: Box) -> pd.Series:
    inside: pd.Series = points[axes.x].between(*box[:2]) & points[axes.y].between(*box[2:])
    return inside


def _lines(box: Box, axes: _Axes, *, legend: bool) -> list[go.Scatter]:
    """Return lines where values are zero, and the diagonal."""
    across = guide(box[:2], (0.0, 0.0), 1.0, "dot")
    if not axes.diagonal:
        return [across]
    diagonal = guide(box[:2], box[:2], 1.5, "dash", "#999999").update(name="attributed = measured", showlegend=legend)
    return [across, guide((0.0, 0.0), box[2:], 1.0, "dot"), diagonal]


def _frame(box: Box) -> go.Scatter:
    inset = 0.004 * (box[1] - box[0])  # an edge of the panel itself is not drawn over
    x = [box[0] + inset, box[1] - inset, box[1] - inset, box[0] + inset, box[0] + inset]
    y = [box[at] for at in (2, 2, 3, 3, 2)]
    return guide(x, y, 1.0, "dash")


def _points(points: pd.DataFrame, axes: _Axes, *, legend: bool) -> list[go.Scatter]:
    verdicts = points["verdict"] if "verdict" in points else pd.Series(UNTESTED, index=points.index)
    return [
        _series(points[verdicts == name], axes, style, legend=legend)
        for name, style in VERDICTS.items()
        if (verdicts == name).any()
    ]


def _series(points: pd.DataFrame, axes: _Axes, style: Series, *, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=points[axes.x],
        y=points[axes.y],
        mode="markers",
        name=style.label,
        legendgroup=style.label,
        showlegend=legend,
        text=points["component"],
        marker={"color": style.color, "symbol": style.symbol, "size": 9, "line": {"width": 1.5, "color": style.color}},
        error_x=_bars(points, axes.x, style),
        error_y=_bars(points, axes.y, style),
        customdata=points[["d" if axes.x == "size" else axes.x]],
        hovertemplate=f"%{{text}}, {style.label}: %{{customdata[0]:.3f}}, %{{y:.3f}}<extra></extra>",
    )


def _bars(points: pd.DataFrame, name: str, style: Series) -> dict[str, object] | None:
    if f"{name}_low" not in points:
        return None
    up, down = points[f"{name}_high"] - points[name], points[name] - points[f"{name}_low"]
    return whiskers(up.fillna(0.0), down.fillna(0.0), style.color, 1.0, 0.0)


def _label(figure: go.Figure, named: pd.DataFrame, points: pd.DataFrame, axes: _Axes, box: Box, at: _Panel) -> None:
    """Name points at the end of short lines, where there is room; a name without room is left to the pointer."""
    places = at.pixels(points[[axes.x, axes.y]].to_numpy(float), box)
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places[_within(points, axes, box).to_numpy()]]
    spots = at.pixels(named[[axes.x, axes.y]].to_numpy(float), box)
    for (x, y), row in zip(spots, named.to_dict("records"), strict=True):
        width = text_width(row["component"]) * 11 / 12 + 4
        for side, rise in _SIDES:
            left = x + side * 22 - (width if side < 0 else 0)
            place = (left, y + rise - 8, left + width, y + rise + 8)
            if left >= 0 and left + width <= at.width and not any(map(partial(_overlap, place), taken)):
                taken.append(place)
                text = {"text": html.escape(row["component"]), "xanchor": "left" if side > 0 else "right"}
                arrow = {"showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": "#777777", "standoff": 5}
                ends = {"x": row[axes.x], "y": row[axes.y], "ax": side * 22, "ay": -rise}
                figure.add_annotation(**text, **arrow, **ends, font={"size": 11}, row=1, col=at.column)
                break


def _overlap(rectangle: Sequence[float], other: Sequence[float]) -> bool:
    return bool(
        rectangle[0] < other[2] and other[0] < rectangle[2] and rectangle[1] < other[3] and other[1] < rectangle[3]
    )
