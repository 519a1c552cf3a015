"""Heatmaps beside a text: panels on one colour scale, some of whose cells are taken apart into smaller ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.panels import guide
from mechint.figures.style import DIVERGING, INK, MINUS, finish
from mechint.figures.units import with_units
from mechint.stats.intervals import Interval

_ROW = 17  # pixels of a line of the text
_VISIBLE = 0.04  # of the scale's end, from which on a certain cell has its sign
_TICKS = 9  # columns that have room for their number


@checked
@dataclass(frozen=True)
class Lattice:
    """Cells between edges: `values` has one row for each gap of `rows` and one column for each gap of `columns`.

    Rows are counted in lines of the text, from the top. Where `framed`, there is a frame around all, and `label` stands
    on its right, or on its `label_side`.
    """

    columns: Sequence[int]
    rows: Sequence[int]
    values: Interval
    framed: bool = False
    label: str = ""
    label_side: Literal["left", "right"] = "right"


@checked
@dataclass(frozen=True)
class TilePanel:
    """One heatmap of several lattices; those that come later are drawn over those before."""

    title: str
    lattices: Sequence[Lattice]


@checked
@dataclass(frozen=True)
class Line:
    """One line of the text: a heading in bold, beside which nothing stands; in italics the details of a longer one."""

    text: str
    heading: bool = False
    detail: bool = False


@checked
def tiles(
    panels: Sequence[TilePanel],
    lines: Sequence[Line],
    columns: Sequence[str],
    *,
    column_label: str,
    label: str,
    title: str,
    subtitle: str,
    least: float = 1e-3,
) -> go.Figure:
    """Return the figure; cells whose interval excludes zero have their sign, unless they are next to nothing.

    Column `k` of `columns` lies between edges k and k + 1. Colours reach to the largest value, but to `least` anyhow.
    """
    figure = make_subplots(
        rows=1,
        cols=len(panels),
        shared_yaxes=True,
        horizontal_spacing=0.015,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )
    every = [np.abs(lattice.values.mean) for panel in panels for lattice in panel.lattices]
    limit = max(float(np.nanmax([np.nanmax(values, initial=0.0) for values in every], initial=0.0)), least)
    for column, panel in enumerate(panels, start=1):
        for lattice in panel.lattices:
            for trace in (_heatmap(lattice, columns), _signs(lattice, limit), *_frame(lattice)):
                figure.add_trace(trace, row=1, col=column)
    figure.update_annotations(font={"size": 14})  # panels are narrow
    _axes(figure, lines, columns, column_label)
    bar = {"title": {"text": f"{label}<br> ", "side": "top"}, "thickness": 16, "len": 0.9, "outlinewidth": 1}
    scale = {"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar}
    figure.update_layout(coloraxis=scale)
    subtitle = with_units(subtitle, [lattice.values for panel in panels for lattice in panel.lattices])
    done = finish(figure, title, subtitle, height=_ROW * len(lines), bottom=70, right=120)
    return done.update_yaxes(automargin=True)


def _heatmap(lattice: Lattice, columns: Sequence[str]) -> go.Heatmap:
    values = lattice.values
    starts, stops = lattice.columns[:-1], lattice.columns[1:]
    names = [
        columns[int(start)] if stop - start <= 1 else f"{columns[int(start)]}-{columns[int(stop) - 1]}"
        for start, stop in zip(starts, stops, strict=True)
    ]
    whose = np.broadcast_to(np.array(names, dtype=object), values.mean.shape)
    return go.Heatmap(
        x=list(lattice.columns),
        y=list(lattice.rows),
        z=values.mean,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        customdata=np.dstack([whose, values.low, values.high]),
        hovertemplate="%{customdata[0]}: %{z:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
    )


def _signs(lattice: Lattice, limit: float) -> go.Scatter:
    """Return the signs of certain cells, which are all that is left of the colours in black and white."""
    mean, certain = lattice.values.mean, lattice.values.excludes_zero() != 0
    at = [(row, column) for row, column in np.argwhere(certain & (np.abs(mean) >= _VISIBLE * limit))]
    middles = [np.convolve(edges, [0.5, 0.5], "valid") for edges in (lattice.rows, lattice.columns)]
    return go.Scatter(
        x=[middles[1][column] for _, column in at],
        y=[middles[0][row] for row, _ in at],
        mode="text",
        text=["+" if mean[place] > 0 else MINUS for place in at],
        hoverinfo="skip",
        showlegend=False,
        textfont={"size": 12, "color": ["white" if abs(mean[place]) > limit / 2 else INK for place in at]},
    )


def _frame(lattice: Lattice) -> list[go.Scatter]:
    if not lattice.framed:
        return []
    left, right, top, bottom = lattice.columns[0], lattice.columns[-1], lattice.rows[0], lattice.rows[-1]
    frame = guide([left, right, right, left, left], [top, top, bottom, bottom, top], 1.5)
    label = go.Scatter(
        x=[right if lattice.label_side == "right" else left],
        y=[top + 0.6],
        mode="text",
        text=[f" {lattice.label} "],
        textposition=f"middle {lattice.label_side}",
        textfont={"size": 10},
        hoverinfo="skip",
        showlegend=False,
    )
    return [frame, label]


def _axes(figure: go.Figure, lines: Sequence[Line], columns: Sequence[str], label: str) -> None:
    step = -(-len(columns) // _TICKS)
    kept = range(0, len(columns), step)
    figure.update_xaxes(
        title_text=label,
        range=[0, len(columns)],
        tickvals=[at + 0.5 for at in kept],
        showgrid=False,
        tickangle=0,
        ticktext=[columns[at] for at in kept],
    )
    texts = [_text(line) for line in lines]
    figure.update_yaxes(
        range=[len(lines), 0],
        tickvals=[at + 0.5 for at in range(len(lines))],
        ticktext=texts,
        ticks="",
        showgrid=False,
        tickfont={"size": 11},
    )


def _text(line: Line) -> str:
    text = line.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<b>{text}</b>" if line.heading else f"<i>{text}</i>" if line.detail else text
