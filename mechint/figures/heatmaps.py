"""Heatmaps in lines of panels: cells have their number, or where they are many their sign; certain ones are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.style import DIVERGING, INK, MINUS, finish, spread
from mechint.figures.units import with_units
from mechint.stats.intervals import Interval

_ROW, _GAP, _SMALL = 34, 60, 270  # pixels: a row of numbers, between lines of panels, a panel without numbers
_BAR = 150  # of a colour bar with its title, below which its ticks would stand on each other
_NUMBERS = 30  # columns of a line of panels, up to which cells have room for their number
_TICKS = 36  # columns of a line of panels that have room for their name
_SIGNS = 20  # rows or columns up to which cells have room for a sign
_VISIBLE = 0.02  # of the scale's end, from which on a certain cell has its sign
_LINE = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "row": "all", "col": "all"}
# Colours at places between 0 and 1.
Colors = Sequence[Sequence[object]]
SEQUENTIAL: Colors = ((0.0, "#FFFFFF"), (1.0, "#0072B2"))
WARNING: Colors = ((0.0, "#FFFFFF"), (0.5, "#F3D9A4"), (1.0, "#CC79A7"))


@checked
@dataclass(frozen=True)
class Scale:
    """A colour scale that panels share: what it shows, from where to where; values may be shown by their logarithm.

    Ends that are None are those of the largest value: zero is in the middle, or with other `colors` at the beginning.
    """

    label: str
    low: float | None = None
    high: float | None = None
    colors: Colors = tuple(DIVERGING)
    log: bool = False

    def reaching(self, panels: Sequence[HeatPanel]) -> Scale:
        """Return the scale with ends that the panels' values reach."""
        limit = max(float(np.nanmax(np.abs([panel.values.mean for panel in panels]), initial=0.0)), 1e-3)
        high = limit if self.high is None else self.high
        begin = -high if tuple(self.colors) == tuple(DIVERGING) else 0.0
        return Scale(self.label, begin if self.low is None else self.low, high, self.colors, self.log)


@checked
@dataclass(frozen=True)
class HeatPanel:
    """One heatmap: means with intervals, rows by columns (NaN: no cell), and the name of its scale.

    Numbers whose interval excludes zero have a dot or are bold, unless `mark` is empty; without numbers their sign
    stands in the cell.
    """

    title: str
    values: Interval
    scale: str = ""
    mark: Literal["dot", "bold", ""] = "dot"


