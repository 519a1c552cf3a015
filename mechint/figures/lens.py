"""Logit-lens curves by layer: all concepts with their interval, and one small panel per concept."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.style import (
    INK,
    METRICS,
    SERIES,
    finish,
    layer_position,
    layer_ticks,
    rgba,
)
from mechint.figures.units import with_units

PANELS = {"question": (1, 1), "control": (1, 2), "shift": (2, 1)}
_MAX_MARKERS = 17
_INVISIBLE = 0.05  # shifts of a probability below this are not blown up to fill the panel


@checked
def lens_overview(
    curves: pd.DataFrame,
    lines: pd.DataFrame,
    *,
    metric: str,
    title: str,
    subtitle: str,
    injected_layers: Iterable[int] = (),
) -> go.Figure:
    """Three panels by layer: the introspection question, the control questions, and every shift against clean.

    `curves`: panel (question, control, shift), series, layer, mean, low, high; in the control panel a series
    `<group>-clean` is drawn thin. `lines`: panel, series, concept, layer, value, drawn faintly behind.
    """
    name = METRICS[metric]
    figure = make_subplots(
        rows=2,
        cols=2,
        specs=[[{}, {}], [{"colspan": 2}, None]],
        row_heights=[0.45, 0.55],
        vertical_spacing=0.16,
        horizontal_spacing=0.09,
        subplot_titles=(
            "Introspection question",
            "Control questions (thin: clean)",
            "Shift against clean: only this can be read as an effect of the injection",
        ),
    )
    for (panel, series, _), line in lines.groupby(["panel", "series", "concept"], sort=False):
        figure.add_trace(_faint(series, line), *PANELS[panel])
    for (panel, series), curve in curves.groupby(["panel", "series"], sort=False):
        for trace in _curve(series, curve, legend=panel == "shift" or series == "clean"):
            figure.add_trace(trace, *PANELS[panel])
    _layer_axes(figure, curves["layer"], injected_layers)
    for panel, label in (("question", name), ("control", name), ("shift", f"shift of {name}")):
        figure.update_yaxes(title_text=label, row=PANELS[panel][0], col=PANELS[panel][1])
    if metric == "p_yes":
        figure.update_yaxes(range=_y_range(curves, metric), row=1)
        if lines.loc[lines["panel"] == "shift", "value"].abs().max() < _INVISIBLE:
            figure.update_yaxes(range=[-_INVISIBLE, _INVISIBLE], row=2)
    figure.add_hline(y=0, line={"color": INK, "width": 1}, row=2, col=1)
    return finish(figure, title, with_units(subtitle, [curves]), height=700, bottom=110)


@checked
def lens_concepts(
    curves: pd.DataFrame,
    *,
    metric: str,
    title: str,
    subtitle: str,
    injected_layers: Iterable[int] = (),
    per_page: int = 12,
    columns: int = 4,
) -> list[go.Figure]:
    """Small multiples, one panel per concept, at most `per_page` on a figure; `curves`: concept, series, layer,
    mean, and low/high where a band is wanted (NaN: none)."""
    concepts = list(dict.fromkeys(curves["concept"]))
    pages = [concepts[start : start + per_page] for start in range(0, len(concepts), per_page)]
    layers = list(injected_layers)
    return [
        _concept_page(
            curves,
            page,
            metric=metric,
            title=_page_title(title, number, len(pages)),
            subtitle=subtitle,
            injected_layers=layers,
            columns=columns,
        )
        for number, page in enumerate(pages)
    ]


def _page_title(title: str, number: int, pages: int) -> str:
    return title if pages == 1 else f"{title} (page {number + 1} of {pages})"


def _concept_page(
    curves: pd.DataFrame,
    concepts: Sequence[str],
    *,
    metric: str,
    title: str,
    subtitle: str,
    injected_layers: Sequence[int],
    columns: int,
) -> go.Figure:
    columns = min(columns, len(concepts))
    rows = math.ceil(len(concepts) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes="all",
        shared_yaxes="all",
        subplot_titles=list(concepts),
        horizontal_spacing=0.03,
        vertical_spacing=0.22 / rows,
    )
    for number, concept in enumerate(concepts):
        place = (number // columns + 1, number % columns + 1)
        for series, curve in curves[curves["concept"] == concept].groupby("series", sort=False):
            for trace in _curve(series, curve, legend=number == 0, markers=8, size=6):
                figure.add_trace(trace, *place)
    _layer_axes(figure, curves["layer"], injected_layers, room=7, titled=False)
    figure.update_yaxes(range=_y_range(curves, metric))
    _label_edges(figure, len(concepts), columns, METRICS[metric])
    return finish(figure, title, subtitle, height=60 + 200 * rows, bottom=100)


def _label_edges(figure: go.Figure, panels: int, columns: int, label: str) -> None:
    """Axis titles on the left and below the lowest panel of each column only."""
    for number in range(panels):
        row, column = number // columns + 1, number % columns + 1
        if column == 1:
            figure.update_yaxes(title_text=label, row=row, col=column)
        if number + columns >= panels:
            figure.update_xaxes(title_text="layer", showticklabels=True, row=row, col=column)


def _curve(
    name: str, curve: pd.DataFrame, *, legend: bool, markers: int = _MAX_MARKERS, size: int = 8
) -> list[go.Scatter]:
    """Interval band (where there is one) and mean line of one series."""
    group = name.removesuffix("-clean")
    style = SERIES[group]
    x = [layer_position(layer) for layer in curve["layer"]]
    mean = go.Scatter(
        x=x,
        y=curve["mean"],
        customdata=curve["layer"],
        name=style.label,
        legendgroup=group,
        legendrank=list(SERIES).index(group),
        showlegend=legend and name == group,
        mode="lines" if name != group else "lines+markers",
        line={"color": style.color, "dash": style.dash, "width": 1 if name != group else style.width},
        marker={"symbol": style.symbol, "size": size, "color": style.color, "maxdisplayed": markers},
        hovertemplate=f"{style.label}, layer %{{customdata}}: %{{y:.3f}}<extra></extra>",
    )
    return [*_band(curve, x, style.color, group), mean] if name == group else [mean]


def _band(curve: pd.DataFrame, x: Sequence[int], color: str, group: str) -> list[go.Scatter]:
    if "low" not in curve or curve["low"].isna().all():
        return []
    band = go.Scatter(
        x=[*x, *x[::-1]],
        y=[*curve["high"], *curve["low"][::-1]],
        fill="toself",
        fillcolor=rgba(color, 0.16),
        line={"width": 0},
        mode="lines",
        legendgroup=group,
        showlegend=False,
        hoverinfo="skip",
    )
    return [band]


def _faint(name: str, line: pd.DataFrame) -> go.Scatter:
    style = SERIES[name]
    return go.Scatter(
        x=[layer_position(layer) for layer in line["layer"]],
        y=line["value"],
        customdata=line["layer"],
        mode="lines",
        line={"color": rgba(style.color, 0.3), "width": 1},
        legendgroup=name,
        showlegend=False,
        hovertemplate=f"{line['concept'].iloc[0]}, layer %{{customdata}}: %{{y:.3f}}<extra></extra>",
    )


def _layer_axes(
    figure: go.Figure, layers: Iterable[object], injected: Iterable[int], room: int = 17, titled: bool = True
) -> None:
    """Layer ticks on every x axis, and the injected layers shaded."""
    positions = sorted({layer_position(layer) for layer in layers})
    figure.update_xaxes(range=[positions[0] - 0.4, positions[-1] + 0.4], **layer_ticks(positions, room))
    if titled:
        figure.update_xaxes(title_text="layer")
    for first, last in _runs(injected):
        figure.add_vrect(x0=first - 0.5, x1=last + 0.5, fillcolor="#999999", opacity=0.16, line_width=0, layer="below")


def _y_range(curves: pd.DataFrame, metric: str) -> list[float]:
    """The whole unit interval for probabilities, else all curves with a small margin; the same on every page."""
    if metric == "p_yes":
        return [-0.03, 1.03]
    low, high = float(curves["mean"].min()), float(curves["mean"].max())
    margin = 0.05 * (high - low) or 1.0
    return [low - margin, high + margin]


def _runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Layers as closed runs: 2, 3, 4, 7 -> (2, 4), (7, 7)."""
    runs: list[tuple[int, int]] = []
    for layer in sorted(set(layers)):
        runs = [*runs[:-1], (runs[-1][0], layer)] if runs and runs[-1][1] == layer - 1 else [*runs, (layer, layer)]
    return runs
