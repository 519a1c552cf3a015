"""Sampled net detection against the logit shift at the first reply token: a point for each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.trials import captions
from analyses.trials.figures.looks import LOOKS
from mechint import figures as draw
from mechint.figures.style import MINUS, finish
from mechint.figures.words import bounded
from mechint.stats.correlations import clustered_rank_correlation
from mechint.trials.shifts import IN_PROMPT

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mechint.stats.intervals import Interval

_TEXT = (
    "Steering began with the reply, so its first token was drawn from clean logits and says nothing;<br>"
    "to read the shift otherwise a model has to be at hand, and these trials were imported."
)


def logits(cells: pd.DataFrame, table: pd.DataFrame, caption: str) -> go.Figure:
    """Return the figure of one model's cells (`summaries.shifted_cells`)."""
    points = cells.assign(x=cells["logit_shift"], y=cells["net"])
    units = [
        f"{concept}, layers {layers}, strength {strength:g}"
        for concept, layers, strength in zip(cells["concept"], cells["layers"], cells["strength"], strict=True)
    ]
    model = f"{cells['model'].iloc[0]}. " if table["model"].nunique() > 1 else ""
    counts = cells["series"].value_counts()
    subtitle = (
        f"{caption}. {model}A point is a vector at layers and a strength, all prompts together: "
        f"{counts.get('injected', 0)} of concepts, {counts.get('random', 0)} random; {captions.IN}. {_sources(cells)} "
        f"Random vectors: rank correlation {_words(cells, 'random')}. 95% intervals over vectors (jackknife)."
    )
    return draw.scatter(
        points.assign(unit=units)[["series", "unit", "x", "y"]],
        {name: LOOKS[name] for name in ("injected", "random")},
        x_label=f"shift of logit(yes) {MINUS} logit(no) at the first reply token",
        y_label="net detection: claims less those of clean replies",
        title=_title(cells),
        subtitle=subtitle,
        enlarged=False,
    )


def correlation(cells: pd.DataFrame, series: str) -> Interval:
    """Return the rank correlation of net detection and logit shift over the cells of a series, over its vectors."""
    rows = cells[cells["series"] == series]
    shift, net = rows["logit_shift"].to_numpy(np.float64), rows["net"].to_numpy(np.float64)
    return clustered_rank_correlation(shift, net, rows["concept"].to_numpy(dtype=str))


def is_blind(table: pd.DataFrame) -> bool:
    """Whether first tokens were read, but steering had not begun at any of them."""
    steered = table[(table["series"] != "clean") & (table["question"] == "introspection")]
    return bool(steered["first_token_logit_diff"].notna().any() and (steered["steer"] == "reply").all())


def no_logits(caption: str) -> go.Figure:
    """Return a figure that says why there is none."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_annotation(text=_TEXT, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 15})
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    title = "Net detection against logit shift is not drawn: first tokens are clean"
    return finish(figure, title, f"{caption}. {captions.IN.capitalize()}.", height=220)


def _sources(cells: pd.DataFrame) -> str:
    """Return what the shifts are of."""
    texts = []
    for source, rows in cells.groupby("logit_shift_of", sort=False):
        which = "" if cells["logit_shift_of"].nunique() == 1 else f" of {len(rows)} cells"
        is_read = source == IN_PROMPT
        why = "; steering from the reply on leaves its first token clean" if is_read else " under the same steering"
        texts.append(f"Shift{which}: {source}{why}.")
    return " ".join(texts)


def _words(cells: pd.DataFrame, series: str) -> str:
    interval = correlation(cells, series)
    if not np.isfinite(interval.mean):
        return "not to be had"
    return bounded(float(interval.mean), float(interval.low), float(interval.high))


def _title(cells: pd.DataFrame) -> str:
    interval = correlation(cells, "injected")
    if not np.isfinite(interval.mean):
        return "Net detection against logit shift: one of both is the same in all cells"
    goes = {1: "goes with", -1: "goes against"}.get(int(interval.excludes_zero()), "cannot be told to go with")
    return f"Sampled net detection {goes} the logit shift: rank correlation {_words(cells, 'injected')}"
