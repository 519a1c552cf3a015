"""Curves over layers, strengths or counts, with the bands of their intervals, in lines of panels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechint.base.signatures import checked
from mechint.figures.names import check_names
from mechint.figures.panels import DOTTED, Panel, empty_panels, lowest, places, shade_layers
from mechint.figures.style import MINUS, Series, finish, layer_position, layer_ticks, rgba
from mechint.figures.units import with_units

_ROOM = {1: 34, 2: 17, 3: 10}  # layers that have room for their number, by panels in a line
_MARKERS = 17  # of one curve
_NO_ROWS = pd.DataFrame(columns=["panel", "series", "unit"])


@checked
def curves(
    table: pd.DataFrame,
    panels: Sequence[Panel],
    series: Mapping[str, Series],
    *,
    title: str,
    subtitle: str,
    x: str = "layer",
    x_label: str = "readout layer",
    log_x: bool = False,
    columns: int = 2,
    levels: pd.DataFrame | None = None,
    units: pd.DataFrame | None = None,
    injected_layers: Iterable[int] = (),
    legend_lines: int = 1,
) -> go.Figure:
    """Return the figure of `panel, series, mean, low, high` over the column `x`; where bounds are NaN there is no band.

    Panels of one line, `columns` of them, share their y axis. A column `layer` is as `logit_lens` has it; any other
    holds numbers, each of which has its tick, on a logarithmic axis with `log_x`.

    `levels` (`panel, series, mean, low, high`), which do not depend on `x`, are drawn across their panel, `units`
    (`panel, series, unit, value` over `x`) faintly behind the curves. Injected layers are shaded. Raises
    UnknownNameError for a series that `series` does not have.
    """
    columns = min(columns, len(panels))
    where = places(panels, columns)
    figure, height = empty_panels(panels, where, columns)
    ends = [min(table[x], key=_position), max(table[x], key=_position)]
    across = _NO_ROWS if levels is None else pd.concat([levels.assign(**{x: end}) for end in ends])
    behind = _NO_ROWS if units is None else units
    for frame in (table, across, behind):
        check_names(frame["series"], series, "series")
    for panel, place in zip(panels, where, strict=True):
        for trace in _traces(panel.rows(table), panel.rows(across), panel.rows(behind), (x, x_label), series):
            figure.add_trace(trace, **place)
        for reference in panel.references:
            figure.add_hline(reference, line=DOTTED, **place)
        if panel.scale == "log":
            figure.update_yaxes(type="log", **_log_ticks(panel.rows(table), panel.references), **place)
    for place in lowest(panels, where):
        figure.update_xaxes(title_text=x_label, **place)
    _name_once(figure)
    _x_axes(figure, table[x], log_x, _ROOM.get(columns, 7))
    shade_layers(figure, injected_layers)
    return finish(figure, title, with_units(subtitle, [table]), height=height, bottom=60 + 24 * legend_lines)


def curve(
    rows: pd.DataFrame, x: str, style: Series, *, marked: bool = True, x_label: str = "layer"
) -> list[go.Scatter]:
    """Return band and line of `mean, low, high` over column `x`; no band where bounds are NaN, nothing without rows.

    `x_label` names the column to whoever points at the line.
    """
    if rows.empty:
        return []
    rows = rows.sort_values(x, key=lambda column: column.map(_position), kind="stable")
    bounded = rows[rows["low"].notna()]
    bounds = "" if bounded.empty else " [%{customdata[1]:.3f}, %{customdata[2]:.3f}]"
    line = go.Scatter(
        x=rows[x].map(_position),
        y=rows["mean"],
        mode="lines+markers" if marked and style.symbol else "lines",
        name=style.label,
        legendgroup=style.label,
        line={"color": style.color, "dash": style.dash, "width": style.width},
        marker={
            "symbol": style.symbol or None,
            "size": 7 if x == "layer" else 8,
            "color": style.color,
            "maxdisplayed": _MARKERS,
        },
        customdata=np.column_stack([rows[x].astype(str), rows["low"], rows["high"]]),
        hovertemplate=f"{style.label}, {x_label} %{{customdata[0]}}: %{{y:.3f}}{bounds}<extra></extra>",
    )
    return [line] if bounded.empty else [_band(bounded, x, style), line]


def _band(rows: pd.DataFrame, x: str, style: Series) -> go.Scatter:
    at = rows[x].map(_position)
    return go.Scatter(
        x=[*at, *at[::-1]],
        y=[*rows["high"], *rows["low"][::-1]],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=rgba(style.color, 0.16),
        legendgroup=style.label,
        showlegend=False,
        hoverinfo="skip",
    )


def _traces(
    rows: pd.DataFrame,
    across: pd.DataFrame,
    behind: pd.DataFrame,
    axis: tuple[str, str],
    series: Mapping[str, Series],
) -> list[go.Scatter]:
    """Return the traces of a panel; `axis` is the column of x and its label."""
    x, x_label = axis
    traces = [_faint(unit, axis, series[name]) for (name, _), unit in behind.groupby(["series", "unit"], sort=False)]
    for name, style in series.items():
        traces += curve(across[across["series"] == name], x, style, marked=False, x_label=x_label)
        traces += curve(rows[rows["series"] == name], x, style, x_label=x_label)
    return traces


def _faint(rows: pd.DataFrame, axis: tuple[str, str], style: Series) -> go.Scatter:
    x, x_label = axis
    return go.Scatter(
        x=rows[x].map(_position),
        y=rows["value"],
        mode="lines",
        line={"color": rgba(style.color, 0.3), "width": 1},
        legendgroup=style.label,
        showlegend=False,
        customdata=rows[x],
        hovertemplate=f"{rows['unit'].iloc[0]}, {x_label} %{{customdata}}: %{{y:.3f}}<extra></extra>",
    )


def _name_once(figure: go.Figure) -> None:
    """Let each name stand in the legend once, where it comes first."""
    names: set[str] = set()
    for trace in figure.data:
        if trace.name:
            trace.showlegend = trace.name not in names
            names.add(trace.name)


def _position(value: object) -> float:
    """Return where a layer or a number stands on its axis."""
    return -1.0 if str(value) == "embed" else float(str(value))


def _x_axes(figure: go.Figure, values: pd.Series, log: bool, room: int) -> None:
    if values.name == "layer":
        positions = sorted(set(values.map(layer_position)))
        figure.update_xaxes(range=[positions[0] - 0.4, positions[-1] + 0.4], **layer_ticks(positions, room))
        return
    numbers = sorted(set(map(float, values)))
    signed = numbers[0] < 0
    kept = _kept(numbers, -(-room // 2))
    ticks = {"tickvals": kept, "ticktext": [_tick(number, signed) for number in kept]}
    if log:
        ends = np.log10([numbers[0] / 1.15, numbers[-1] * 1.15])
        figure.update_xaxes(type="log", range=list(ends), minor={"showgrid": False}, **ticks)
    else:
        figure.update_xaxes(**ticks)
    if signed:
        figure.add_vline(0, line=DOTTED)


def _kept(numbers: Sequence[float], room: int) -> list[float]:
    """Return numbers that have room: all, or every so many of them, the last among them."""
    step = -(-len(numbers) // room)
    return sorted(numbers[::-1][::step])


def _tick(number: float, signed: bool) -> str:
    return f"{number:+g}".replace("-", MINUS) if signed and number else f"{number:g}"


def _log_ticks(rows: pd.DataFrame, references: Sequence[float]) -> dict[str, object]:
    """Return a range that holds curves and references, and ticks at 1, 2, 5 times powers of ten."""
    values = np.array([*rows[["mean", "low", "high"]].to_numpy().ravel(), *references])
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1, 2, 5) if len(powers) < 5 else (1,)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    ends = [float(np.log10(low / 1.2)), float(np.log10(high * 1.2))]
    return {"range": ends, "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
