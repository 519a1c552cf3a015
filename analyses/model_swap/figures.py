"""The model-swap table as figures: shifts of swap and contrast vector, the vector's strengths, and the lens of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.model_swap.measures import Run, at_output, by_unit, usual_strength, verdict
from mechint import figures as draw
from mechint import stats
from mechint.figures import Panel, published
from mechint.figures.style import GREEN, METRICS, MINUS, ORANGE, PUBLISHED, SERIES, VERMILION, Series, layer_position
from mechint.figures.words import bounded, signed
from mechint.stats.intervals import PROBABILITY

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DOCUMENTS = {"none": "no document", "introspection": "info document", "": "own conversations"}
_SHIFT = f"shift of {METRICS['logit_diff']}"
_RANDOM = dataclasses.replace(SERIES["random"], label="random vectors of equal norm, introspection question")
_NO = Series("control questions, answer no", GREEN, "dashdot", "triangle-up")
_YES = Series("control questions, answer yes", ORANGE, "longdashdot", "triangle-down")
_LOOKS = {
    "clean": dataclasses.replace(SERIES["clean"], label="introspection question, clean"),
    "question": Series("introspection question", VERMILION, "solid", "circle", 3.0),
    "random": _RANDOM,
    "no": _NO,
    "yes": _YES,
    "published": PUBLISHED,
}
_PANEL_OF = {"question": "asked", "random": "asked", "no": "control", "yes": "control"}
_LENS = {
    "level": ("introspection question", METRICS["logit_diff"]),
    "question": ("introspection question, shift against clean", _SHIFT),
    "no": ("controls answered no, shift against clean", _SHIFT),
}
_OVER = (
    "95% intervals over wordings of the question and over control questions, since there is one swap and one "
    "contrast vector; of random vectors over vectors, both signs averaged"
)


def figures(table: pd.DataFrame, run: Run) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    units = by_unit(table)
    return {
        "model_swap_shift": shift(units, run),
        "model_swap_strength": strength(units, run),
        "model_swap_lens": lens(units, run),
    }


def shift(units: pd.DataFrame, run: Run) -> go.Figure:
    """Return shifts of logit_diff on both kinds of questions, and P(yes), by info document and condition."""
    rows = pd.concat(_rows(at_output(units), run), ignore_index=True)
    moved = rows[rows["series"] != "clean"]
    moved = moved.assign(panel=moved["series"].map(_PANEL_OF), value=moved["logit_diff_shift"])
    chances = rows[rows["series"].isin(["clean", "question"])].assign(panel="p", value=lambda frame: frame["p_yes"])
    values = pd.concat([moved, chances], ignore_index=True)
    summary = _means(values, ["panel", "row", "series"])
    panels = [
        Panel("asked", "Introspection question", "shift of logit_diff, natural units"),
        Panel("control", "Control questions", "shift of logit_diff, natural units"),
        Panel("p", "Clean → this row", "P(yes), axis in log-odds", scale="log-odds", arrows=("clean", "question")),
    ]
    figure = draw.dots(
        pd.concat([summary, _published_rows(rows, run)], ignore_index=True),
        values,
        panels,
        _LOOKS,
        title=_finding(units, run),
        packed=True,
        legend_lines=2,
        widths=(0.34, 0.34, 0.32),
        subtitle=f"{_caption(units, run)}. logit_diff = {METRICS['logit_diff']}. Large: mean with its interval; "
        f"small: single wordings, questions or vectors. {_OVER}. "
        "Published: another model, finetune and contrast vector.",
    )
    return figure.update_xaxes(matches="x", row=1, col=2).update_xaxes(nticks=8)


def _rows(last: pd.DataFrame, run: Run) -> Iterator[pd.DataFrame]:
    """Yield the rows of the figure in order, each with the clean values that it is to be compared with."""
    for info in dict.fromkeys(last["info"]):
        info_rows = last[last["info"] == info]
        clean = info_rows[info_rows["series"] == "clean"]
        yield pd.concat([clean, info_rows[info_rows["condition"] == "swapped"]]).assign(row=_row_name(info, "swap"))
        injected = info_rows[info_rows["condition"].isin(["contrast", "random"])]
        for amount in sorted(set(injected["strength"]) - {0.0}):
            at = injected[injected["strength"] == amount]
            yield pd.concat([clean, at]).assign(row=_row_name(info, _vector_name(amount, run)))


def _row_name(info: str, condition: str) -> str:
    return f"{_document(info)}: {condition}"


def _vector_name(amount: float, run: Run) -> str:
    return f"contrast at {run.strength(amount)}"


def _document(info: str) -> str:
    return _DOCUMENTS.get(info, info)


def _published_rows(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Return the published probabilities of experiment 7, beside the swap and the vector at its usual dose."""
    cells = published.load("kv_fill_injection").query("experiment == 7")
    names = {"EM finetune": "swap", "EM vector": _vector_name(usual_strength(rows, run.dose), run)}
    labels = [_row_name(info, names[vector]) for info, vector in zip(cells["info"], cells["vector"], strict=True)]
    labelled = cells.assign(row=labels, mean=cells["p_yes_injected"], low=np.nan, high=np.nan)
    labelled = labelled[labelled["row"].isin(set(rows["row"]))]
    return labelled[["row", "mean", "low", "high"]].assign(panel="p", series="published")


def _finding(units: pd.DataFrame, run: Run) -> str:
    """Say what the swap does with the last of the info documents, and what else does."""
    info, shifts = list(verdict(units, run.dose).items())[-1]
    swap, at = shifts["swap"], run.strength(usual_strength(units, run.dose))
    by = bounded(swap["mean"], swap["low"], swap["high"])
    others = {"contrast": f"the contrast vector at {at}", "random": "random vectors", "swap, controls": "controls"}
    parts = [f"{words} {signed(shifts[name]['mean'])}" for name, words in others.items() if name in shifts]
    text = f"A cache that {run.finetuned} has filled shifts logit(yes) {MINUS} logit(no) by {by} ({_document(info)})"
    return "; ".join([text, *parts])


