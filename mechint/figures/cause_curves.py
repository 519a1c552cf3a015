"""Necessity and sufficiency: how much of the shift goes, or comes, with the first k features, beside random sets."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.figures.curves import curve
from mechint.figures.style import BLUE, GREEN, INK, VERMILION, Series, finish
from mechint.figures.units import with_units

_HEIGHT = 380
_ROOM = 9  # ticks that an axis has room for
SETS = {
    "top": Series("features with the largest attributions", VERMILION, "solid", "diamond", 3.0),
    "mass-matched": Series("random sets of equal size and activation mass", BLUE, "dash", "square"),
    "random": Series("random sets of equal size", GREEN, "dot", "triangle-up-open"),
}
_PANELS = {
    "necessity": ("Necessity: features set back to clean", "that goes"),
    "sufficiency": ("Sufficiency: features set to injected", "that comes"),
}


@checked
def cause_curves(curves: pd.DataFrame, *, title: str, subtitle: str) -> go.Figure:
    """Return the figure of a table with `test` (necessity, sufficiency), `kind` (of `SETS`), `k`, and their effect.

    Drawn are `fraction, fraction_low, fraction_high`, shares of the shift of logit_diff with zero and one marked; where
    no row has one, since nothing shifts, `effect` and its bounds, in logits. Bounds may be NaN. Raises UsageError where
    there is nothing to draw. A k below one, which changes nothing, is left out of the logarithmic axis.
    """
    rows = curves[curves["k"] >= 1] if len(curves) else curves
    panels = [name for name in _PANELS if len(rows) and (rows["test"] == name).any()]
    if not panels:
        advice = "see whether any feature is active"
        raise UsageError("no curves", "rows of necessity or sufficiency with k from 1", advice)
    value = "effect" if rows["fraction"].isna().all() else "fraction"
    lines = _as_lines(rows, value)
    figure = make_subplots(
        rows=1, cols=len(panels), shared_yaxes="all", horizontal_spacing=0.09,
        subplot_titles=[f"<b>{_PANELS[name][0]}</b>" for name in panels],
    )  # fmt: skip
    for column, panel in enumerate(panels, start=1):
        _panel(figure, lines, panel, column, value, legend=column == 1)
    kept = _ticks(sorted(set(rows["k"])))
    ticks = {"tickvals": kept, "ticktext": [f"{k:g}" for k in kept], "minor": {"showgrid": False}}
    figure.update_xaxes(type="log", title_text="number of features", **ticks)
    over = rows.rename(columns={f"{value}_low": "low"})
    return finish(figure, title, with_units(subtitle, [over]), height=_HEIGHT, bottom=90)


def _as_lines(curves: pd.DataFrame, value: str) -> pd.DataFrame:
    names = {value: "mean", f"{value}_low": "low", f"{value}_high": "high"}
    return curves[["test", "kind", "k", *names]].rename(columns=names)


def _panel(figure: go.Figure, lines: pd.DataFrame, panel: str, column: int, value: str, *, legend: bool) -> None:
    place = {"row": 1, "col": column}
    for name, style in SETS.items():
        for trace in curve(lines[(lines["test"] == panel) & (lines["kind"] == name)], "k", style, legend=legend):
            figure.add_trace(trace, **place)
    for level in (0, 1) if value == "fraction" else (0,):
        figure.add_hline(level, line={"color": INK, "width": 1, "dash": "dot"}, **place)
    unit, form = ("share", ".0%") if value == "fraction" else ("logits", None)
    text = f"{unit} of the shift {_PANELS[panel][1]}"
    figure.update_yaxes(title_text=text, tickformat=form, showticklabels=True, **place)


def _ticks(counts: Sequence[int]) -> list[int]:
    """Return the counts, or every so many of them, the last among them."""
    step = -(-len(counts) // _ROOM)
    return sorted(counts[::-1][::step])
