"""Judges of one run compared: agreement, classes by two of them, errors on labels, and net detection by each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.trial_judges.comparing import RETEST
from analyses.trials import captions
from analyses.trials.figures.looks import CLASS_WORDS
from mechint import figures as draw
from mechint.figures import HeatPanel, Panel, Scale
from mechint.figures.heatmaps import SEQUENTIAL
from mechint.figures.style import BLUE, INK, SERIES, VERMILION, Series
from mechint.figures.words import percent, plain, signed
from mechint.stats.intervals import Interval
from mechint.trials.outcomes import CLASSES

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.trials.judging import JudgeFacts

_ARMS = {name: SERIES[name] for name in ("clean", "injected", "random")} | {
    "all": Series("all replies", INK, "solid", "diamond")
}
_QUESTIONS = {"coherent": "Can be read", "refused": "Refuses", "claims": "Claims", "detects": "Class is a claim"}
_ERRORS = ("detects", "passes")
_NET = {
    "in": Series("refusals as denials", VERMILION, "solid", "circle"),
    "out": Series("refusals left out of both arms", BLUE, "solid", "square"),
    "random": Series("random vectors, refusals as denials", INK, "solid", "diamond-open"),
}
_NO_UNITS = pd.DataFrame(columns=["panel", "row", "series", "unit", "value"])


def figures(
    tables: Mapping[str, pd.DataFrame], trials: pd.DataFrame, judges: Sequence[JudgeFacts], source: str
) -> dict[str, go.Figure]:
    """Return the figures by file name; those for which there are no rows are left out."""
    caption = f"{source}; {captions.numbers(trials)}; {'; '.join(judge.caption for judge in judges)}"
    drawn = {"trial_judges_net": net(tables["rates"], caption)}
    if len(tables["table"]):
        drawn["trial_judges_agreement"] = agreement(tables["table"], caption)
    if len(tables["classes"]):
        drawn["trial_judges_classes"] = classes(tables["classes"], caption)
    if len(tables["labels"]):
        drawn["trial_judges_errors"] = errors(tables["labels"], caption)
    return drawn


def agreement(table: pd.DataFrame, caption: str) -> go.Figure:
    """Return kappa of pairs of judges, and of two readings by one, by question and arm."""
    rows = table[table["question"].isin(_QUESTIONS)]
    names = [
        f"{first}, twice" if of == RETEST else f"{first}<br>and {second}"
        for first, second, of in zip(rows["first"], rows["second"], rows["of"], strict=True)
    ]
    summary = rows.assign(panel=rows["question"], row=names, series=rows["arm"], mean=rows["kappa"])
    summary = summary.rename(columns={"kappa_low": "low", "kappa_high": "high"})
    figure = draw.dots(
        summary[["panel", "row", "series", "mean", "low", "high"]],
        _NO_UNITS,
        [Panel(key, title, "Cohen's kappa") for key, title in _QUESTIONS.items()],
        _ARMS,
        title=_agreement_title(rows),
        subtitle=f"{caption}. Of replies to the prompts of the design, but for coherence those that can be read. A "
        "class is a claim unless it is refused or cannot be read: refusals are denials. 95% intervals over replies; no "
        "kappa where both always give one answer.",
    )
    least = np.nanmin([-0.1, *summary["low"], *summary["mean"]])
    return figure.update_xaxes(range=[1.05 * least, 1.08])


def classes(table: pd.DataFrame, caption: str) -> go.Figure:
    """Return what replies count as by two judges, a panel for each pair: shares of the first judge's class."""
    panels = []
    for (first, second), rows in table.groupby(["first", "second"], sort=False):
        counts = rows.pivot(index="first_class", columns="second_class", values="n").reindex(CLASSES, columns=CLASSES)
        whole = counts.fillna(0).to_numpy(float)
        sizes = whole.sum(axis=1, keepdims=True)
        shares = np.divide(whole, sizes, out=np.full_like(whole, np.nan), where=sizes > 0)
        nothing = np.full_like(shares, np.nan)
        panels.append(HeatPanel(f"{first} (rows), {second}", Interval(shares, nothing, nothing, 1), mark=""))
    sizes_of = table.groupby(["first", "second"])["n"].sum()
    same = table[table["first_class"] == table["second_class"]].groupby(["first", "second"])["n"].sum()
    shared = (same.reindex(sizes_of.index).fillna(0) / sizes_of).tolist()
    texts = dict.fromkeys(percent(value) for value in (min(shared), max(shared)))
    names = [CLASS_WORDS[name].replace(", ", ",<br>") for name in CLASSES]
    return draw.heatmap(
        panels,
        Scale("share of the row", 0.0, 1.0, SEQUENTIAL),
        rows=[CLASS_WORDS[name] for name in CLASSES],
        columns=names,
        title=f"Two judges give {' to '.join(texts)} of replies the same class",
        subtitle=f"{caption}. All arms together; refusals are a class of their own. Of the replies that the first "
        "judge (rows) puts into a class, the shares that the second (columns) puts into each.",
        per_line=2,
    )


