"""How replies are worded: hedges and claims in 100 words, by what a reply counts as and what was injected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.trials.figures.looks import CLASS_WORDS, LOOKS
from analyses.trials.summaries import FEWEST
from analyses.trials.summaries import wording as wording_of
from mechint import figures as draw
from mechint.figures import Panel
from mechint.trials.outcomes import CLAIMING, CLASSES
from mechint.trials.records import COLUMNS

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PANELS = {
    "hedges": ("Hedges", "phrases in 100 words"),
    "claims": ("Claims of noticing", "phrases in 100 words"),
    "words": ("Length", "words of a reply"),
}


def wording(rates: pd.DataFrame, table: pd.DataFrame, caption: str) -> go.Figure:
    """Return the figure of phrases by class and arm (`summaries.wording`)."""
    several = rates["model"].nunique() > 1
    rows = rates[rates["measure"].isin(_PANELS)]
    models = list(dict.fromkeys(rows["model"]))
    rank = [(models.index(m), -CLASSES.index(o)) for m, o in zip(rows["model"], rows["outcome"], strict=True)]
    names = [CLASS_WORDS[name] for name in rows["outcome"]]
    names = [f"{model}: {name}" for model, name in zip(rows["model"], names, strict=True)] if several else names
    summary = rows.assign(panel=rows["measure"], row=names, mean=rows["value"], rank=rank)
    summary = summary.sort_values("rank", kind="stable")
    subtitle = (
        f"{caption}. Replies to the prompts of the design, all strengths together; refusals are a class of their own. "
        f"Phrases of lists that are to be edited, not of the judge. 95% intervals over concepts or vectors, of clean "
        f"replies over replies; of fewer than {FEWEST} replies nothing is drawn."
    )
    figure = draw.dots(
        summary[["panel", "row", "series", "mean", "low", "high", "n"]],
        pd.DataFrame(columns=["panel", "row", "series", "unit", "value"]),
        [Panel(key, title, label, references=()) for key, (title, label) in _PANELS.items()],
        LOOKS,
        title=_title(table),
        subtitle=subtitle,
    )
    for column, key in enumerate(_PANELS, start=1):
        most = np.nanmax(summary.loc[summary["panel"] == key, ["mean", "high"]].to_numpy(float), initial=1.0)
        figure.update_xaxes(range=[-0.04 * most, 1.06 * most], row=1, col=column)
    return figure


def _title(table: pd.DataFrame) -> str:
    """Return how many hedges and claims of noticing there are where replies under concepts claim, and deny."""
    injected = table[(table["series"] == "injected") & table["outcome"].notna()]
    kinds = injected["outcome"].map({**dict.fromkeys(CLAIMING, "claim"), "denies": "deny", "leaks": "deny"})
    outcomes = injected.assign(kind=kinds).dropna(subset=["kind"])[["id", "judge", "pass_no", "outcome", "kind"]]
    trials = injected.merge(outcomes[["id", "kind"]], on="id")[[*COLUMNS, "kind"]]
    rates = wording_of(trials, outcomes.drop(columns="kind"), ("kind",))
    values = rates.groupby(["kind", "measure"])["value"].mean()
    texts = [
        f"{values[kind, 'hedges']:.1f} hedges and {values[kind, 'claims']:.1f} claims of noticing where they {words}"
        for kind, words in (("claim", "claim something"), ("deny", "deny"))
        if (kind, "hedges") in values.index
    ]
    if not texts:
        return "How are replies worded?"
    if not values.loc[:, ["hedges", "claims"]].any():
        return "No reply under a concept has a hedge or a claim of noticing that is on the lists"
    return f"100 words of replies under concepts have {', '.join(texts)}"
