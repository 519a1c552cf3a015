"""The tables of a sweep of trials as figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from analyses.trials import captions
from analyses.trials.figures.classes import classes
from analyses.trials.figures.concepts import concepts
from analyses.trials.figures.grid import grid
from analyses.trials.figures.hits import hits
from analyses.trials.figures.logits import is_blind, logits, no_logits
from analyses.trials.figures.net import net
from analyses.trials.figures.strengths import strengths
from analyses.trials.figures.wording import wording
from analyses.trials.summaries import difficulty

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.kit.analysis import Drawn
    from analyses.trials.options import Facts

__all__ = ["classes", "concepts", "figures", "grid", "hits", "logits", "net", "strengths", "wording"]


def figures(tables: Mapping[str, pd.DataFrame], facts: Facts) -> Drawn:
    """Return the figures by file name, and the titles that their numbers carry."""
    table, rates = tables["table"], tables["rates"]
    caption = captions.caption(table, facts)
    drawn = {"trials_classes": classes(table, caption)}
    if (rates["measure"] == "net").any():
        drawn["trials_net"] = net(table, rates, caption)
        drawn["trials_hits"] = hits(table, rates, caption)
    if rates["strength"].notna().any():
        drawn["trials_strengths"] = strengths(table, rates, caption)
    if len(difficulty(table)):
        drawn["trials_concepts"] = concepts(table, caption)
    drawn |= _by_model("trials_grid", tables["grid"], lambda cells: grid(cells, table, caption))
    if len(tables["wording"]):
        drawn["trials_wording"] = wording(tables["wording"], table, caption)
    drawn |= _by_model("trials_logits", tables["shifts"], lambda cells: logits(cells, table, caption))
    if not len(tables["shifts"]) and is_blind(table):
        drawn["trials_logits"] = no_logits(caption)
    titles = {name: figure.layout.title.text for name, figure in drawn.items()}
    return drawn, {"titles": {name: title.replace("<b>", "").replace("</b>", "") for name, title in titles.items()}}


def _by_model(name: str, rows: pd.DataFrame, draw: Callable[[pd.DataFrame], go.Figure]) -> dict[str, go.Figure]:
    """Return a figure of each model of a table; the files of those after the first have numbers."""
    models = list(dict.fromkeys(rows["model"]))
    names = [name, *(f"{name}_{number}" for number in range(2, len(models) + 1))]
    return {file: draw(rows[rows["model"] == model]) for file, model in zip(names, models, strict=False)}
