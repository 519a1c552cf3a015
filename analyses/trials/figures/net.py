"""Net detection by prompt, as counted and corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analyses.trials import captions
from analyses.trials.figures.looks import SERIES_WORDS
from analyses.trials.rates import STEERED
from mechint import figures as draw
from mechint.figures import Panel
from mechint.figures.style import BLUE, INK, VERMILION, Series
from mechint.trials.outcomes import CLAIMING

if TYPE_CHECKING:
    import plotly.graph_objects as go

_REFUSALS = {
    "in": Series("refusals as denials", VERMILION, "solid", "circle"),
    "out": Series("refusals left out of both arms", BLUE, "solid", "square"),
    "lowest": Series("bound: refusals hide the worst answer", INK, "dot", "triangle-left-open"),
    "highest": Series("bound: refusals hide the best answer", INK, "dot", "triangle-right-open"),
}


def net(table: pd.DataFrame, rates: pd.DataFrame, caption: str) -> go.Figure:
    """Return net detection by prompt: raw beside corrected, with refusals in, out and their bounds."""
    rows = rates[(rates["measure"] == "net") & (rates["prompt"] != "")]
    bounds = rows["refusals"].isin(["lowest", "highest"])
    summary = rows.assign(
        panel=rows["estimate"],
        row=[_row(rates, *key) for key in zip(rows["model"], rows["prompt"], rows["series"], strict=True)],
        mean=rows["value"],
        low=rows["low"].mask(bounds),
        high=rows["high"].mask(bounds),
        n=rows["n_concepts"],
    )
    summary = summary.assign(series=summary["refusals"]).sort_values(
        "row", key=lambda row: row.map(list(dict.fromkeys(_rows(rates))).index), kind="stable"
    )
    arrows = ("lowest", "highest")
    label = "share of claims above that of clean replies"
    panels = [Panel("raw", "As the judge has counted", label, arrows=arrows)]
    if (rows["estimate"] == "corrected").any():
        panels.append(Panel("corrected", "Corrected for the judge's errors", label, arrows=arrows))
    subtitle = (
        f"{caption}. Large: means over concepts or random vectors with 95% intervals; small: single ones, refusals as "
        "denials. Net detection: claims less those of clean replies. The bounds have no interval of their own."
    )
    figure = draw.dots(
        summary[["panel", "row", "series", "mean", "low", "high", "n"]],
        _single_nets(table, rates),
        panels,
        _REFUSALS,
        title=captions.net_title(rates),
        subtitle=subtitle,
        legend_lines=2,
    )
    return figure.update_xaxes(matches="x")  # raw and corrected are to be compared


def _single_nets(table: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Return by prompt and vector the share of claims less that of clean replies."""
    asking = table[(table["question"] == "introspection") & table["outcome"].notna()]
    asking = asking.assign(claims=asking["outcome"].isin(CLAIMING).astype(float))
    keys = ["model", "prompt"]
    clean = asking[asking["series"] == "clean"].groupby(keys)["claims"].mean().rename("alarms").reset_index()
    steered = asking[asking["series"].isin(STEERED)].groupby([*keys, "series", "concept"], sort=False)["claims"].mean()
    both = steered.reset_index().merge(clean, on=keys)
    names = [_row(rates, *key) for key in zip(both["model"], both["prompt"], both["series"], strict=True)]
    points = {"panel": "raw", "row": names, "series": "in", "unit": both["concept"]}
    return pd.DataFrame({**points, "value": both["claims"] - both["alarms"]})


def _rows(rates: pd.DataFrame) -> list[str]:
    """Return the rows of net detection, prompt by prompt."""
    rows = rates[(rates["measure"] == "net") & (rates["prompt"] != "")]
    keys = dict.fromkeys(zip(rows["model"], rows["prompt"], strict=True))
    return [_row(rates, *key, series) for key in keys for series in STEERED]


def _row(rates: pd.DataFrame, model: str, prompt: str, series: str) -> str:
    return f"{captions.group_name(rates, model, prompt)}: {SERIES_WORDS[series]}"
