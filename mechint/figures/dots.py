"""Rows of dots with intervals: a row for each condition, a colour and a shape for each series, panels side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.names import check_names
from mechint.figures.panels import DOTTED, Panel, whiskers
from mechint.figures.style import INK, Series, finish, rgba
from mechint.figures.units import with_units

_ROW = 26  # pixels for each series of a row
_MOST_TICKS = 6  # of an axis of probabilities
_TICKS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5)
_SPAN = 0.8  # of a row, that its series take


@checked
def dots(
    summary: pd.DataFrame,
    units: pd.DataFrame,
    panels: Sequence[Panel],
    series: Mapping[str, Series],
    *,
    title: str,
    subtitle: str,
    widths: Sequence[float] | None = None,
    legend_lines: int = 1,
    packed: bool = False,
) -> go.Figure:
    """Return the figure; rows and series come in the order in which `summary` and `series` name them.

    `summary`: panel, row, series, mean, low, high (bounds may be NaN). `units`: panel, row, series, unit, value, drawn
    small; may be empty. A column `label` in `units` is written beside its dot where it is not empty, on the `side`
    (left, right) that a column of that name has. `packed`: a row of a panel has lanes for its own series only.
    """
    for frame in (summary, units):
        check_names(frame["series"], series, "series")
    rows = list(dict.fromkeys(summary["row"]))
    used = [name for name in series if (summary["series"] == name).any()]
    styles = {name: series[name] for name in used}
    lanes = _lanes(used, panels)
    everywhere = _places(rows, lanes)
    figure = make_subplots(
        cols=len(panels),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        column_widths=widths,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )
    for column, panel in enumerate(panels, start=1):
        panel_means, panel_units = panel.rows(summary), panel.rows(units)
        place = _packed_places(rows, lanes, panel_means) if packed else everywhere
        for trace in _traces(panel, panel_means, panel_units, place, styles, column == 1):
            figure.add_trace(trace, row=1, col=column)
        _value_axis(figure, panel, panel_means, panel_units, column)
    _row_axis(figure, rows, len(panels))
    most = _most_lanes(summary, lanes) if packed else max(lanes.values(), default=0) + 1
    height = 60 + _ROW * (most + 0.4) * len(rows)
    done = finish(figure, title, with_units(subtitle, [summary]), height=round(height), bottom=80 + 22 * legend_lines)
    done.update_yaxes(automargin=True)
    return done


@checked
def mark_rows(figure: go.Figure, values: Sequence[float], label: str, *, column: int = 1) -> go.Figure:
    """Draw a vertical line at a value in each row of a panel of `dots`, the first row at the top; returns the figure.

    `label` names the lines in the legend, once for each label.
    """
    labelled = any(trace.name == label for trace in figure.data)
    x: list[float | None] = []
    y: list[float | None] = []
    for at, value in enumerate(values):
        height = len(values) - 1 - at
        x += [value, value, None]
        y += [height - 0.5, height + 0.5, None]
    line = {"color": INK, "width": 2, "dash": "dash"}
    named = {"name": label, "legendgroup": label, "showlegend": not labelled}
    return figure.add_scatter(x=x, y=y, mode="lines", line=line, **named, hoverinfo="skip", row=1, col=column)


def _lanes(used: Sequence[str], panels: Sequence[Panel]) -> dict[str, int]:
    """Return the lane of each series, counted from the top; a series that an arrow starts from has that of its end."""
    ends = dict(pair for panel in panels for pair in panel.pairs)
    lane_series = [name for name in used if ends.get(name) not in used]
    return {name: lane_series.index(name if name in lane_series else ends[name]) for name in used}


def _places(rows: Sequence[str], lanes: Mapping[str, int]) -> dict[tuple[str, str], float]:
    """Return the height of each series of each row; the first row is the highest, and so is the first lane."""
    step = _SPAN / (max(lanes.values(), default=0) + 1)
    heights = {name: _SPAN / 2 - step * (lane + 0.5) for name, lane in lanes.items()}
    return {(row, name): len(rows) - 1 - at + height for at, row in enumerate(rows) for name, height in heights.items()}


def _packed_places(rows: Sequence[str], lanes: Mapping[str, int], panel: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return heights as `_places` does, where a row of a panel is divided among the lanes of its own series there."""
    heights: dict[tuple[str, str], float] = {}
    present = set(zip(panel["row"], panel["series"], strict=True))
    for at, row in enumerate(rows):
        row_series = [name for name in lanes if (row, name) in present]
        dense = {lane: place for place, lane in enumerate(sorted({lanes[name] for name in row_series}))}
        alone = _places([row], {name: dense[lanes[name]] for name in row_series})
        heights |= {key: height + len(rows) - 1 - at for key, height in alone.items()}
    return heights


