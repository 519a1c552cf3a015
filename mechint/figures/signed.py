"""Curves over a strength that may be negative, panels side by side, with levels that do not depend on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.curves import curve
from mechint.figures.names import check_names
from mechint.figures.style import INK, MINUS, Series, finish
from mechint.figures.units import with_units

_HEIGHT = 360


@checked
@dataclass(frozen=True)
class SignedPanel:
    """One panel: `key` finds its curves and levels."""

    key: str
    title: str


@checked
def signed_curves(
    curves: pd.DataFrame,
    levels: pd.DataFrame,
    panels: Sequence[SignedPanel],
    series: Mapping[str, Series],
    *,
    title: str,
    subtitle: str,
    x_label: str,
    y_label: str,
    legend_lines: int = 1,
) -> go.Figure:
    """Return the figure of `panel, series, strength, mean, low, high`; all panels share both axes.

    `levels` (`panel, series, mean, low, high`) are drawn across the panel, with a band where bounds are no NaN.
    """
    for frame in (curves, levels):
        check_names(frame["series"], series, "series")
    figure = make_subplots(
        rows=1, cols=len(panels), shared_yaxes="all", horizontal_spacing=0.04,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )  # fmt: skip
    every = sorted(set(curves["strength"]))
    ends = [every[0], every[-1]]
    for column, panel in enumerate(panels, start=1):
        across = levels[levels["panel"] == panel.key]
        wide = pd.concat([across.assign(strength=end) for end in ends]) if len(across) else across
        for name, style in series.items():
            for frame, marked in ((wide, False), (curves[curves["panel"] == panel.key], True)):
                for trace in curve(
                    frame[frame["series"] == name], "strength", style, marked=marked, legend=column == 1
                ):
                    figure.add_trace(trace, row=1, col=column)
        for line in (figure.add_hline, figure.add_vline):
            line(0, line={"color": INK, "width": 1, "dash": "dot"}, row=1, col=column)
        figure.update_xaxes(title_text=x_label, tickvals=every, ticktext=[_signed(at) for at in every], col=column)
    figure.update_yaxes(title_text=y_label, col=1)
    return finish(figure, title, with_units(subtitle, [curves]), height=_HEIGHT, bottom=60 + 24 * legend_lines)


def _signed(value: float) -> str:
    return f"{value:+g}".replace("-", MINUS) if value else "0"
