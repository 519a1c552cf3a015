"""Heatmaps of injection layer by readout layer, all panels on one colour scale centred at zero."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float, Int
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.style import DIVERGING, INK, METRICS, MINUS, finish, layer_position, layer_ticks
from mechint.figures.units import with_units
from mechint.stats.bands import Marks
from mechint.stats.intervals import Interval

_GLYPH_CELLS = 20  # rows or columns above which glyphs in cells would be too small to read
_MARKED_SHARE = 0.02  # of the scale; smaller shifts are left unmarked however certain their sign is
_NOTE = (
    "{marks}: cells whose {marked}, and whose shift is at least 2% of "
    "the scale. Left of the staircase the injection cannot act on the answer."
)


@checked
@dataclass(frozen=True)
class SweepPanel:
    """One heatmap: a title and the shift with its interval, both of shape [injection rows, readout columns]."""

    title: str
    shift: Interval


@checked
def lens_sweep(
    panels: Sequence[SweepPanel],
    *,
    injections: Sequence[str],
    first_layers: Sequence[int],
    layers: Sequence[str],
    metric: str,
    title: str,
    subtitle: str,
    marked: str = Marks().caption,
    columns: int = 3,
) -> go.Figure:
    """Heatmaps of `metric`'s shift; `injections` label the rows (first layer `first_layers`), `layers` the columns.

    The subtitle gets a sentence on the meaning of the marks, `marked` of the given intervals (`bands.Marks.caption`):
    + and - (dots and dashes in large grids) mark cells whose interval excludes zero; right of the staircase are the
    layers at which the injection can act on a later turn at all.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[panel.title for panel in panels],
        horizontal_spacing=0.035,
        vertical_spacing=0.2 / rows,
    )
    positions, limit = [layer_position(layer) for layer in layers], _limit(panels)
    for number, panel in enumerate(panels):
        place = (number // columns + 1, number % columns + 1)
        for trace in (_heatmap(panel, injections, positions), *_marks(panel.shift, positions, limit)):
            figure.add_trace(trace, *place)
        figure.add_trace(_staircase(first_layers), *place)
        if number + columns >= len(panels):
            figure.update_xaxes(title_text="readout layer", showticklabels=True, row=place[0], col=place[1])
    _axes(figure, rows, injections, positions)
    _colour(figure, limit, f"shift of<br>{METRICS[metric]}")
    marks = "Dots (above zero) and dashes (below)" if _is_dense(panels[0].shift) else f"+ and {MINUS}"
    note = _NOTE.format(marks=marks, marked=marked)
    return finish(
        figure,
        title,
        with_units(f"{subtitle}. {note}", [panel.shift for panel in panels]),
        height=60 + 300 * rows,
        right=110,
    )


def _is_dense(shift: Interval) -> bool:
    return bool(max(shift.mean.shape) > _GLYPH_CELLS)


def _heatmap(panel: SweepPanel, injections: Sequence[str], positions: Sequence[int]) -> go.Heatmap:
    shift = panel.shift
    gap = 0 if _is_dense(shift) else 0.5
    columns = np.array(["embed" if position < 0 else str(position) for position in positions], dtype=object)
    names = np.broadcast_to(np.array(injections, dtype=object)[:, None], shift.mean.shape)
    return go.Heatmap(
        x=list(positions),
        y=list(range(len(injections))),
        z=shift.mean,
        customdata=np.dstack([names, np.broadcast_to(columns, names.shape), shift.low, shift.high]),
        coloraxis="coloraxis",
        xgap=gap,
        ygap=gap,
        hovertemplate="inject %{customdata[0]}, read %{customdata[1]}: "
        "%{z:+.3f} [%{customdata[2]:+.3f}, %{customdata[3]:+.3f}]"
        f"<extra>n = {shift.n}</extra>",
    )


def _marks(shift: Interval, positions: Sequence[int], limit: float) -> list[go.Scatter | go.Contour]:
    """What tells sign and certainty without colour: glyphs in cells, or stippling and contour lines in large grids."""
    sign = shift.excludes_zero() * (np.abs(shift.mean) >= _MARKED_SHARE * limit)
    if not _is_dense(shift):
        return [_glyphs(sign, positions)]
    lines = [_contours(shift.mean, positions, limit, side) for side in (1, -1)]
    return [
        *lines,
        _stipples(sign > 0, positions, "circle", 2),
        _stipples(sign < 0, positions, "line-ew-open", 3),
    ]


def _glyphs(sign: Int[np.ndarray, "injections layers"], positions: Sequence[int]) -> go.Scatter:
    rows, columns = np.nonzero(sign)
    return go.Scatter(
        x=np.take(positions, columns),
        y=rows,
        text=np.where(sign[rows, columns] > 0, "+", MINUS),
        mode="text",
        textfont={"size": 13, "color": INK},
        hoverinfo="skip",
        showlegend=False,
    )


def _stipples(
    cells: Bool[np.ndarray, "injections layers"], positions: Sequence[int], symbol: str, size: int
) -> go.Scatter:
    rows, columns = np.nonzero(cells)
    return go.Scatter(
        x=np.take(positions, columns),
        y=rows,
        mode="markers",
        marker={"symbol": symbol, "size": size, "color": INK, "line": {"color": INK}},
        hoverinfo="skip",
        showlegend=False,
    )


def _contours(
    mean: Float[np.ndarray, "injections layers"], positions: Sequence[int], limit: float, side: int
) -> go.Contour:
    """Lines at a quarter, a half and three quarters of the scale's end: solid above zero, dotted below."""
    return go.Contour(
        x=list(positions),
        y=list(range(len(mean))),
        z=side * mean,
        contours={"start": limit / 4, "end": 3 * limit / 4, "size": limit / 4, "coloring": "none"},
        line={"color": INK, "width": 1, "dash": "solid" if side > 0 else "dot"},
        showscale=False,
        hoverinfo="skip",
        showlegend=False,
    )


def _staircase(first_layers: Sequence[int]) -> go.Scatter:
    """Left of it the readout layer is at or below the first injected one: the shift is zero by construction."""
    x = [layer + 0.5 for layer in first_layers for _ in range(2)]
    y = [row + side for row in range(len(first_layers)) for side in (-0.5, 0.5)]
    return go.Scatter(x=x, y=y, mode="lines", line={"color": INK, "width": 1.5}, hoverinfo="skip", showlegend=False)


def _axes(figure: go.Figure, rows: int, injections: Sequence[str], positions: Sequence[int]) -> None:
    step = max(1, -(-len(injections) // 17))
    label = "injected layer" if all(text.isdecimal() for text in injections) else "injected layers"
    kept = list(range(0, len(injections), step))
    figure.update_xaxes(
        range=[positions[0] - 0.5, positions[-1] + 0.5], showgrid=False, **layer_ticks(positions, room=10)
    )
    figure.update_yaxes(
        range=[-0.5, len(injections) - 0.5],
        showgrid=False,
        tickvals=kept,
        ticktext=[injections[row] for row in kept],
    )
    for row in range(rows):
        figure.update_yaxes(title_text=label, row=row + 1, col=1)


def _limit(panels: Sequence[SweepPanel]) -> float:
    """End of the symmetric scale that all panels share, so that no panel looks stronger than it is."""
    return float(np.nanmax(np.abs([panel.shift.mean for panel in panels]), initial=1e-3))


def _colour(figure: go.Figure, limit: float, label: str) -> None:
    bar = {"title": {"text": f"{label}<br> ", "side": "top"}, "thickness": 16, "len": 0.9, "outlinewidth": 1}
    figure.update_layout(coloraxis={"colorscale": DIVERGING, "cmin": -limit, "cmax": limit, "colorbar": bar})
