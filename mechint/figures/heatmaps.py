"""Heatmaps over two numbered axes, each panel on one of several colour scales; cells can be hatched, one framed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.style import DIVERGING, INK, MINUS, finish
from mechint.figures.units import with_units
from mechint.stats.intervals import Interval

_ROW, _GAP = 34, 50  # pixels of a row of cells, and between lines of panels
_READABLE = 9  # columns up to which cells have room for their number
_LINES = (-0.6, 0.6)  # of the hatching, beside the middle of a cell, where its number is
# Colours at places between 0 and 1.
Colors = Sequence[Sequence[object]]
SEQUENTIAL: Colors = ((0.0, "#FFFFFF"), (1.0, "#0072B2"))
WARNING: Colors = ((0.0, "#FFFFFF"), (0.5, "#F3D9A4"), (1.0, "#CC79A7"))


@checked
@dataclass(frozen=True)
class Scale:
    """A colour scale that panels share: what it shows, from where to where; values may be shown by their logarithm."""

    label: str
    low: float
    high: float
    colors: Colors = tuple(DIVERGING)
    log: bool = False


@checked
@dataclass(frozen=True)
class HeatPanel:
    """One heatmap: means with intervals, rows by columns (NaN: no cell), and the name of its scale.

    With `certain`, numbers whose interval excludes zero are bold; where cells are too small for numbers they have the
    sign instead.
    """

    title: str
    values: Interval
    scale: str
    certain: bool = True


@checked
def heatmaps(
    panels: Sequence[HeatPanel],
    scales: Mapping[str, Scale],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
    title: str,
    subtitle: str,
    hatched: Bool[np.ndarray, "rows columns"] | None = None,
    framed: tuple[int, int] | None = None,
    per_line: int = 3,
) -> go.Figure:
    """Return the figure; the first of `rows` is at the bottom. Cells have their number where there is room for it."""
    per_line = min(per_line, len(panels))
    lines = -(-len(panels) // per_line)
    height = lines * (_ROW * len(rows) + _GAP)
    figure = make_subplots(
        rows=lines, cols=per_line, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.025,
        vertical_spacing=_GAP / height, subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )  # fmt: skip
    axes = {name: f"coloraxis{number + 1 if number else ''}" for number, name in enumerate(scales)}
    for at, panel in enumerate(panels):
        place = {"row": at // per_line + 1, "col": at % per_line + 1}
        figure.add_trace(_heatmap(panel, scales[panel.scale], axes[panel.scale], rows, columns), **place)
        for trace in (*_hatching(hatched), *_frame(framed)):
            figure.add_trace(trace, **place)
        if at + per_line >= len(panels):
            figure.update_xaxes(title_text=column_label, showticklabels=True, **place)
        if at % per_line == 0:
            figure.update_yaxes(title_text=row_label, **place)
    _number(figure, rows, columns)
    _color(figure, scales, axes)
    subtitle = with_units(subtitle, [panel.values for panel in panels if panel.certain])
    done = finish(figure, title, subtitle, height=height, bottom=70, right=150)
    return done.update_yaxes(automargin=True)


def _heatmap(panel: HeatPanel, scale: Scale, axis: str, rows: Sequence[str], columns: Sequence[str]) -> go.Heatmap:
    values = panel.values
    names = np.meshgrid(np.array(columns, dtype=object), np.array(rows, dtype=object))
    certain = values.excludes_zero() != 0 if panel.certain else np.zeros(values.mean.shape, dtype=bool)
    return go.Heatmap(
        x=list(range(len(columns))),
        y=list(range(len(rows))),
        z=_on_scale(values.mean, scale),
        text=_texts(values.mean, certain) if len(columns) <= _READABLE else _signs(values.mean, certain),
        texttemplate="%{text}",
        textfont={"size": 11},
        coloraxis=axis,
        xgap=1,
        ygap=1,
        customdata=np.dstack([*names, values.mean, values.low, values.high]),
        hovertemplate="%{customdata[1]}, %{customdata[0]}: %{customdata[2]:.3f} "
        "[%{customdata[3]:.3f}, %{customdata[4]:.3f}]<extra></extra>",
    )


def _on_scale(values: Float[np.ndarray, "rows columns"], scale: Scale) -> np.ndarray:
    if not scale.log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log10(np.clip(values, scale.low, scale.high)))


def _texts(mean: Float[np.ndarray, "rows columns"], certain: np.ndarray) -> list[list[str]]:
    cells = zip(mean.tolist(), certain.tolist(), strict=True)
    return [[_text(*cell) for cell in zip(*line, strict=True)] for line in cells]


def _signs(mean: Float[np.ndarray, "rows columns"], certain: np.ndarray) -> list[list[str]]:
    texts: list[list[str]] = np.where(certain, np.where(mean > 0, "+", MINUS), "").tolist()
    return texts


def _text(value: float, certain: bool) -> str:
    if np.isnan(value):
        return ""
    size, value = abs(value), value if abs(value) >= 0.005 else 0.0  # no minus before a zero
    text = f"{value:.2f}" if size < 9.995 else f"{value:.1f}" if size < 99.95 else _large(value)
    return f"<b>{text}</b>".replace("-", MINUS) if certain else text.replace("-", MINUS)


def _large(value: float) -> str:
    return f"{value:.0f}" if abs(value) < 9999.5 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def _hatching(cells: Bool[np.ndarray, "rows columns"] | None) -> list[go.Scatter]:
    """Return slanting lines over some cells, drawn as one line with gaps."""
    if cells is None or not cells.any():
        return []
    x: list[float | None] = []
    y: list[float | None] = []
    for row, column in zip(*np.nonzero(cells), strict=True):
        for shift in _LINES:
            start, stop = max(-0.5, shift - 0.5), min(0.5, shift + 0.5)
            x += [column + start, column + stop, None]
            y += [row + start - shift, row + stop - shift, None]
    line = {"color": INK, "width": 0.8}
    return [go.Scatter(x=x, y=y, mode="lines", line=line, opacity=0.45, hoverinfo="skip", showlegend=False)]


def _frame(cell: tuple[int, int] | None) -> list[go.Scatter]:
    if cell is None:
        return []
    row, column = cell
    x, y = (
        [at + side / 2 for side in sides] for at, sides in ((column, (-1, 1, 1, -1, -1)), (row, (-1, -1, 1, 1, -1)))
    )
    return [go.Scatter(x=x, y=y, mode="lines", line={"color": INK, "width": 3}, hoverinfo="skip", showlegend=False)]


def _number(figure: go.Figure, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Name rows and columns at the axes, every one or every so many."""
    for update, names, room in ((figure.update_xaxes, columns, 12), (figure.update_yaxes, rows, 20)):
        kept = list(range(0, len(names), -(-len(names) // room)))
        ticks = {"tickvals": kept, "ticktext": [names[at] for at in kept]}
        update(range=[-0.5, len(names) - 0.5], showgrid=False, tickangle=0, ticks="", constrain="domain", **ticks)


def _color(figure: go.Figure, scales: Mapping[str, Scale], axes: Mapping[str, str]) -> None:
    """Give every scale its bar, one below the other."""
    share = 1 / len(scales)
    for at, (name, scale) in enumerate(scales.items()):
        bar = {
            "title": {"text": f"{scale.label}<br> ", "side": "top"}, "thickness": 14, "outlinewidth": 1,
            "len": share - 0.02, "y": 1 - at * share, "yanchor": "top", "x": 1.01, "xanchor": "left",
        }  # fmt: skip
        low, high = scale.low, scale.high
        if scale.log:
            ticks = [tick for tick in (1, 2, 5, 10, 100, 1000) if low <= tick <= high]
            bar |= {"tickvals": list(np.log10(ticks)), "ticktext": [f"{tick:g}" for tick in ticks]}
            low, high = np.log10(low), np.log10(high)
        figure.update_layout({axes[name]: {"colorscale": scale.colors, "cmin": low, "cmax": high, "colorbar": bar}})
