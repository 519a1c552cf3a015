"""Curves by readout layer with their intervals, in panels side by side: any measure that the lens gives."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.names import check_names
from mechint.figures.style import INK, Series, finish, layer_position, layer_ticks, rgba
from mechint.figures.units import with_units

_HEIGHT = 240  # pixels for each line of panels
_TICKS = {1: 34, 2: 17, 3: 10}  # layers that have room for their number


@checked
@dataclass(frozen=True)
class LayerPanel:
    """One panel: `key` finds its curves, `label` is its axis, a line is drawn at `reference` (chance, zero)."""

    key: str
    title: str
    label: str
    reference: float = 0.0


@checked
def layer_curves(
    curves: pd.DataFrame,
    panels: Sequence[LayerPanel],
    series: Mapping[str, Series],
    *,
    title: str,
    subtitle: str,
    injected_layers: Iterable[int] = (),
    columns: int = 2,
    legend_lines: int = 1,
) -> go.Figure:
    """Return the figure of `panel, series, layer, mean, low, high`; where bounds are NaN there is no band.

    Panels of one line share their y axis. `layer` is as `logit_lens` has it; injected layers are shaded.
    """
    check_names(curves["series"], series, "series")
    lines = -(-len(panels) // columns)
    figure = make_subplots(
        rows=lines, cols=columns, shared_yaxes=True, horizontal_spacing=0.05,
        vertical_spacing=0.3 / lines,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )  # fmt: skip
    first = {name: next((p.key for p in panels if _has(curves, p.key, name)), "") for name in series}
    for number, panel in enumerate(panels):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        for name, style in series.items():
            rows = curves[(curves["panel"] == panel.key) & (curves["series"] == name)]
            for trace in _curve(rows, style, legend=first[name] == panel.key):
                figure.add_trace(trace, **place)
        figure.add_hline(panel.reference, line={"color": INK, "width": 1, "dash": "dot"}, **place)
        figure.update_yaxes(title_text=panel.label if number % columns == 0 else None, **place)
        if number + columns >= len(panels):
            figure.update_xaxes(title_text="readout layer", **place)
    _layer_axes(figure, curves["layer"], injected_layers, columns)
    return finish(
        figure, title, with_units(subtitle, [curves]), height=60 + _HEIGHT * lines, bottom=60 + 24 * legend_lines
    )


def _has(curves: pd.DataFrame, panel: str, series: str) -> bool:
    return bool(((curves["panel"] == panel) & (curves["series"] == series)).any())


def _curve(curve: pd.DataFrame, style: Series, *, legend: bool) -> list[go.Scatter]:
    if curve.empty:
        return []
    curve = curve.sort_values("layer", key=lambda layers: layers.map(layer_position))
    x = [layer_position(layer) for layer in curve["layer"]]
    line = go.Scatter(
        x=x, y=curve["mean"], name=style.label, legendgroup=style.label, showlegend=legend, mode="lines+markers",
        line={"color": style.color, "dash": style.dash, "width": style.width}, customdata=curve["layer"],
        marker={"symbol": style.symbol, "size": 7, "color": style.color, "maxdisplayed": 17},
        hovertemplate=f"{style.label}, layer %{{customdata}}: %{{y:.3f}}<extra></extra>",
    )  # fmt: skip
    return [line] if curve["low"].isna().all() else [_band(curve, x, style), line]


def _band(curve: pd.DataFrame, x: Sequence[int], style: Series) -> go.Scatter:
    return go.Scatter(
        x=[*x, *x[::-1]], y=[*curve["high"], *curve["low"][::-1]], fill="toself", fillcolor=rgba(style.color, 0.16),
        line={"width": 0}, mode="lines", legendgroup=style.label, showlegend=False, hoverinfo="skip",
    )  # fmt: skip


def _layer_axes(figure: go.Figure, layers: Iterable[object], injected: Iterable[int], columns: int) -> None:
    positions = sorted({layer_position(layer) for layer in layers})
    room = _TICKS.get(columns, 7)
    ticks = layer_ticks(positions, room)
    figure.update_xaxes(range=[positions[0] - 0.4, positions[-1] + 0.4], **ticks)
    for layer in sorted(set(injected)):
        figure.add_vrect(x0=layer - 0.5, x1=layer + 0.5, fillcolor="#999999", opacity=0.16, line_width=0, layer="below")
