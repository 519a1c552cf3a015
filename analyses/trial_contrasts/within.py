"""Figures of what differs within models: categories of concepts, prompts in one factor, where steering acts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.trial_contrasts import captions
from analyses.trial_contrasts.captions import AS_COUNTED
from analyses.trial_contrasts.declaring import categories as categories_of
from analyses.trial_contrasts.declaring import factor_words, prompt_changes
from analyses.trial_contrasts.drawing import (
    COLUMNS,
    HEADS,
    LABELS,
    LARGE_SMALL,
    UNITS,
    Drawing,
    NotDrawn,
    looks,
    means,
    ordered,
    units_of,
)
from analyses.trial_contrasts.matching import CELL, Matched, matched
from analyses.trial_contrasts.material import summary_of
from mechint import figures as draw
from mechint.figures import Panel
from mechint.figures.words import counted

if TYPE_CHECKING:
    from analyses.trial_contrasts.material import Material
    from mechint.trials.plans import Contrast

_MODES = ("prefill", "reply", "everything", "onward")
_CHANGE = "change, as a share of replies"


def categories(material: Material) -> Drawing | NotDrawn:
    """Return net detection by category, concepts as points, with the smallest p that each category can have."""
    contrasts = material.of_kind("category")
    if not contrasts:
        return NotDrawn("the concepts are not of two categories or more, or these share no cells")
    rows, cells = _each_model(material, ["concept"], [name for name in CELL if name != "concept"])
    rows = rows[rows["category"] != ""]
    measure = material.measure(rows)
    rates = material.rates(rows, ["model", "category"], [measure])
    single = material.singles(rows, ["model", "category"], measure)
    smallest = _smallest(material, contrasts)
    names = {name: f"{name}<br>{_numbers(rows, name, smallest)}" for name in categories_of(material.design)}
    of_rows = {"panel": measure, "row": "category", "series": "model"}
    summary, units = means(rates, measure=measure, **of_rows), units_of(single, **of_rows)
    summary = ordered(summary, "row", list(names))
    figure = draw.dots(
        summary.assign(row=summary["row"].map(names)),
        units.assign(row=units["row"].map(names)),
        [Panel(measure, HEADS[measure], LABELS[measure])],
        looks(material.models),
        title=captions.title(material, "category"),
        subtitle=f"{captions.caption(material)}. {AS_COUNTED}. {LARGE_SMALL}; {cells}. Smallest p: of exchanging "
        "concepts between a category and the others, before Holm's correction.",
        legend_lines=_lines(material),
    )
    return Drawing(figure.update_xaxes(tickformat=".0%"), summary)


def _smallest(material: Material, contrasts: list[Contrast]) -> dict[str, float]:
    """Return by category the smallest p of any model; the two of a pair have the same."""
    smallest: dict[str, float] = {}
    for contrast in contrasts:
        p = material.difference(contrast).smallest_p
        sides = [contrast.left[0]["category"], contrast.right[0]["category"]]
        pair = [side[0] if isinstance(side, list) and len(side) == 1 else side for side in sides]
        for name in pair if isinstance(pair[1], str) else pair[:1]:
            smallest[str(name)] = min(p, smallest.get(str(name), 1.0))
    return smallest


def _numbers(rows: pd.DataFrame, category: str, smallest: dict[str, float]) -> str:
    concepts = counted(rows.loc[rows["category"] == category, "concept"].nunique(), "concept")
    p = smallest.get(category)
    return concepts if p is None else f"{concepts}, smallest p {captions.p_words(p)}"


def prompts(material: Material) -> Drawing | NotDrawn:
    """Return what single changes of the prompt do to hits, false alarms and net detection, by model."""
    contrasts = material.of_kind("prompt")
    if not contrasts:
        return NotDrawn("no two prompts of one model differ in one factor (mechint.trials.prompts)")
    changes = {(before, after): factor for before, after, factor in prompt_changes(material.design)}
    summary: list[dict[str, object]] = []
    units: list[dict[str, object]] = []
    for contrast in contrasts:
        model, before, after = (
            str(contrast.left[0]["model"]),
            str(contrast.right[0]["prompt"]),
            str(contrast.left[0]["prompt"]),
        )
        place = {"row": f"{factor_words(changes[before, after])}<br>{before} → {after}", "series": model}
        summary.append({**place, "panel": "false alarms", **material.alarms(model, before, after), "n": np.nan})
        for panel in dict.fromkeys(("hits", contrast.measure)):
            result = material.difference(replace(contrast, measure=panel))
            summary.append({**place, "panel": panel, **summary_of(result)})
            values = zip(result.concepts, result.left, strict=True)
            units += [{**place, "panel": panel, "unit": unit, "value": float(value)} for unit, value in values]
    table = pd.DataFrame(summary, columns=COLUMNS).dropna(subset=["mean"])
    heads = {"hits": HEADS["hits"], "false alarms": "False alarms: clean claims", "net": HEADS["net"]}
    figure = draw.dots(
        table,
        pd.DataFrame(units, columns=UNITS),
        [Panel(name, head, _CHANGE) for name, head in heads.items() if (table["panel"] == name).any()],
        looks(material.models),
        title=captions.title(material, "prompt"),
        subtitle=f"{captions.caption(material)}. {AS_COUNTED}. {LARGE_SMALL}, on cells that both prompts have; false "
        "alarms: joined exact intervals over replies. Intervals are of one change each; the scorecard corrects for "
        "all.",
        legend_lines=_lines(material),
    )
    return Drawing(figure.update_xaxes(tickformat=".0%", matches="x"), table)


def steer(material: Material) -> Drawing | NotDrawn:
    """Return detection and coherence by where steering acts, on the same cells."""
    modes = material.design.groupby("model")["steer"].nunique()
    if not (modes > 1).any():
        return NotDrawn("every model was steered in one mode")
    rows, cells = _each_model(material, ["steer"], [name for name in CELL if name != "steer"])
    rows = rows[rows["model"].isin(modes[modes > 1].index)]
    if rows.empty:
        return NotDrawn("no cell is there in all modes of a model")
    measure = material.measure(rows)
    by = ["model", "steer"]
    rates, single = material.rates(rows, by, [measure, "coherence"]), material.singles(rows, by, measure)
    of_rows = {"row": "steer", "series": "model"}
    summary = pd.concat([means(rates, panel=name, measure=name, **of_rows) for name in (measure, "coherence")])
    order = [*_MODES, *(name for name in dict.fromkeys(rows["steer"]) if name not in _MODES)]
    summary = ordered(summary, "row", order)
    figure = draw.dots(
        summary,
        units_of(single, panel=measure, **of_rows),
        [
            Panel(measure, HEADS[measure], LABELS[measure]),
            Panel("coherence", HEADS["coherence"], "share of replies", references=()),
        ],
        looks([name for name in material.models if (summary["series"] == name).any()]),
        title=captions.title(material, "steer"),
        subtitle=f"{captions.caption(material, rows)}. {AS_COUNTED}. {LARGE_SMALL}; {cells}. Clean replies are the "
        "same for all modes.",
        legend_lines=_lines(material),
    )
    return Drawing(figure.update_xaxes(tickformat=".0%"), summary)


def _each_model(material: Material, groups: list[str], cells: list[str]) -> tuple[pd.DataFrame, str]:
    """Return the rows in cells that all groups of a model have, model by model, and the numbers of cells."""
    parts: list[Matched] = []
    for model in material.models:
        parts.append(matched(material.steered[material.steered["model"] == model], groups, cells))
    whole = Matched(pd.concat([of.rows for of in parts]), sum(of.kept for of in parts), sum(of.dropped for of in parts))
    return whole.rows, whole.words


def _lines(material: Material) -> int:
    return 1 + len(material.models) // 4
