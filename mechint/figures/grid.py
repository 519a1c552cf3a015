"""Heatmaps over two categorical axes, panels on one colour scale, cells with their number and a mark for certainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.style import DIVERGING, MINUS, finish
from mechint.figures.units import with_units
from mechint.stats.intervals import Interval

_ROW = 34
_SEQUENTIAL = [[0.0, "#FFFFFF"], [1.0, "#0072B2"]]


@checked
@dataclass(frozen=True)
class GridPanel:
    """One heatmap: means with intervals, `rows` by `columns`."""

    title: str
    values: Interval


@checked
def grid(
    panels: Sequence[GridPanel],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
    label: str,
    title: str,
    subtitle: str,
    per_line: int = 3,
    sequential: bool = False,
    digits: int = 2,
) -> go.Figure:
    """Return the figure; the first of `rows` is at the top, a dot marks cells whose interval excludes zero."""
    per_line = min(per_line, len(panels))
    lines = -(-len(panels) // per_line)
    figure = make_subplots(
        rows=lines, cols=per_line, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.03,
        vertical_spacing=min(0.2, 60 / (lines * (_ROW * len(rows) + 60))),
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )  # fmt: skip
    limit = max(float(np.nanmax(np.abs([panel.values.mean for panel in panels]), initial=1e-3)), 1e-3)
    for at, panel in enumerate(panels):
        place = {"row": at // per_line + 1, "col": at % per_line + 1}
        figure.add_trace(_heatmap(panel, rows, columns, digits, marked=not sequential), **place)
        if at + per_line >= len(panels):
            figure.update_xaxes(title_text=column_label, showticklabels=True, **place)
        if at % per_line == 0:
            figure.update_yaxes(title_text=row_label, **place)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_xaxes(showgrid=False, type="category")
    scale = {"colorscale": _SEQUENTIAL, "cmin": 0, "cmax": limit} if sequential else {
        "colorscale": DIVERGING, "cmin": -limit, "cmax": limit,
    }  # fmt: skip
    bar = {"title": {"text": f"{label}<br> ", "side": "top"}, "thickness": 16, "len": 0.9, "outlinewidth": 1}
    figure.update_layout(coloraxis={**scale, "colorbar": bar})
    subtitle = with_units(subtitle, [panel.values for panel in panels])
    done = finish(figure, title, subtitle, height=lines * (_ROW * len(rows) + 60), bottom=90, right=120)
    done.update_yaxes(automargin=True)
    done.update_xaxes(automargin=True, tickangle=0)
    return done


def _heatmap(panel: GridPanel, rows: Sequence[str], columns: Sequence[str], digits: int, *, marked: bool) -> go.Heatmap:
    values = panel.values
    certain = values.excludes_zero()
    return go.Heatmap(
        x=list(columns),
        y=list(rows),
        z=values.mean,
        text=_texts(values.mean, certain if marked else np.zeros_like(certain), digits),
        texttemplate="%{text}",
        textfont={"size": 11},
        coloraxis="coloraxis",
        customdata=np.stack([values.low, values.high], axis=-1),
        hovertemplate="%{y}, %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
    )


def _texts(mean: Float[np.ndarray, "rows columns"], certain: np.ndarray, digits: int) -> list[list[str]]:
    return [
        [_text(value, bool(sure), digits) for value, sure in zip(*line, strict=True)]
        for line in zip(mean, certain, strict=True)
    ]


def _text(value: float, sure: bool, digits: int) -> str:
    if np.isnan(value):
        return ""
    rounded = round(float(value), digits) + 0.0  # which turns -0.0 into 0.0
    return f"{rounded:.{digits}f}".replace("-", MINUS) + (" •" if sure else "")