def _most_lanes(summary: pd.DataFrame, lanes: Mapping[str, int]) -> int:
    lane_counts = summary["series"].map(lanes).groupby([summary["panel"], summary["row"]]).nunique()
    return int(max(lane_counts, default=1))


def _traces(
    panel: Panel,
    summary: pd.DataFrame,
    units: pd.DataFrame,
    place: Mapping[tuple[str, str], float],
    series: Mapping[str, Series],
    first: bool,
) -> list[go.Scatter]:
    traces = [_arrows(panel, pair, summary, place) for pair in panel.pairs]
    extent = pd.concat([summary[name] for name in ("mean", "low", "high")] + [units["value"]])
    ends = float(extent.min()), float(extent.max())
    for name, style in series.items():
        small = units[units["series"] == name]
        large = summary[summary["series"] == name]
        if len(small):
            traces.append(_small(panel, small, place, style, ends))
        # A series that this panel has not still stands in the legend, which the first panel writes.
        traces.append(_large(panel, large, place, style, legend=first))
    return traces


def _small(
    panel: Panel,
    rows: pd.DataFrame,
    place: Mapping[tuple[str, str], float],
    style: Series,
    ends: tuple[float, float],
) -> go.Scatter:
    return go.Scatter(
        x=_on_axis(panel, rows["value"]),
        y=[place[key] for key in zip(rows["row"], rows["series"], strict=True)],
        mode="markers+text" if "label" in rows else "markers",
        text=rows.get("label"),
        textposition=_positions(rows, *ends) if "label" in rows else None,
        cliponaxis=False,
        textfont={"size": 10, "color": "#555555"},
        marker={"color": rgba(style.color, 0.35), "size": 5, "symbol": style.symbol},
        customdata=np.column_stack([rows["unit"], rows["value"]]),
        hovertemplate=f"{style.label}, %{{customdata[0]}}: %{{customdata[1]:.4g}}<extra></extra>",
        legendgroup=style.label,
        showlegend=False,
    )


def _positions(rows: pd.DataFrame, low: float, high: float) -> list[str]:
    """Return where texts stand: beside their value as asked for, else above it, where no interval strikes them through.

    Then they are on the left of values on whose right they would leave the panel, which shows what is from `low` to
    `high`.
    """
    if "side" in rows:
        return [f"middle {side}" for side in rows["side"]]
    far = (high + low) / 2 + 0.2 * (high - low)
    return ["top left" if value > far else "top right" for value in rows["value"]]


def _large(
    panel: Panel, rows: pd.DataFrame, place: Mapping[tuple[str, str], float], style: Series, *, legend: bool
) -> go.Scatter:
    x, low, high = _on_axis(panel, rows["mean"]), _on_axis(panel, rows["low"]), _on_axis(panel, rows["high"])
    return go.Scatter(
        x=x if len(rows) else [None],
        y=[place[key] for key in zip(rows["row"], rows["series"], strict=True)] if len(rows) else [None],
        mode="markers",
        name=style.label,
        legendgroup=style.label,
        showlegend=legend,
        marker={"color": style.color, "symbol": style.symbol, "size": 10, "line": {"width": 1.5, "color": style.color}},
        error_x=whiskers(_bounds(high - x), _bounds(x - low), style.color, 2.0, 4.0),
        customdata=rows[["mean", "low", "high"]].to_numpy(),
        hovertemplate=style.label + " %{customdata[0]:.4g} [%{customdata[1]:.4g}, %{customdata[2]:.4g}]<extra></extra>",
    )


