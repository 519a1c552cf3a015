"""Hits against false alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analyses.trials import captions
from analyses.trials.figures.looks import LOOKS
from mechint import figures as draw
from mechint.trials.detection import detection_table

if TYPE_CHECKING:
    import plotly.graph_objects as go


def hits(table: pd.DataFrame, rates: pd.DataFrame, caption: str) -> go.Figure:
    """Return hits against false alarms of each prompt, of concepts and of random vectors."""
    rows = rates[(rates["prompt"] != "") & (rates["estimate"] == "raw") & (rates["refusals"] == "in")]
    keys = ["model", "prompt", "series"]
    y = rows[rows["measure"] == "hits"].set_index(keys)
    x = rows[rows["measure"] == "false alarms"].set_index(keys)
    alarms = x[["value", "low", "high"]].add_suffix("_x")
    both = y.join(alarms, how="inner").reset_index()
    points = pd.DataFrame(
        {
            "series": both["series"],
            "unit": [captions.group_name(rates, *key) for key in zip(both["model"], both["prompt"], strict=True)],
            "x": both["value_x"],
            "x_low": both["low_x"],
            "x_high": both["high_x"],
            "y": both["value"],
            "y_low": both["low"],
            "y_high": both["high"],
            "low": both["low"],
            "n": both["n_concepts"],
        }
    )
    sensitivity = detection_table(table, table.dropna(subset=["outcome"]), unmatched=True)
    return draw.hits_and_alarms(
        points,
        LOOKS,
        title=captions.d_prime_title(sensitivity, rates),
        subtitle=f"{caption}. As counted, {captions.IN}; 95% intervals over "
        "concepts (hits) and replies (false alarms). Points with the same false alarms stand side by side.",
        x_label="false alarms: clean replies that claim something",
        y_label="hits: steered replies that claim something",
    )
