"""Layers by strengths: claims, right names, coherence and refusals, of random vectors below those of concepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from analyses.trials import captions
from mechint import figures as draw
from mechint.figures import HeatPanel, Scale
from mechint.figures.heatmaps import SEQUENTIAL
from mechint.figures.words import counted, percent
from mechint.stats.intervals import Interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TITLES = {
    "injected": {
        "claims": "Concept: claims",
        "names rightly": "names it",
        "coherence": "can be read",
        "refusal": "refuses",
    },
    "random": {
        "claims": "Random: claims",
        "names rightly": "names it by chance",
        "coherence": "can be read",
        "refusal": "refuses",
    },
}
_HOVER = (
    "%{customdata[1]}, %{customdata[0]}: %{customdata[2]:.1%}; less clean, band of all cells "
    "[%{customdata[3]:+.1%}, %{customdata[4]:+.1%}]<extra></extra>"
)


def grid(cells: pd.DataFrame, table: pd.DataFrame, caption: str) -> go.Figure:
    """Return the figure of one model's cells (`summaries.grids`)."""
    model = str(cells["model"].iloc[0])
    layers = _by_depth(table[(table["model"] == model) & (table["series"] != "clean")])
    strengths = sorted(set(cells["strength"]))
    panels = [
        _panel(rows, title, layers, strengths)
        for series, titles in _TITLES.items()
        for measure, title in titles.items()
        if len(rows := cells[(cells["series"] == series) & (cells["measure"] == measure)])
    ]
    is_relative = bool(table.loc[table["series"] != "clean", "relative"].all())
    several = f"{model}. " if table["model"].nunique() > 1 else ""
    subtitle = (
        f"{caption}. {several}All prompts together; {captions.IN}. In brackets: clean replies. Dots: the difference "
        "to them excludes zero, with simultaneous 95% bands over vectors (corrected for all cells of the panel). By "
        "chance: how often each concept of the design is named."
    )
    figure = draw.heatmap(
        panels,
        Scale("share", 0.0, 1.0, SEQUENTIAL),
        rows=layers,
        columns=[f"{strength:g}" for strength in strengths],
        title=_title(cells),
        subtitle=subtitle,
        row_label="injected layers",
        column_label="|added| / median |residual|" if is_relative else "factor on vectors",
        per_line=4,
        upward=True,
    )
    return figure.update_traces(hovertemplate=_HOVER, selector={"type": "heatmap"})


def _by_depth(steered: pd.DataFrame) -> list[str]:
    """Return the layers of a sweep from the lowest to the highest."""
    depths = steered[steered["question"] == "introspection"].groupby("layers", sort=False)["depth"].mean()
    return list(depths.sort_values(kind="stable").index)


def _panel(rows: pd.DataFrame, title: str, layers: Sequence[str], strengths: Sequence[float]) -> HeatPanel:
    wide = rows.pivot(index="layers", columns="strength", values=["value", "low", "high"]).reindex(layers)
    values = {name: wide[name][list(strengths)].to_numpy(float) for name in ("value", "low", "high")}
    interval = Interval(values["value"], values["low"], values["high"], int(rows["n_concepts"].max()))
    return HeatPanel(f"{title} ({percent(float(rows['clean'].mean()))})", interval)


def _title(cells: pd.DataFrame) -> str:
    """Return in how many cells concepts are named, and replies cannot be read, other than in clean replies."""
    of_concepts = cells[cells["series"] == "injected"]
    naming = of_concepts[of_concepts["measure"] == "names rightly"]
    best = naming.loc[naming["value"].idxmax()]
    place = f"{percent(best['value'])} at layers {best['layers']}, strength {best['strength']:g}"
    if naming["low"].isna().all():
        return f"Concepts are named at best {place}; too few of them to tell cells from clean replies"
    named = int((naming["low"] > 0).sum())
    broken = of_concepts[(of_concepts["measure"] == "coherence") & (of_concepts["high"] < 0)]
    where = f"in {named} of {counted(len(naming), 'cell')}, at best {place}" if named else "in no cell"
    lost = f"; coherence falls in {len(broken)}" if len(broken) else ""
    return f"Concepts are named more often than in clean replies {where}{lost}"
