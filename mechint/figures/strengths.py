"""Curves over the strength of an injection, panels one below the other, with a second axis for what it comes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.curves import curve
from mechint.figures.names import check_names
from mechint.figures.style import INK, Series, finish
from mechint.figures.units import with_units

_GAP = 70  # pixels between panels


@checked
@dataclass(frozen=True)
class StrengthPanel:
    """One panel: `key` finds its curves, `label` is its axis, `height` is in pixels, a line is drawn at `reference`."""

    key: str
    title: str
    label: str
    height: int
    reference: float
    log: bool = False


@checked
def strength_curves(
    curves: pd.DataFrame,
    panels: Sequence[StrengthPanel],
    series: Mapping[str, Series],
    *,
    title: str,
    subtitle: str,
    label: str,
    dose: float | None = None,
    lost_from: float | None = None,
    second: tuple[str, Sequence[str]] | None = None,
    legend_lines: int = 1,
) -> go.Figure:
    """Return the figure of `panel, series, strength, mean, low, high`, strengths (above zero) on a logarithmic axis.

    A line is drawn at `dose`; what lies from `lost_from` on is shaded. `second` names an axis above the first panel and
    what it says at each strength.
    """
    check_names(curves["series"], series, "series")
    heights = [panel.height for panel in panels]
    figure = make_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=_GAP / (sum(heights) + _GAP),
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )  # fmt: skip
    first = {name: next((p.key for p in panels if len(_of(curves, p.key, name))), "") for name in series}
    for row, panel in enumerate(panels, start=1):
        for name, style in series.items():
            for trace in curve(_of(curves, panel.key, name), "strength", style, legend=first[name] == panel.key):
                figure.add_trace(trace, row=row, col=1)
        figure.add_hline(panel.reference, line={"color": INK, "width": 1, "dash": "dot"}, row=row, col=1)
        figure.update_yaxes(title_text=panel.label, type="log" if panel.log else "linear", row=row, col=1)
        if panel.log:
            figure.update_yaxes(**_log_ticks(curves, panel), row=row, col=1)
    strengths = sorted(set(curves["strength"]))
    _strength_axes(figure, strengths, label)
    _marks(figure, strengths, dose, lost_from)
    done = finish(
        figure,
        title,
        with_units(subtitle, [curves]),
        height=sum(heights) + _GAP * len(heights),
        bottom=40 + 24 * legend_lines,
    )
    return done if second is None else _second_axis(done, strengths, *second)


def _of(curves: pd.DataFrame, panel: str, series: str) -> pd.DataFrame:
    return curves[(curves["panel"] == panel) & (curves["series"] == series)].sort_values("strength")


def _log_ticks(curves: pd.DataFrame, panel: StrengthPanel) -> dict[str, object]:
    """Return a range that holds the curves and the reference, and ticks at 1, 2, 5 times powers of ten."""
    values = [*curves.loc[curves["panel"] == panel.key, ["mean", "low", "high"]].to_numpy().ravel(), panel.reference]
    finite = [value for value in values if np.isfinite(value)]
    low, high = min(finite), max(finite)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    digits = (1, 2, 5) if len(powers) < 5 else (1,)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    ends = [float(np.log10(low / 1.2)), float(np.log10(high * 1.2))]
    return {"range": ends, "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _strength_axes(figure: go.Figure, strengths: Sequence[float], label: str) -> None:
    ends = np.log10([strengths[0] / 1.15, strengths[-1] * 1.15])
    ticks = {"tickvals": list(strengths), "ticktext": [f"{strength:g}" for strength in strengths]}
    figure.update_xaxes(type="log", range=list(ends), showticklabels=True, minor={"showgrid": False}, **ticks)
    figure.update_xaxes(title_text=label, row=len(figure._grid_ref), col=1)


def _marks(figure: go.Figure, strengths: Sequence[float], dose: float | None, lost_from: float | None) -> None:
    if dose is not None and strengths[0] <= dose <= strengths[-1]:
        figure.add_vline(dose, line={"color": INK, "width": 1.5, "dash": "dash"}, layer="below")
    if lost_from is not None:
        far = {"x0": lost_from, "x1": strengths[-1] * 2, "line_width": 0, "layer": "below"}
        figure.add_vrect(fillcolor="#999999", opacity=0.18, **far)


def _second_axis(figure: go.Figure, strengths: Sequence[float], label: str, texts: Sequence[str]) -> go.Figure:
    """Say at an axis above the first panel what each strength comes to."""
    axis = dict(figure.layout.xaxis.to_plotly_json())
    figure.update_layout(
        xaxis99={
            "type": "log", "range": axis["range"], "overlaying": "x", "side": "top", "anchor": "y", "showgrid": False,
            "tickvals": list(strengths), "ticktext": list(texts), "title": {"text": label, "standoff": 4},
        }
    )  # fmt: skip
    # An axis is drawn only where something is plotted against it.
    figure.add_trace(go.Scatter(x=[strengths[0]], y=[None], xaxis="x99", yaxis="y", showlegend=False, hoverinfo="skip"))
    figure.layout.annotations[0].update(yshift=52)
    return figure.update_layout(margin={"t": figure.layout.margin.t + 52}, height=figure.layout.height + 52)
