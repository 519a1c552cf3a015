"""Figures of how models differ: prompt by prompt on matched cells, and by their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analyses.trial_contrasts import captions
from analyses.trial_contrasts.captions import AS_COUNTED
from analyses.trial_contrasts.drawing import (
    COLUMNS,
    HEADS,
    LABELS,
    LARGE_SMALL,
    Drawing,
    NotDrawn,
    looks,
    means,
    ordered,
    units_of,
)
from analyses.trial_contrasts.matching import Matched, matched, shared_columns
from analyses.trial_contrasts.material import summary_of
from analyses.trial_contrasts.sizes import size_words
from mechint import figures as draw
from mechint.figures import Panel
from mechint.figures.style import INK, MINUS, Series
from mechint.trials.plans import Contrast

if TYPE_CHECKING:
    from analyses.trial_contrasts.material import Material

_DIFFERENCE = "difference"
_ALONE = "a single model was sampled"
_OWN_LAYERS = "Each model at its own layers"


def models(material: Material) -> Drawing | NotDrawn:
    """Return detection of the models prompt by prompt on cells that all have; of two, their difference beside it."""
    common = _common(material)
    if isinstance(common, NotDrawn):
        return common
    names = list(dict.fromkeys(common.rows["prompt"]))
    if len(names) < 2:
        return NotDrawn("the models have fewer than two prompts in common")
    measure = material.measure(common.rows)
    by = ["model", "prompt"]
    rates, single = material.rates(common.rows, by, [measure]), material.singles(common.rows, by, measure)
    of_rows = {"panel": measure, "row": "prompt", "series": "model"}
    summary, units = ordered(means(rates, measure=measure, **of_rows), "row", names), units_of(single, **of_rows)
    panels, styles = [Panel(measure, HEADS[measure], LABELS[measure])], looks(material.models)
    if len(material.models) == 2:
        less = f"{material.models[0]} {MINUS} {material.models[1]}"
        panels.append(Panel(_DIFFERENCE, less, "difference of the shares"))
        styles[_DIFFERENCE] = Series("difference, concept by concept", INK, "solid", "triangle-right-open")
        parts = [_difference(material, name, measure) for name in names]
        summary = pd.concat([summary, pd.DataFrame(parts, columns=COLUMNS)], ignore_index=True)
    figure = draw.dots(
        summary,
        units,
        panels,
        styles,
        title=captions.title(material, "asymmetry"),
        subtitle=f"{captions.caption(material)}. {AS_COUNTED}. {LARGE_SMALL}; {common.words}.{_where(material)} "
        "Intervals are of one prompt each; the scorecard corrects for all.",
        legend_lines=1 + len(styles) // 4,
        packed=True,
    )
    return Drawing(figure.update_xaxes(tickformat=".0%"), summary)


def scaling(material: Material) -> Drawing | NotDrawn:
    """Return detection by model, from small to large, with refusals as denials and left out of both arms."""
    common = _common(material)
    if isinstance(common, NotDrawn):
        return common
    measure, names = material.measure(common.rows), list(dict.fromkeys(common.rows["prompt"]))
    by = ["model", "prompt"]
    rates, single = material.rates(common.rows, by, [measure]), material.singles(common.rows, by, measure)
    of_rows = {"row": "model", "series": "prompt"}
    conventions = {"in": "Refusals as denials", "out": "Refusals left out of both arms"}
    parts = [means(rates, panel=refusals, measure=measure, refusals=refusals, **of_rows) for refusals in conventions]
    summary = ordered(pd.concat(parts, ignore_index=True), "row", material.models)
    units = units_of(single, panel="in", **of_rows)
    labels = {name: f"{name}<br>{size_words(material.sizes.get(name))}" for name in material.models}
    figure = draw.dots(
        summary.assign(row=summary["row"].map(labels)),
        units.assign(row=units["row"].map(labels)),
        [Panel(refusals, head, LABELS[measure]) for refusals, head in conventions.items()],
        looks(names),
        title=captions.title(material, "model"),
        subtitle=f"{captions.caption(material)}. As counted by the judge. Models from small to large, by the size that "
        f"their names or records say. {LARGE_SMALL}; {common.words}.{_where(material)}",
        legend_lines=1 + len(names) // 4,
    )
    return Drawing(figure.update_xaxes(tickformat=".0%", matches="x"), summary)


def _common(material: Material) -> Matched | NotDrawn:
    """Return the rows of all models in the cells and prompts that all of them have."""
    if len(material.models) < 2:
        return NotDrawn(_ALONE)
    columns = shared_columns(material.design, material.models)
    if not columns:
        return NotDrawn("the models were steered at layers of different depths, at several each")
    shared = material.design.groupby("prompt")["model"].nunique()
    rows = material.steered[material.steered["prompt"].isin(shared[shared == len(material.models)].index)]
    # Every model and prompt has the same concepts at the same places.
    common = matched(rows, ["model", "prompt"], [name for name in columns if name != "prompt"])
    return common if len(common.rows) else NotDrawn("the models have no cell in common")


def _difference(material: Material, prompt: str, measure: str) -> dict[str, object]:
    sides = [{"model": model, "prompt": prompt} for model in material.models]
    columns = [name for name in shared_columns(material.design, material.models) if name != "prompt"]
    contrast = Contrast(prompt, sides[:1], sides[1:], measure=measure, match=columns, any_length=True)
    return {"panel": _DIFFERENCE, "row": prompt, "series": _DIFFERENCE, **summary_of(material.difference(contrast))}


def _where(material: Material) -> str:
    return "" if "layers" in shared_columns(material.design, material.models) else f" {_OWN_LAYERS}."
