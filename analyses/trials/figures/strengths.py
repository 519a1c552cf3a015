"""Refusals, coherence and claims by strength, with those of clean replies as bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.trials import captions
from analyses.trials.figures.looks import LOOKS
from mechint import figures as draw
from mechint.figures import Panel

if TYPE_CHECKING:
    import plotly.graph_objects as go

_CURVES = {"refusal": ("clean refusal", "Refuses"), "coherence": ("clean coherence", "Can be read")}
_CURVES |= {"hits": ("false alarms", "Claims something")}


def strengths(table: pd.DataFrame, rates: pd.DataFrame, caption: str) -> go.Figure:
    """Return refusals, coherence and claims by strength; those of clean replies across."""
    rows = rates[rates["strength"].notna() & (rates["refusals"] == "in")]
    models = list(dict.fromkeys(rows["model"]))
    panels: list[Panel] = []
    curves: list[pd.DataFrame] = []
    levels: list[pd.DataFrame] = []
    for model in models:
        for measure, (clean, title) in _CURVES.items():
            key = f"{model} {measure}"
            panels.append(Panel(key, title if len(models) == 1 else f"{title}, {model}", "share", references=()))
            of_model = rows[rows["model"] == model].assign(panel=key, mean=rows["value"], n=rows["n_concepts"])
            curves.append(of_model[of_model["measure"] == measure])
            levels.append(of_model[of_model["measure"] == clean].head(1).assign(series="clean", n=np.nan))
    is_relative = bool(table.loc[table["series"] != "clean", "relative"].all())
    figure = draw.curves(
        pd.concat(curves, ignore_index=True),
        panels,
        LOOKS,
        title=captions.strengths_title(rates),
        subtitle=f"{caption}. All prompts together, {_replies(rows)}; {captions.IN}. Bands: 95% intervals over "
        "vectors, of clean ones over replies.",
        x="strength",
        x_label="|added| / model's median residual norm" if is_relative else "factor on the vectors",
        columns=len(_CURVES),
        levels=pd.concat(levels, ignore_index=True),
    )
    return figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")


def _replies(rows: pd.DataFrame) -> str:
    """Return how many replies under concepts a strength has."""
    counts = rows.loc[(rows["series"] == "injected") & (rows["measure"] == "hits"), "n_trials"].astype(int)
    ends = dict.fromkeys([counts.min(), counts.max()])
    return f"{' to '.join(f'{count:,}' for count in ends)} replies under concepts at a strength"