@checked
def heatmap(
    panels: Sequence[HeatPanel],
    scales: Scale | Mapping[str, Scale],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    subtitle: str,
    row_label: str = "",
    column_label: str = "",
    per_line: int = 3,
    upward: bool = False,
    numbers: bool = True,
    digits: int | None = 2,
) -> go.Figure:
    """Return the figure; the first of `rows` is at the top, or with `upward` at the bottom.

    Cells have their number, with so many `digits` after the point (None: fewer for large numbers), if there is room
    for it and unless `numbers` is False. The middle of a cell lies at the numbers of its column and row, which are
    counted from 0; columns from -1 if the first is `embed`.
    """
    per_line = min(per_line, len(panels))
    n_lines = -(-len(panels) // per_line)
    numbered = numbers and len(columns) * per_line <= _NUMBERS
    named = {"": scales} if isinstance(scales, Scale) else scales
    height = max(n_lines * ((_ROW * len(rows) if numbered else _SMALL) + _GAP), _BAR * len(named))
    figure = make_subplots(
        rows=n_lines,
        cols=per_line,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=_GAP / height,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )
    of = {name: [panel for panel in panels if panel.scale == name] for name in named}
    reaching = {name: scale.reaching(of[name]) for name, scale in named.items()}
    axes = {name: f"coloraxis{number + 1 if number else ''}" for number, name in enumerate(named)}
    for at, panel in enumerate(panels):
        scale = reaching[panel.scale]
        place = {"row": at // per_line + 1, "col": at % per_line + 1}
        cells = _heatmap(panel, scale, rows, columns).update(coloraxis=axes[panel.scale])
        if numbered:
            cells.update(text=_texts(panel, digits), texttemplate="%{text}", textfont={"size": 11})
        figure.add_trace(cells, **place)
        for trace in [] if numbered or not panel.mark else _signs(panel.values, columns, scale.high or 0.0):
            figure.add_trace(trace, **place)
        if at + per_line >= len(panels):
            figure.update_xaxes(title_text=column_label, showticklabels=True, **place)
        if at % per_line == 0:
            figure.update_yaxes(title_text=row_label, **place)
    _name(figure, rows, columns, _TICKS // per_line, upward=upward, every_row=numbered)
    _color(figure, reaching, axes)
    subtitle = with_units(subtitle, [panel.values for panel in panels])
    done = finish(figure, title, subtitle, height=height, bottom=80, right=120 if len(named) == 1 else 150)
    return done.update_yaxes(automargin=True).update_xaxes(automargin=True)


@checked
def hatch(figure: go.Figure, cells: Bool[np.ndarray, "rows columns"]) -> go.Figure:
    """Draw slanting lines over some cells of every panel, beside the middle of each, where its number is."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row, column in zip(*np.nonzero(cells), strict=True):
        for shift in (-0.6, 0.6):
            start, stop = max(-0.5, shift - 0.5), min(0.5, shift + 0.5)
            x += [column + start, column + stop, None]
            y += [row + start - shift, row + stop - shift, None]
    # One line with gaps for all places: Plotly looks at every shape again whenever one is added.
    return figure.add_scatter(x=x, y=y, line={"color": INK, "width": 0.8}, opacity=0.45, **_LINE) if x else figure


@checked
def frame(figure: go.Figure, row: int, column: int) -> go.Figure:
    """Draw the edge of one cell of every panel."""
    x = [column + shift for shift in (-0.5, 0.5, 0.5, -0.5, -0.5)]
    y = [row + shift for shift in (-0.5, -0.5, 0.5, 0.5, -0.5)]
    return figure.add_scatter(x=x, y=y, line={"color": INK, "width": 3}, **_LINE)


def sign_words(rows: Sequence[str], columns: Sequence[str]) -> str:
    """Return what marks the signs of cells in a heatmap without numbers."""
    return "Dots (above zero) and dashes (below)" if _is_dense(len(rows), len(columns)) else f"+ and {MINUS}"


def line_words(rows: Sequence[str], columns: Sequence[str]) -> str:
    """Return what the lines between the cells of a heatmap are; "" where cells are so large that there are none."""
    return "Lines: quarters of the scale, dotted below zero." if _is_dense(len(rows), len(columns)) else ""


def _is_dense(*shape: int) -> bool:
    return max(shape) > _SIGNS


def _first(columns: Sequence[str]) -> int:
    return -1 if columns[0] == "embed" else 0


def _heatmap(panel: HeatPanel, scale: Scale, rows: Sequence[str], columns: Sequence[str]) -> go.Heatmap:
    values = panel.values
    names = np.meshgrid(np.array(columns, dtype=object), np.array(rows, dtype=object))
    gap = 0 if _is_dense(len(rows), len(columns)) else 1
    return go.Heatmap(
        x=np.arange(len(columns)) + _first(columns),
        y=np.arange(len(rows)),
        z=_on_scale(values.mean, scale),
        xgap=gap,
        ygap=gap,
        customdata=np.dstack([*names, values.mean, values.low, values.high]),
        hovertemplate="%{customdata[1]}, %{customdata[0]}: %{customdata[2]:.3f} "
        "[%{customdata[3]:.3f}, %{customdata[4]:.3f}]<extra></extra>",
    )


def _on_scale(values: Float[np.ndarray, "rows columns"], scale: Scale) -> np.ndarray:
    if not scale.log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log10(np.clip(values, scale.low, scale.high)))


def _texts(panel: HeatPanel, digits: int | None) -> list[list[str]]:
    certain = panel.values.excludes_zero() != 0
    return [
        [_marked(_number(value, digits), panel.mark if sure else "") for value, sure in zip(*line, strict=True)]
        for line in zip(panel.values.mean.tolist(), certain.tolist(), strict=True)
    ]


def _marked(text: str, mark: str) -> str:
    return {"dot": f"{text} •", "bold": f"<b>{text}</b>"}.get(mark, text) if text else ""


def _number(value: float, digits: int | None) -> str:
    """Return a number with some digits after the point: where None, with as many as there is room for."""
    if np.isnan(value):
        return ""
    size = abs(value)
    if digits is None:
        digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    rounded = round(value, digits) + 0.0  # which turns -0.0 into 0.0
    text = f"{rounded:.{digits}f}" if size < 9999.5 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    return text.replace("-", MINUS)


def _signs(values: Interval, columns: Sequence[str], limit: float) -> list[go.Scatter | go.Contour]:
    """What tells sign and certainty without colour: signs in cells; stippling and contour lines in small cells."""
    sign = values.excludes_zero() * (np.abs(values.mean) >= _VISIBLE * limit)
    if not _is_dense(*sign.shape):
        rows, places = np.nonzero(sign)
        texts = np.where(sign[rows, places] > 0, "+", MINUS)
        font = {"size": 13, "color": INK}
        return [_on_cells(sign != 0, columns, mode="text", text=texts, textfont=font)]
    return [
        _contours(values.mean, columns, limit, 1),
        _contours(values.mean, columns, limit, -1),
        _on_cells(sign > 0, columns, mode="markers", marker={"symbol": "circle", "size": 2, "color": INK}),
        _on_cells(
            sign < 0,
            columns,
            mode="markers",
            marker={"symbol": "line-ew-open", "size": 3, "color": INK, "line": {"color": INK}},
        ),
    ]


def _on_cells(cells: Bool[np.ndarray, "rows columns"], columns: Sequence[str], **look: object) -> go.Scatter:
    rows, places = np.nonzero(cells)
    return go.Scatter(x=places + _first(columns), y=rows, hoverinfo="skip", showlegend=False, **look)


def _contours(mean: Float[np.ndarray, "rows columns"], columns: Sequence[str], limit: float, side: int) -> go.Contour:
    """Lines at a quarter, a half and three quarters of the scale's end: solid above zero, dotted below."""
    return go.Contour(
        x=np.arange(len(columns)) + _first(columns),
        y=np.arange(len(mean)),
        z=side * mean,
        contours={"start": limit / 4, "end": 3 * limit / 4, "size": limit / 4, "coloring": "none"},
        line={"color": INK, "width": 1, "dash": "solid" if side > 0 else "dot"},
        showscale=False,
        hoverinfo="skip",
        showlegend=False,
    )


def _name(
    figure: go.Figure, rows: Sequence[str], columns: Sequence[str], room: int, *, upward: bool, every_row: bool
) -> None:
    """Name rows and columns at the axes, every one or every so many."""
    first = _first(columns)
    across = spread(first, first + len(columns) - 1, room)
    down = list(range(len(rows))) if every_row else spread(0, len(rows) - 1)
    figure.update_xaxes(
        range=[first - 0.5, first + len(columns) - 0.5],
        tickvals=across,
        ticktext=[columns[at - first] for at in across],
    )
    ends = [-0.5, len(rows) - 0.5]
    figure.update_yaxes(range=ends if upward else ends[::-1], tickvals=down, ticktext=[rows[at] for at in down])
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(showgrid=False, tickangle=0, ticks="")


def _color(figure: go.Figure, scales: Mapping[str, Scale], axes: Mapping[str, str]) -> None:
    """Give every scale its bar, one below the other."""
    share = 1 / len(scales)
    for at, (name, scale) in enumerate(scales.items()):
        bar: dict[str, object] = {
            "title": {"text": f"{scale.label}<br> ", "side": "top"},
            "thickness": 16,
            "outlinewidth": 1,
            "len": share - 0.02,
            "y": 1 - at * share,
            "yanchor": "top",
            "x": 1.01,
            "xanchor": "left",
        }
        if len(scales) > 1:
            bar["nticks"] = 3  # more have no room
        ends = np.array([scale.low, scale.high], dtype=float)
        if scale.log:
            every = (1, 10, 100, 1000) if ends[1] > 10 * ends[0] else (1, 2, 5, 10)  # more have no room on a short bar
            ticks = [tick for tick in every if ends[0] <= tick <= ends[1]]
            bar |= {"tickvals": list(np.log10(ticks)), "ticktext": [f"{tick:g}" for tick in ticks]}
            ends = np.log10(ends)
        figure.update_layout(
            {axes[name]: {"colorscale": scale.colors, "cmin": ends[0], "cmax": ends[1], "colorbar": bar}}
        )