def errors(table: pd.DataFrame, caption: str) -> go.Figure:
    """Return sensitivity and specificity of each judge on labels, by arm."""
    rows = table[table["question"].isin(_ERRORS)]
    names = [f"{judge}<br>on {labels}" for judge, labels in zip(rows["judge"], rows["labels"], strict=True)]
    parts = []
    for measure in ("sensitivity", "specificity"):
        bounds = rows[[measure, f"{measure}_low", f"{measure}_high"]].set_axis(["mean", "low", "high"], axis=1)
        parts.append(bounds.assign(panel=measure, row=names, series=rows["arm"]))
    lowest = rows[rows["arm"] == "all"].set_index(["judge", "labels"])
    texts = [f"{judge} {plain(row['accuracy'])}" for (judge, _), row in lowest.iterrows()]
    return draw.dots(
        pd.concat(parts, ignore_index=True),
        _NO_UNITS,
        [
            Panel("sensitivity", "Sensitivity", "share of claims that are seen", references=()),
            Panel("specificity", "Specificity", "share of other replies in which none is", references=()),
        ],
        _ARMS,
        title=f"Share of labels that a judge agrees with: {', '.join(dict.fromkeys(texts))}",
        subtitle=f"{caption}. Whether the class of a reply is a claim, refusals are denials; of published labels, "
        "whether it passes. Exact 95% intervals over labelled replies.",
    ).update_xaxes(range=[-0.03, 1.03])


def net(rates: pd.DataFrame, caption: str) -> go.Figure:
    """Return net detection by prompt and judge, raw and corrected."""
    rows = rates[(rates["measure"] == "net") & (rates["prompt"] != "") & (rates["question"] == "introspection")]
    of_random = (rows["series"] == "random") & (rows["refusals"] == "in")
    rows = rows[of_random | ((rows["series"] == "injected") & rows["refusals"].isin(["in", "out"]))]
    groups = [
        captions.group_name(rates, model, name) for model, name in zip(rows["model"], rows["prompt"], strict=True)
    ]
    summary = rows.assign(
        panel=rows["estimate"],
        row=[f"{group}<br>{judge}" for group, judge in zip(groups, rows["judge"], strict=True)],
        series=rows["refusals"].where(rows["series"] == "injected", "random"),
        mean=rows["value"],
        n=rows["n_concepts"],
        group=groups,
    )
    order = {name: at for at, name in enumerate(dict.fromkeys(groups))}
    summary = summary.sort_values("group", key=lambda names: names.map(order), kind="stable")
    label = "share of claims above that of clean replies"
    panels = [Panel("raw", "As each judge has counted", label)]
    if (rows["estimate"] == "corrected").any():
        panels.append(Panel("corrected", "Corrected for its errors on labels", label))
    figure = draw.dots(
        summary[["panel", "row", "series", "mean", "low", "high", "n"]],
        _NO_UNITS,
        panels,
        _NET,
        title=_net_title(rows),
        subtitle=f"{caption}. Means over concepts or random vectors with 95% intervals, refusals as denials and left "
        "out; of judges that nobody has measured there is nothing to correct.",
    )
    return figure.update_xaxes(matches="x")


def _net_title(rows: pd.DataFrame) -> str:
    """Return how far apart judges put net detection of concepts at most, under one prompt."""
    chosen = rows[(rows["series"] == "injected") & (rows["refusals"] == "in") & (rows["estimate"] == "raw")]
    if chosen["judge"].nunique() < 2:
        return "What does the judge make of net detection?"
    by_prompt = chosen.groupby(["model", "prompt"], sort=False)["value"]
    apart = by_prompt.max() - by_prompt.min()
    values = chosen.set_index(["model", "prompt"]).loc[[apart.idxmax()]].sort_values("value")
    ends = " and ".join(f"{signed(row['value'])} ({row['judge']})" for _, row in values.iloc[[0, -1]].iterrows())
    return f"The judge moves net detection by up to {plain(float(apart.max()))}: {ends}"


def _agreement_title(rows: pd.DataFrame) -> str:
    """Return the range of kappa of claims over pairs of judges, all arms together."""
    claims = rows[(rows["question"] == "detects") & (rows["arm"] == "all") & (rows["of"] != RETEST)]["kappa"].dropna()
    if claims.empty:
        return "How far do judges agree?"
    ends = dict.fromkeys(plain(value) for value in (claims.min(), claims.max()))
    return f"Two judges agree on whether a reply claims something with a kappa of {' to '.join(ends)}"