def _bounds(lengths: np.ndarray) -> list[float | str]:
    """Return the lengths of error bars; a text where there is none, since Plotly draws caps for 0 and for None."""
    return ["none" if np.isnan(length) else float(length) for length in lengths]


def _arrows(
    panel: Panel, pair: tuple[str, str], summary: pd.DataFrame, place: Mapping[tuple[str, str], float]
) -> go.Scatter:
    """One line for each row that has both ends."""
    x: list[float | None] = []
    y: list[float | None] = []
    wide = summary.pivot_table(index="row", columns="series", values="mean", sort=False)
    start, stop = pair
    for row, values in wide.iterrows():
        if start in values and stop in values and values[[start, stop]].notna().all():
            x += [*_on_axis(panel, values[[start, stop]]), None]
            y += [place[str(row), start], place[str(row), stop], None]
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": "#999999", "width": 1.5}, hoverinfo="skip", showlegend=False
    )


def _on_axis(panel: Panel, values: pd.Series) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if panel.scale != "log-odds":
        return array
    inside = np.clip(array, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _value_axis(figure: go.Figure, panel: Panel, summary: pd.DataFrame, units: pd.DataFrame, column: int) -> None:
    figure.update_xaxes(title_text=panel.label, row=1, col=column)
    if panel.scale == "log-odds":
        # Not the bounds: an interval down to zero has no end on this axis, and runs to its edge.
        points = [_on_axis(panel, values) for values in (summary["mean"], *([units["value"]] if len(units) else []))]
        axis_values = np.concatenate(points)
        axis_values = axis_values[np.isfinite(axis_values)]
        low, high = (axis_values.min() - 1, axis_values.max() + 1) if len(axis_values) else (-1.0, 1.0)
        values, texts = _probability_ticks(float(low), float(high))
        figure.update_xaxes(tickvals=values, ticktext=texts, range=[low, high], row=1, col=column)
        return
    for reference in panel.references:
        figure.add_vline(reference, row=1, col=column, line=DOTTED)


def _probability_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Return ticks between two log-odds, as percentages; so many that their texts have room, one half among them."""
    chances = [*_TICKS, *(1 - tick for tick in reversed(_TICKS[:-1]))]
    places = {p: float(np.log(p) - np.log1p(-p)) for p in chances}
    inside = [p for p in chances if low <= places[p] <= high]
    kept: list[float] = []
    for p in sorted(inside, key=lambda p: abs(places[p])):
        if all(abs(places[p] - places[other]) >= (high - low) / _MOST_TICKS for other in kept):
            kept.append(p)
    kept.sort()
    return [places[p] for p in kept], [f"{100 * p:.10g}%" for p in kept]


def _row_axis(figure: go.Figure, rows: Sequence[str], n_panels: int) -> None:
    places = [len(rows) - 1 - at for at in range(len(rows))]
    figure.update_yaxes(tickvals=places, ticktext=list(rows), range=[-0.5, len(rows) - 0.5], showgrid=False, ticks="")
    # All at once: Plotly looks at every shape again whenever one is added.
    separators = [_separator(at - 0.5, panel) for at in range(1, len(rows)) for panel in range(n_panels)]
    figure.update_layout(shapes=[*figure.layout.shapes, *separators])


def _separator(y: float, panel: int) -> dict[str, object]:
    """Return the line between two rows of a panel, which are counted from 0."""
    across = {"x0": 0, "x1": 1, "xref": f"x{panel + 1 if panel else ''} domain"}
    line = {"color": "#DDDDDD", "width": 1}
    return {"type": "line", **across, "y0": y, "y1": y, "yref": "y", "line": line, "layer": "below"}
