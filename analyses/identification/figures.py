"""The identification table as figures: confusion, information by layer, accuracy against chance, and own names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.identification import INFOS, PROSE
from analyses.identification.measures import Measures
from mechint import figures as draw
from mechint import stats
from mechint.figures import HeatPanel, Panel, Scale
from mechint.figures.heatmaps import SEQUENTIAL
from mechint.figures.style import SERIES, Series
from mechint.figures.words import bounded, percent, plain, signed
from mechint.stats import intervals
from mechint.stats.bands import BANDS, Marks

if TYPE_CHECKING:
    import plotly.graph_objects as go

DOCUMENTS = {"none": "no document", "introspection": "info document"}
_CLEAN, _RANDOM, _ALL = "none (clean)", "random vectors (mean)", "concepts (mean)"
_LOOKS = {name: SERIES[name] for name in ("clean", "injected", "random")}
_GREY = "#777777"
_BITS = {
    "null": Series("concepts permuted within orders: mean to 95%", _GREY, "dot", "line-ew", 1.0),
    "plug_in": Series("concepts, not corrected (plug-in)", _GREY, "solid", "diamond-open", 1.5),
    **_LOOKS,
}
_CERTAIN = 0.05
_PALEST = 4.0  # the darkest colour stands for this many times chance, or more
_GUESS = "Random vectors count as right where the concept whose norms they have is named."


def figures(
    measures: Measures, subject: str, injected_layers: Sequence[int], marks: Marks = BANDS
) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    kinds = measures.choice.groupby("series")["unit"].nunique()
    counts = f"{len(measures.concepts)} concepts, {kinds.get('random', 0)} random vectors"
    caption = f"{subject}. {counts}; the options in {measures.choice['order'].nunique()} orders"
    return {
        "identification_confusion": confusion(measures, caption),
        "identification_information": by_layer(measures, caption, injected_layers),
        "identification_accuracy": accuracy(measures, caption),
        "identification_naming": naming(measures, f"{subject}. {counts}", marks),
    }


def confusion(measures: Measures, caption: str) -> go.Figure:
    """Return what is answered to each injection, at the output and at the best late layer."""
    panels = []
    for info in INFOS:
        trials = {"output": measures.at_output(info), f"layer {measures.best_layer(info)}": measures.held_out(info)}
        panels += [
            HeatPanel(f"{DOCUMENTS[info]}, {where}", _shares(measures, rows), mark="") for where, rows in trials.items()
        ]
    top = max(float(np.nanmax([panel.values.mean for panel in panels])), _PALEST * measures.chance("output"))
    figure = draw.heatmap(
        panels,
        Scale("P(option)<br>among options", 0.0, top, SEQUENTIAL),
        rows=[*measures.concepts, _CLEAN, _RANDOM],
        columns=measures.options,
        row_label="injected",
        column_label="answered",
        per_line=2,
        title=f"Which concept was injected? {_choice_finding(measures)}",
        subtitle=f"{caption}. Probabilities among the options, mean over orders; the diagonal is right. The layer is "
        "chosen in the model's second half on the even orders, and its panel shows the odd orders only.",
    )
    return figure.update_xaxes(tickangle=-45)


def _shares(measures: Measures, trials: pd.DataFrame) -> intervals.Interval:
    options = list(measures.options)
    means = trials[trials["series"] != "random"].groupby("target")[options].mean().reindex(options)
    random = trials.loc[trials["series"] == "random", options].mean()
    return _without_bounds(np.vstack([means.to_numpy(), random.to_numpy()]))


def _without_bounds(values: np.ndarray) -> intervals.Interval:
    none = np.full_like(values, np.nan)
    return intervals.Interval(values, none, none, 1)


def by_layer(measures: Measures, caption: str, injected_layers: Sequence[int]) -> go.Figure:
    """Return information in bits and the share right by readout layer, without and with the info document."""
    bits = measures.bits
    right = measures.by_layer().assign(causes="right")
    curves = pd.concat([bits, right], ignore_index=True)
    curves["panel"] = curves["causes"] + " " + curves["info"]
    among, chance = len(measures.concepts), measures.chance("output")
    lines = (
        ("among", f"which of {among} concepts, none left out", "bits", 0.0),
        ("with-none", f"which of {among} concepts, or none", "bits", 0.0),
        ("right", "right answers (line: chance)", "share right", chance),
    )
    panels = [
        Panel(f"{key} {info}", f"{DOCUMENTS[info]}: {title}", label, references=[reference])
        for key, title, label, reference in lines
        for info in INFOS
    ]
    return draw.curves(
        curves,
        panels,
        _BITS,
        injected_layers=injected_layers,
        legend_lines=2,
        title=_bits_finding(bits, measures),
        subtitle=f"{caption}. Bits: mutual information of injection and answer, less its mean over permutations; for "
        "random vectors, how far answers differ between them. Below zero, answers follow the digit: the orders are "
        f"balanced, permutations are not. Bands of shares: 95% intervals over vectors. {_GUESS}",
    )


def _bits_finding(bits: pd.DataFrame, measures: Measures) -> str:
    rows = bits[(bits["causes"] == "among") & (bits["layer"] == measures.output) & (bits["info"] == INFOS[-1])]
    by_series = rows.set_index("series")
    injected, most = by_series.loc["injected"], np.log2(len(measures.concepts))
    verdict = "Answers tell" if injected["p_value"] < _CERTAIN else "Answers do not tell"
    bits_of_most = f"{plain(injected['mean'])} of {most:.2f} bits"
    text = f"{verdict} which concept was injected: {bits_of_most} (p = {injected['p_value']:.3f}"
    text += f"; random vectors {plain(by_series.loc['random', 'mean'])}" if "random" in by_series.index else ""
    return f"{text}), info document"


def accuracy(measures: Measures, caption: str) -> go.Figure:
    """Return the share right of choices and names against chance, by info document."""
    layers = " and ".join(dict.fromkeys(measures.best_layer(info) for info in INFOS))
    titles = {
        "output": "Choice, output",
        "among": "None left out, output",
        "best": f"None left out, layer {layers}",
        "naming": "Free naming, output",
    }
    panels = [Panel(key, title, "share right", references=()) for key, title in titles.items()]
    of_names = _share(_with_document(measures).loc["naming", "injected"])
    values = _named_documents(measures.answered)
    figure = draw.dots(
        _named_documents(measures.accuracy),
        values[values["unit"] != ""],
        panels,
        _LOOKS,
        title=f"Can it say what was injected? {_choice_finding(measures)}; of names {of_names}",
        subtitle=f"{caption}. Large: mean over vectors with its 95% interval; small: single vectors. Clean is "
        "right where no injection is chosen; with this option left out, a concept can be told without being detected. "
        f"{_GUESS} The layer was chosen on the even orders, and is shown on the odd ones.",
    )
    for column, panel in enumerate(panels, start=1):
        draw.mark_rows(figure, [measures.chance(panel.key)] * len(INFOS), "chance", column=column)
    return figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")


def _named_documents(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(row=frame["row"].map(DOCUMENTS))


def _with_document(measures: Measures) -> pd.DataFrame:
    """Return the accuracies with the info document, by panel and series."""
    summary = measures.accuracy
    return summary[summary["row"] == INFOS[-1]].set_index(["panel", "series"])


def _choice_finding(measures: Measures) -> str:
    injected = _with_document(measures).loc["output", "injected"]
    verdict = "above" if injected["low"] > injected["chance"] else "not above"
    return (
        f"With the info document {_share(injected)} of choices are right, {verdict} chance "
        f"({percent(injected['chance'])})"
    )


def _share(row: pd.Series) -> str:
    return bounded(row["mean"], row["low"], row["high"], percent)


def naming(measures: Measures, caption: str, marks: Marks = BANDS) -> go.Figure:
    """Return for each concept how far its injection raises its own name above the others, by question."""
    columns = {
        f"{question} {info}": f"{text},<br>{DOCUMENTS[info]}"
        for question, text in (("injected", "asked what was injected"), ("control", "asked something else"))
        for info in INFOS
    } | {f"{PROSE} {INFOS[0]}": "prose, read<br>under steering"}
    rows = measures.naming.assign(column=measures.naming["question"] + " " + measures.naming["info"])
    wide = stats.unit_means(rows, ["series", "unit"], "own", "column")[list(columns)]
    cubes = {name: wide.loc[name] for name in ("injected", "random") if name in wide.index.get_level_values(0)}
    order = cubes["injected"].iloc[:, 0].sort_values(ascending=False).index
    names = [_ALL, *order]
    parts = [marks.mean(cubes["injected"].to_numpy().T), _without_bounds(cubes["injected"].loc[order].to_numpy())]
    if "random" in cubes:
        names.append(_RANDOM)
        parts.append(marks.mean(cubes["random"].to_numpy().T))
    return draw.heatmap(
        [HeatPanel("Own name, less the mean of the others", _stacked(parts, len(order)))],
        Scale("shift of log p,<br>nats"),
        rows=names,
        columns=list(columns.values()),
        row_label="injected",
        column_label="question, and what the first message begins with",
        title=_names_finding(measures),
        subtitle=f'{caption}. Shift against clean of the log-probability of names after "The concept is". Dots mark '
        f"means whose {marks.caption}. Prose: what the vectors do by themselves, mean over positions. Random vectors "
        "have the name of the concept whose norms they have.",
    )


def _stacked(parts: Sequence[intervals.Interval], n: int) -> intervals.Interval:
    """Return the rows of some intervals, one below the other."""
    mean = np.vstack([interval.mean for interval in parts])
    low = np.vstack([interval.low for interval in parts])
    high = np.vstack([interval.high for interval in parts])
    return intervals.Interval(mean, low, high, n)


def _names_finding(measures: Measures) -> str:
    gains = measures.own_names()
    gains = gains[gains["info"] == INFOS[-1]].set_index(["question", "series"])
    injected, control = gains.loc["injected", "injected"], gains.loc["control", "injected"]
    text = f"{signed(injected['mean'])} nats [{signed(injected['low'])}, {signed(injected['high'])}]"
    return (
        f"Asked for it, an injected concept's own name gains {text} on the others; asked something else "
        f"{signed(control['mean'])}"
    )
