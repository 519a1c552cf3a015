"""Points in a plane: those far out have their name, and the crowd a panel of its own."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.figures.names import check_names
from mechint.figures.panels import guide, whiskers
from mechint.figures.style import Series, finish
from mechint.figures.texts import text_width

_HEIGHT = 480
_CROWDED = 3.0  # times that the largest value is above what most are: then most get a panel of their own
_MOST = 0.75  # of the points
_TICKS = [digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)]
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
    """What both axes are: the diagonal's name, if they have one scale, and where a logarithmic x begins."""

    diagonal: str
    smallest: float | None


@checked
def scatter(
    points: pd.DataFrame,
    series: Mapping[str, Series],
    *,
    x_label: str,
    y_label: str,
    title: str,
    subtitle: str,
    diagonal: str = "",
    smallest: float | None = None,
    named: Collection[str] = (),
    enlarged: bool = True,
) -> go.Figure:
    """Return the figure of `series, unit, x, y`, with bars where there are bounds (`x_low`, `x_high`, `y_low`, ...).

    With a `diagonal` (its name in the legend) both axes have one scale. With `smallest`, x is drawn by its size, on a
    logarithmic axis that begins there. Units in `named` have their name where there is room for it. Where a few points
    are far from most, a second panel shows most, if `enlarged`. Points without one of the values are left out; raises
    UsageError where none has both.
    """
    check_names(points["series"], series, "series")
    both = points[points[["x", "y"]].notna().all(axis=1)]
    if both.empty:
        raise UsageError("points none of which has both x and y", "one or more", "measure some")
    both = both.assign(value=both["x"])
    if smallest is not None:
        both = both.assign(x=np.log10(both["x"].abs().clip(lower=smallest)))
    axes = _Axes(diagonal, smallest)
    limits = _limits(both, axes)[: None if enlarged else 1]
    titles = ["<b>All</b>", "<b>Enlarged: the dashed box</b>"] if len(limits) > 1 else []
    figure = make_subplots(cols=len(limits), horizontal_spacing=0.09, subplot_titles=titles)
    for column, box in enumerate(limits, start=1):
        place = {"row": 1, "col": column}
        inside = both[_within(both, box)]
        for trace in (*_lines(box, axes, legend=column == 1), *_points(inside, series, legend=column == 1)):
            figure.add_trace(trace, **place)
        # A unit is named where it stands apart: in the smallest panel that holds it.
        apart = inside if column == len(limits) else inside[~_within(inside, limits[column])]
        _label(figure, apart[apart["unit"].isin(named)], inside, box, _Panel(column, _WIDTH / len(limits)))
        figure.update_xaxes(title_text=x_label, range=box[:2], **place)
        figure.update_yaxes(title_text=y_label if column == 1 else None, range=box[2:], **place)
    if len(limits) > 1:
        figure.add_trace(_frame(limits[1]), row=1, col=1)
    if smallest is not None:
        figure.update_xaxes(tickvals=np.log10(_TICKS), ticktext=[f"{tick:g}" for tick in _TICKS])
    return finish(figure, title, subtitle, height=_HEIGHT, bottom=90)


def _limits(points: pd.DataFrame, axes: _Axes) -> list[Box]:
    """Return the box of all points and, where a few are far away, that of most."""
    sizes = points[["x", "y"]].abs().max(axis=1) if axes.diagonal else points["y"].abs()
    most = float(sizes.quantile(_MOST, interpolation="lower"))
    boxes = [_box(points, axes)]
    if most > 0 and sizes.max() > _CROWDED * most:
        boxes.append(_box(points[sizes <= most], axes))
    return boxes


def _box(points: pd.DataFrame, axes: _Axes) -> Box:
    spans = [_span(points, "x", zero=axes.smallest is None), _span(points, "y", zero=True)]
    if axes.diagonal:  # one scale on both
        spans = [(min(low for low, _ in spans), max(high for _, high in spans))] * 2
    return (*spans[0], *spans[1])


