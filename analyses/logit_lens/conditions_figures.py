"""The figure of a logit lens under every condition: a panel for each document, the swap and the contrast vector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from analyses.kit.finetuned import DESCRIPTIONS
from analyses.logit_lens.conditions import CONTROL, DOCUMENTS, INFO, MODELS, cells
from mechint import figures as draw
from mechint import stats
from mechint.figures import Panel
from mechint.figures.style import METRICS, SERIES, layer_position
from mechint.figures.words import plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.logit_lens import Config, Facts

_LOOKS = {name: SERIES[name] for name in ("clean", "injected", "swapped", "contrast", "random", CONTROL)}
_COLUMNS = 4
_SHORT = {
    "info document, inaccurate location": "inaccurate location",
    "swapped": "finetuned model's cache",
    "contrast": "contrast vector",
}


def conditions(table: pd.DataFrame, config: Config, facts: Facts) -> go.Figure:
    """Return the figure of the rows of `--conditions`, among others of the logit lens."""
    values = pd.concat(_panels(table, config.wording.format), ignore_index=True)
    curves = stats.group_means(
        values, ["panel", "series", "layer"], config.metric, unit="unit", within=stats.RANGES.get(config.metric)
    )
    label = METRICS[config.metric]
    panels = [Panel(name, _title(name), label) for name in dict.fromkeys(values["panel"])]
    figure = draw.curves(
        curves,
        panels,
        _LOOKS,
        columns=_COLUMNS,
        legend_lines=2,
        injected_layers=facts.dose.layers,
        title=_finding(curves, label),
        subtitle=_caption(values, facts),
    )
    return figure.update_yaxes(range=[-0.03, 1.03]) if config.metric == "p_yes" else figure.update_yaxes(matches="y")


def _panels(table: pd.DataFrame, form: str) -> Iterator[pd.DataFrame]:
    """Yield the rows of each panel with their series, and the unit that its interval is over."""
    rows = table[table["sweep"].isin([DOCUMENTS, MODELS])]
    for panel, (description, info) in cells().items():
        panel_rows = rows[(rows["description"] == description) & (rows["info"] == info) & (rows["format"] == form)]
        panel_rows = panel_rows[panel_rows["sweep"] == DOCUMENTS]
        yield from _parts(panel_rows, panel, "injected", controls_over="unit")
    if (rows["sweep"] == MODELS).any():
        worded = rows[rows["description"].isin(DESCRIPTIONS) & (rows["info"] == INFO)]
        filled = worded[(worded["sweep"] == MODELS) | (worded["series"] == "clean")]
        yield from _parts(filled[filled["series"] != "random"], "swapped", "swapped", controls_over="question")
        yield from _parts(filled, "contrast", "contrast", controls_over="question")


def _parts(rows: pd.DataFrame, panel: str, series: str, *, controls_over: str) -> Iterator[pd.DataFrame]:
    """Yield clean, intervened, random and control rows of one panel; an interval of one unit is left out."""
    introspection = rows[rows["kind"] == "introspection"]
    control = rows[rows["group"] == CONTROL]
    over = {"clean": "conversation", "injected": "unit", "random": "unit"}
    for name in ("clean", series, "random"):
        series_rows = introspection[introspection["series"] == name]
        yield series_rows.assign(panel=panel, unit=series_rows[over.get(name, "conversation")])
    series_rows = control[control["series"] == series]
    yield series_rows.assign(panel=panel, series=CONTROL, unit=series_rows[controls_over])


def _title(panel: str) -> str:
    return _SHORT.get(panel, panel).capitalize()


def _finding(curves: pd.DataFrame, label: str) -> str:
    """Say in which panels the answer moves most and least at the output, the one layer that nobody chose.

    It moves for certain where the clean answer is outside of the interval of the other.
    """
    last = curves[curves["layer"] == max(curves["layer"], key=layer_position)].set_index(["panel", "series"])
    ends = {
        panel: (last.loc[(panel, "clean"), "mean"], last.loc[(panel, panel if panel in _LOOKS else "injected")])
        for panel in dict.fromkeys(last.index.get_level_values("panel"))
    }
    order = sorted(ends, key=lambda panel: ends[panel][1]["mean"] - ends[panel][0])
    moves = [
        f"{_SHORT.get(panel, panel)} ({plain(ends[panel][0])} → {plain(ends[panel][1]['mean'])})" for panel in order
    ]
    if all(moved["low"] <= clean <= moved["high"] for clean, moved in ends.values()):
        return f"At the output, {label} moves under no condition for certain; furthest with: {moves[-1]} and {moves[0]}"
    return f"At the output, {label} moves most with: {moves[-1]}; least with: {moves[0]}"


def _caption(values: pd.DataFrame, facts: Facts) -> str:
    counts = values.groupby("series")["unit"].nunique()
    filled = over = ""
    if facts.finetuned is not None:
        filled = f"; cache filled by {facts.finetuned}"
        over = "; with the finetuned model over wordings and control questions"
    return (
        f"{facts.model.short_name}{filled}; {facts.dose.caption()}. {counts['injected']} concepts, "
        f"{counts.get('random', 0)} random vectors. Controls are asked under the same intervention. Inaccurate "
        "location: with the info document, asked about turns without an injection. Bands: 95% intervals over "
        f"vectors{over}. Shaded: injected layers."
    )
