"""The identification table as figures: confusion, information by layer, accuracy against chance, and own names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.identification import INFOS
from analyses.identification.measures import Measures
from mechint import figures as draw
from mechint import stats
from mechint.figures import HeatPanel, Panel, Scale
from mechint.figures.heatmaps import SEQUENTIAL
from mechint.figures.style import MINUS, SERIES, Series
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
    kinds = measures.choice.groupby("series")["vector"].nunique()
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
    panels, summary = [], _with_document(measures)
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
        title=f"Which concept was injected? {_accuracy_finding(summary, 'output')}",
        subtitle=f"{caption}. Probabilities among the options, mean over orders; the diagonal is right. The layer is "
        "chosen in the model's second half on the even orders, and its panel shows the odd orders only.",
    )
    return figure.update_xaxes(tickangle=-45)


def _shares(measures: Measures, trials: pd.DataFrame) -> intervals.Interval:
    options = list(measures.options)
    means = trials[trials["series"] != "random"].groupby("target")[options].mean().reindex(options)
    random = trials.loc[trials["series"] == "random", options].mean()
    values = np.vstack([means.to_numpy(), random.to_numpy()])
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
    bits_of_most = f"{_plain(injected['mean'])} of {most:.2f} bits"
    text = f"{verdict} which concept was injected: {bits_of_most} (p = {injected['p_value']:.3f}"
    text += f"; random vectors {_plain(by_series.loc['random', 'mean'])}" if "random" in by_series.index else ""
    return f"{text}), info document"


def accuracy(measures: Measures, caption: str) -> go.Figure:
    """Return the share right of choices and names against chance, by info document."""
    summary, values = measures.accuracy, measures.answered
    layers = " and ".join(dict.fromkeys(measures.best_layer(info) for info in INFOS))
    titles = {
        "output": "Choice, output", "among": "None left out, output", "best": f"None left out, layer {layers}",
        "naming": "Free naming, output",
    }  # fmt: skip
    panels = [Panel(key, title, "share right", references=()) for key, title in titles.items()]
    summary, values = (frame.assign(row=frame["row"].map(DOCUMENTS)) for frame in (summary, values))
    with_document = _with_document(measures)
    figure = draw.dots(
        summary, values[values["unit"] != ""], panels, _LOOKS, title=f"Can it say what was injected? "
        f"{_accuracy_finding(with_document, 'output')}; of names {_share(with_document.loc['naming', 'injected'])}",
        subtitle=f"{caption}. Large: mean over vectors with its 95% interval; small: single vectors. Clean is "
        "right where no injection is chosen; with this option left out, a concept can be told without being detected. "
        f"{_GUESS} The layer was chosen on the even orders, and is shown on the odd ones.",
    )  # fmt: skip
    for column, panel in enumerate(panels, start=1):
        draw.mark_rows(figure, [measures.chance(panel.key)] * len(INFOS), "chance", column=column)
    return figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")


def _with_document(measures: Measures) -> pd.DataFrame:
    """Return the accuracies with the info document, by panel and series."""
    summary = measures.accuracy
    return summary[summary["row"] == INFOS[-1]].set_index(["panel", "series"])


def _accuracy_finding(summary: pd.DataFrame, panel: str) -> str:
    injected = summary.loc[panel, "injected"]
    verdict = "above" if injected["low"] > injected["chance"] else "not above"
    return (
        f"With the info document {_share(injected)} of choices are right, {verdict} chance ({injected['chance']:.0%})"
    )


def _share(row: pd.Series) -> str:
    return f"{row['mean']:.0%} [{row['low']:.0%}, {row['high']:.0%}]"


def naming(measures: Measures, caption: str, marks: Marks = BANDS) -> go.Figure:
    """Return for each concept how far its injection raises its own name above the others, by question."""
    columns = {
        f"{question} {info}": f"{text},<br>{DOCUMENTS[info]}"
        for question, text in (("injected", "asked what was injected"), ("control", "asked something else"))
        for info in INFOS
    }
    rows = measures.naming.assign(column=measures.naming["question"] + " " + measures.naming["info"])
    wide = stats.unit_means(rows, ["series", "vector"], "own", "column")[list(columns)]
    cubes = {name: wide.loc[name] for name in ("injected", "random") if name in wide.index.get_level_values(0)}
    order = cubes["injected"].iloc[:, 0].sort_values(ascending=False).index
    means = {name: marks.mean(cube.to_numpy().T) for name, cube in cubes.items()}
    single = cubes["injected"].loc[order].to_numpy()
    none = np.full_like(single, np.nan)
    parts = [
        means["injected"],
        intervals.Interval(single, none, none, 1),
        *([means["random"]] if "random" in means else []),
    ]
    mean, low, high = (np.vstack([getattr(interval, name) for interval in parts]) for name in ("mean", "low", "high"))
    values = intervals.Interval(mean, low, high, len(order))
    names = [_ALL, *order, *([_RANDOM] if "random" in means else [])]
    return draw.heatmap(
        [HeatPanel("Own name, less the mean of the others", values)],
        Scale("shift of log p,<br>nats"),
        rows=names,
        columns=list(columns.values()),
        row_label="injected",
        column_label="question, and what the first message begins with",
        title=_names_finding(measures),
        subtitle=f'{caption}. Shift against clean of the log-probability of names after "The concept is". Dots mark '
        f"means whose {marks.caption}. Random vectors have the name of the concept "
        "whose norms they have.",
    )


def _names_finding(measures: Measures) -> str:
    gains = measures.own_names()
    gains = gains[gains["info"] == INFOS[-1]].set_index(["question", "series"])
    injected, control = gains.loc["injected", "injected"], gains.loc["control", "injected"]
    text = f"{_signed(injected['mean'])} nats [{_signed(injected['low'])}, {_signed(injected['high'])}]"
    return (
        f"Asked for it, an injected concept's own name gains {text} on the others; asked something else "
        f"{_signed(control['mean'])}"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def _plain(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}".replace("-", MINUS)  # adding 0 turns -0 into 0