def _span(points: pd.DataFrame, name: str, *, zero: bool) -> tuple[float, float]:
    values = points[[column for column in (name, f"{name}_low", f"{name}_high") if column in points]].to_numpy(float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.12 * max(high - low, 1e-3)
    return low - room, high + room


def _within(points: pd.DataFrame, box: Box) -> pd.Series:
    inside: pd.Series = points["x"].between(*box[:2]) & points["y"].between(*box[2:])
    return inside


def _lines(box: Box, axes: _Axes, *, legend: bool) -> list[go.Scatter]:
    """Return lines where values are zero, and the diagonal."""
    across = guide(box[:2], (0.0, 0.0), 1.0, "dot")
    if not axes.diagonal:
        return [across]
    diagonal = guide(box[:2], box[:2], 1.5, "dash", "#999999").update(name=axes.diagonal, showlegend=legend)
    return [across, guide((0.0, 0.0), box[2:], 1.0, "dot"), diagonal]


def _frame(box: Box) -> go.Scatter:
    inset = 0.004 * (box[1] - box[0])  # an edge of the panel itself is not drawn over
    x = [box[0] + inset, box[1] - inset, box[1] - inset, box[0] + inset, box[0] + inset]
    y = [box[at] for at in (2, 2, 3, 3, 2)]
    return guide(x, y, 1.0, "dash")


def _points(points: pd.DataFrame, series: Mapping[str, Series], *, legend: bool) -> list[go.Scatter]:
    of = {name: points[points["series"] == name] for name in series}
    return [_dots(of[name], style, legend=legend) for name, style in series.items() if len(of[name])]


def _dots(points: pd.DataFrame, style: Series, *, legend: bool) -> go.Scatter:
    return go.Scatter(
        x=points["x"],
        y=points["y"],
        mode="markers",
        name=style.label,
        legendgroup=style.label,
        showlegend=legend,
        text=points["unit"],
        marker={"color": style.color, "symbol": style.symbol, "size": 9, "line": {"width": 1.5, "color": style.color}},
        error_x=_bars(points, "x", style),
        error_y=_bars(points, "y", style),
        customdata=points[["value"]],
        hovertemplate=f"%{{text}}, {style.label}: %{{customdata[0]:.3f}}, %{{y:.3f}}<extra></extra>",
    )


def _bars(points: pd.DataFrame, name: str, style: Series) -> dict[str, object] | None:
    if f"{name}_low" not in points:
        return None
    up, down = points[f"{name}_high"] - points[name], points[name] - points[f"{name}_low"]
    return whiskers(up.fillna(0.0), down.fillna(0.0), style.color, 1.0, 0.0)


def _label(figure: go.Figure, named: pd.DataFrame, points: pd.DataFrame, box: Box, at: _Panel) -> None:
    """Name points at the end of short lines, where there is room; a name without room is left to the pointer."""
    places = at.pixels(points[["x", "y"]].to_numpy(float), box)
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    spots = at.pixels(named[["x", "y"]].to_numpy(float), box)
    for (x, y), row in zip(spots, named.to_dict("records"), strict=True):
        width = text_width(row["unit"]) * 11 / 12 + 4
        for side, rise in _SIDES:
            left = x + side * 22 - (width if side < 0 else 0)
            place = (left, y + rise - 8, left + width, y + rise + 8)
            if left >= 0 and left + width <= at.width and not any(map(partial(_overlap, place), taken)):
                taken.append(place)
                text = {"text": html.escape(row["unit"]), "xanchor": "left" if side > 0 else "right"}
                arrow = {"showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": "#777777", "standoff": 5}
                ends = {"x": row["x"], "y": row["y"], "ax": side * 22, "ay": -rise}
                figure.add_annotation(**text, **arrow, **ends, font={"size": 11}, row=1, col=at.column)
                break


def _overlap(rectangle: Sequence[float], other: Sequence[float]) -> bool:
    return bool(
        rectangle[0] < other[2] and other[0] < rectangle[2] and rectangle[1] < other[3] and other[1] < rectangle[3]
    )
