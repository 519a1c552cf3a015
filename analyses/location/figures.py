"""The location table as figures: accuracy against chance and preference, the same by layer, and sentences."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.location import PLACES
from analyses.location.measures import MEASURES, Measures
from mechint import figures as draw
from mechint.figures import HeatPanel, Panel, Scale
from mechint.figures.names import only
from mechint.figures.style import GREEN, SERIES, Series
from mechint.stats import intervals
from mechint.stats.bands import BANDS, Marks

if TYPE_CHECKING:
    import plotly.graph_objects as go

LABELS = {"half": "half of the sentences", "sentence": "sentence", "layer": "early or late layers"}
_SHORT = {"half": "half", "sentence": "sentence", "layer": "layers"}
_POINTS = 100.0  # percentage points
_WIDE = 10.0  # points from which on cells have no room for decimals
_LOOKS = {
    "location": dataclasses.replace(SERIES["injected"], label="concept injected, asked for the place"),
    "preference": Series("concept injected, asked for its preference", GREEN, "dashdot", "triangle-up"),
    "random": dataclasses.replace(SERIES["random"], label="random vector of equal norm, asked for the place"),
}
_PANELS = {
    "right": ("Right answers", "share of answers that name the place"),
    "apart": ("Pairs of places told apart", "share of pairs whose logits differ the right way"),
}


def figures(measures: Measures, subject: str, marks: Marks = BANDS) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    kinds = measures.table.groupby("series")["unit"].nunique()
    caption = f"{subject}. {kinds['injected']} concepts, {kinds.get('random', 0)} random vectors"
    return {
        "location_accuracy": accuracy(measures, caption),
        "location_layers": by_layer(measures, caption),
        "location_sentences": sentences(measures, caption, marks),
    }


def accuracy(measures: Measures, caption: str) -> go.Figure:
    """Return both measures at the output, by place, beside those of the preference question."""
    subtitle = (
        f"{caption}. Large: mean over vectors with its 95% interval; small: single vectors. Every "
        "place is injected equally often, so that one answer to all has exactly chance. Above chance counts only what "
        "is also above the preference question under the same injections. Each question has one wording, which no "
        "interval over vectors covers."
    )
    figure = draw.dots(
        _at_output(measures.summary(), measures),
        _at_output(measures.long(), measures),
        [Panel(measure, *_PANELS[measure], references=()) for measure in MEASURES],
        _LOOKS,
        title=_finding(measures),
        subtitle=subtitle,
        legend_lines=2,
    )
    for column, measure in enumerate(MEASURES, start=1):
        draw.mark_rows(figure, [measures.chance(place, measure) for place in PLACES], "chance", column=column)
    return figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")


def _at_output(frame: pd.DataFrame, measures: Measures) -> pd.DataFrame:
    rows = frame[(frame["layer"] == measures.output) & frame["series"].isin(list(_LOOKS))]
    return rows.assign(row=rows["place"].map(LABELS))


def _finding(measures: Measures) -> str:
    verdicts = measures.verdict().set_index(["measure", "place"])
    shares = ", ".join(f"{_SHORT[place]} {_against_chance(verdicts.loc[('right', place)])}" for place in PLACES)
    named, apart = _above_chance(verdicts.loc["right"]), _above_chance(verdicts.loc["apart"])
    return f"Places named above chance: {named} (right: {shares}); told apart by the logits: {apart}"


def _above_chance(verdicts: pd.DataFrame) -> str:
    return ", ".join(_SHORT[place] for place in PLACES if verdicts.loc[place, "above"]) or "none"


def _against_chance(row: pd.Series) -> str:
    return f"{_percent(row['mean'])} against {_percent(row['chance'])}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def by_layer(measures: Measures, caption: str) -> go.Figure:
    """Return both measures by readout layer, one column for each place."""
    curves = only(measures.summary(), _LOOKS, ["random-preference"])
    curves = curves.assign(panel=curves["panel"] + " " + curves["place"])
    labels = {"right": "share right", "apart": "pairs told apart"}
    panels = [
        Panel(f"{measure} {place}", LABELS[place], labels[measure], references=[measures.chance(place, measure)])
        for measure in MEASURES
        for place in PLACES
    ]
    return draw.curves(
        curves,
        panels,
        _LOOKS,
        columns=len(PLACES),
        legend_lines=2,
        title=_layers_finding(curves, measures),
        subtitle=f"{caption}. Above: share of answers that name the place; below: share of pairs of places whose "
        "logits differ the right way. Lines are chance; bands are 95% intervals over vectors.",
    )


def _layers_finding(curves: pd.DataFrame, measures: Measures) -> str:
    """Name the layers at which concepts are above chance and above the preference question's interval."""
    wide = curves.pivot(index=["panel", "layer"], columns="series", values=["mean", "low"])
    above = []
    for place in PLACES:
        rows = wide.loc[f"apart {place}"]
        better = (rows["low", "location"] > 0.5) & (rows["mean", "preference"] < rows["low", "location"])
        above.append(f"{_SHORT[place]} {better.sum()}")
    layers = curves["layer"].nunique()
    return f"At how many of {layers} readout layers do logits tell the place, beyond preference? {', '.join(above)}"


def sentences(measures: Measures, caption: str, marks: Marks) -> go.Figure:
    """Return how each sentence's option moves against clean, by the sentence that was injected."""
    names = [str(number + 1) for number in range(measures.count("sentence"))]
    titles = {"location": "Asked for the place", "preference": "Asked for its preference", "random": "Random vectors"}
    present = [name for name in titles if (measures.scores["series"] == name).any()]
    shifts = {titles[name]: marks.mean(measures.moved("sentence", name)) for name in present}
    limit = max(1.0, *(_POINTS * float(np.nanmax(np.abs(shift.mean))) for shift in shifts.values()))
    digits = 0 if limit >= _WIDE else 1
    panels = [HeatPanel(title, _points(shift, digits)) for title, shift in shifts.items()]
    subtitle = (
        f"{caption}. Probabilities among the options less those of the clean cell, in percentage points, mean "
        "over orders and vectors; the diagonal is right. Dots mark shifts of "
        f"{10.0**-digits:g} points and more whose {marks.caption}."
    )
    return draw.heatmap(
        panels,
        Scale("shift of P,<br>points", -limit, limit),
        rows=names,
        columns=names,
        row_label="injected sentence",
        column_label="answered sentence",
        digits=digits,
        title=_sentences_finding(measures),
        subtitle=subtitle,
    )


def _sentences_finding(measures: Measures) -> str:
    row = measures.verdict().set_index(["measure", "place"]).loc[("right", "sentence")]
    verdict = "above" if row["above"] else "not above"
    return (
        f"In which of {measures.count('sentence')} sentences? {_percent(row['mean'])} of answers are right, "
        f"{verdict} chance ({_percent(row['chance'])})"
    )


def _points(shift: intervals.Interval, digits: int) -> intervals.Interval:
    """Return a shift in percentage points; what is less than a step of the last digit loses its bounds and its mark."""
    mean = _POINTS * shift.mean
    small = np.abs(mean) < 10.0**-digits
    low = np.where(small, np.nan, _POINTS * shift.low)
    high = np.where(small, np.nan, _POINTS * shift.high)
    return intervals.Interval(mean, low, high, shift.n)