def strength(units: pd.DataFrame, run: Run) -> go.Figure:
    """Return the shift against the contrast vector's strength, with the swap's level across, by info document."""
    last = at_output(units).assign(panel=lambda rows: rows["info"], value=lambda rows: rows["logit_diff_shift"])
    injected = last[last["condition"].isin(["contrast", "random"])]
    swap = last[(last["condition"] == "swapped") & (last["series"] == "question")].assign(series="swapped")
    curves = _means(injected, ["panel", "series", "strength"])
    levels = _means(swap, ["panel", "series"])
    looks = {
        "swapped": dataclasses.replace(SERIES["swapped"], label="swap, introspection question"),
        "question": dataclasses.replace(SERIES["contrast"], label="contrast vector, introspection question"),
        "random": _RANDOM,
        "no": dataclasses.replace(_NO, label="contrast vector, controls answered no"),
        "yes": dataclasses.replace(_YES, label="contrast vector, controls answered yes"),
    }
    unit = "|added| / median |residual| at each layer" if run.dose.is_relative else "factor on the vector"
    panels = [
        Panel(info, _document(info).capitalize(), f"{_SHIFT}, natural units", height=300)
        for info in dict.fromkeys(last["info"])
    ]
    return draw.curves(
        curves,
        panels,
        looks,
        x="strength",
        x_label=f"strength of the contrast vector, {unit}",
        columns=len(panels),
        levels=levels,
        legend_lines=2,
        title=_strength_finding(curves, levels, run),
        subtitle=f"{_caption(units, run)}. Bands: {_OVER}. Below zero the vector points away from the finetuned model.",
    )


def _strength_finding(curves: pd.DataFrame, levels: pd.DataFrame, run: Run) -> str:
    """Say at which strength the vector does what the swap does, with the last info document."""
    info = levels["panel"].iloc[-1]
    level = float(levels.loc[levels["panel"] == info, "mean"].iloc[0])
    contrast = curves[(curves["panel"] == info) & (curves["series"] == "question") & (curves["strength"] > 0)]
    nearest = contrast.loc[(contrast["mean"] - level).abs().idxmin()]
    swap, at = f"The swap shifts by {signed(level)} ({_document(info)})", run.strength(nearest["strength"])
    if abs(nearest["mean"] - level) > abs(level):  # no shift at all would be nearer
        return f"{swap}; no strength of the contrast vector comes near it ({at}: {signed(nearest['mean'])})"
    return f"{swap}; of the contrast vector, strength {at} comes nearest ({signed(nearest['mean'])})"


def lens(units: pd.DataFrame, run: Run) -> go.Figure:
    """Return levels and shifts by readout layer, clean, swapped and under the vector at its usual dose."""
    usual, infos = usual_strength(units, run.dose), list(dict.fromkeys(units["info"]))
    compared = units[units["strength"].isna() | units["strength"].isin([usual]) | (units["condition"] == "clean")]
    of = compared["series"].replace({"clean": "question", "random": "question"})
    compared = compared.assign(of=of, series=compared["condition"])
    level = compared[compared["of"] == "question"].assign(of="level", value=lambda rows: rows["logit_diff"])
    moved = compared[compared["of"].isin(_LENS) & (compared["series"] != "clean")]
    values = pd.concat([level, moved.assign(value=moved["logit_diff_shift"])], ignore_index=True)
    curves = _means(values.assign(panel=values["of"] + " " + values["info"]), ["panel", "series", "layer"])
    panels = [Panel(f"{of} {info}", _lens_title(of, info), _LENS[of][1]) for of in _LENS for info in infos]
    figure = draw.curves(
        curves,
        panels,
        {name: SERIES[name] for name in ("clean", "swapped", "contrast", "random")},
        columns=len(infos),
        legend_lines=2,
        injected_layers=run.dose.layers,
        title=_lens_finding(curves, infos),
        subtitle=f"{_caption(units, run)}. Bands: {_OVER}. Shaded: layers of the vectors; the swap fills all layers.",
    )
    # Shifts of controls are to be seen beside those of the question, on one axis.
    return figure.update_yaxes(matches=f"y{len(infos) + 1}", row=3)


def _lens_title(of: str, info: str) -> str:
    return f"{_document(info).capitalize()}: {_LENS[of][0]}"


def _lens_finding(curves: pd.DataFrame, infos: Sequence[str]) -> str:
    """Say for each info document at which layer the swap shifts most, and what is left of it at the output."""
    peaks = []
    for info in infos:
        swap = curves[(curves["panel"] == f"question {info}") & (curves["series"] == "swapped")]
        means = swap.set_index("layer")["mean"]
        best, last = means.abs().idxmax(), max(means.index, key=layer_position)
        peaks.append(f"{_document(info)}, layer {best} ({signed(means[best])}, output {signed(means[last])})")
    return f"The swap shifts most at: {'; '.join(peaks)}"


def _caption(units: pd.DataFrame, run: Run) -> str:
    """Return who reads what, under which vectors, and how many of each there are."""
    counts = at_output(units).groupby("series")["unit"].nunique()
    controls = counts.get("no", 0) + counts.get("yes", 0)
    return (
        f"{run.model}, cache filled by {run.finetuned}{run.remark}; vectors {run.dose.caption()}, or as named. "
        f"{counts['question']} wordings, {controls} control questions, {counts.get('random', 0)} random vectors"
    )


def _means(values: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    return stats.group_means(values, by, "value", unit="unit", within={"p": PROBABILITY})
