"""Concepts in the order in which they are claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analyses.trials import captions
from analyses.trials.summaries import difficulty
from mechint import figures as draw
from mechint.figures import Panel
from mechint.figures.style import BROWN, VERMILION, Series
from mechint.trials.outcomes import CLAIMING

if TYPE_CHECKING:
    import plotly.graph_objects as go

_CLAIMS = {
    "claims": Series("claims something", VERMILION, "solid", "circle"),
    "names rightly": Series("claims and names it rightly", BROWN, "solid", "diamond-open"),
}


def concepts(table: pd.DataFrame, caption: str) -> go.Figure:
    """Return concepts in the order in which they are claimed, with how often each is named."""
    rates = difficulty(table)
    claims = rates[rates["measure"] == "claims"].groupby("concept")["value"].mean().sort_values(ascending=False)
    rows = rates.assign(panel=rates["model"], row=rates["concept"], series=rates["measure"], mean=rates["value"])
    rows = rows.sort_values("row", key=lambda row: row.map(list(claims.index).index), kind="stable")
    models = list(dict.fromkeys(rows["model"]))
    titles = [model if len(models) > 1 else "" for model in models]
    label = "share of replies to all prompts at all strengths"
    figure = draw.dots(
        rows[["panel", "row", "series", "mean", "low", "high"]],
        pd.DataFrame(columns=["panel", "row", "series", "unit", "value"]),
        [Panel(model, title, label, references=()) for model, title in zip(models, titles, strict=True)],
        _CLAIMS,
        title=captions.concepts_title(table),
        subtitle=f"{caption}. As counted, {captions.IN}; exact 95% intervals over the replies of a concept, "
        "which hold for its vector alone.",
    )
    asking = table[(table["question"] == "introspection") & table["outcome"].notna()]
    for column, model in enumerate(models, start=1):
        clean = asking[(asking["model"] == model) & (asking["series"] == "clean")]
        if len(clean):
            level = float(clean["outcome"].isin(CLAIMING).mean())
            draw.mark_rows(figure, [level] * len(claims), "clean replies that claim something", column=column)
    return figure.update_xaxes(tickformat=".0%", range=[-0.02, 1.02])
