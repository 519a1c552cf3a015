"""The logit-lens table as figures: overview, a panel per concept, and heatmaps of the layer sweep. Needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.kit.option_types import parse_layers
from mechint import figures as draw
from mechint import stats
from mechint.figures import HeatPanel, Panel, Scale
from mechint.figures.style import CONTROL_GROUPS, INK, METRICS, MINUS, SERIES, layer_position
from mechint.figures.words import bounded
from mechint.stats.bands import Marks

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.kit.dose import Dose
    from analyses.logit_lens import Config

_ANSWER_NO = ("no", "confusing-no")
_PANELS = {
    "question": "Introspection question",
    "no": "Control questions, answer no",
    "random": "Random vectors, introspection",
    "minus no": f"Introspection {MINUS} control (no)",
    "minus random": f"Introspection {MINUS} random",
    "yes": "Control questions, answer yes",
}
_KEYS = ["panel", "series", "layer"]
_CLEAN = "-clean"
_LOOKS = {name: SERIES[name] for name in ("clean", "injected", "random", *CONTROL_GROUPS)}
_UNIT_INTERVAL = [-0.03, 1.03]  # with room for the lines at its ends
_INVISIBLE = 0.05  # shifts of a probability below this are not blown up to fill the panel
_PER_PAGE = 12  # panels


def figures(table: pd.DataFrame, config: Config, dose: Dose, model: str) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    main = table[table["sweep"] == "main"]
    caption = _caption(main, config, dose, model)
    drawn = {"lens_overview": overview(main, config, dose, caption)}
    pages = concept_pages(main, config, dose, caption)
    names = ["lens_concepts", *(f"lens_concepts_{number}" for number in range(2, len(pages) + 1))]
    drawn |= dict(zip(names, pages, strict=True))
    for sweep in ("single", "window"):
        rows = table[table["sweep"] == sweep]
        if not rows.empty:
            drawn[f"lens_sweep_{sweep}"] = sweep_figure(rows, sweep, config, dose, model)
    return drawn


def overview(main: pd.DataFrame, config: Config, dose: Dose, caption: str) -> go.Figure:
    """Return the figure with all concepts: introspection question, control questions, and shifts."""
    values = _values(main, config.metric)
    curves = stats.group_means(values, _KEYS, "value", unit="unit", within=_within(config.metric))
    thin = curves["series"].str.endswith(_CLEAN)
    metric = METRICS[config.metric]
    panels = [
        Panel("question", "Introspection question", metric, references=(), height=290),
        Panel("control", "Control questions (thin: clean)", metric, references=(), height=290),
        Panel(
            "shift",
            "Shift against clean: only this can be read as an effect of the injection",
            f"shift of {metric}",
            height=350,
            wide=True,
        ),
    ]
    figure = draw.curves(
        curves.assign(low=curves["low"].mask(thin), high=curves["high"].mask(thin)),
        panels,
        _LOOKS | {f"{name}{_CLEAN}": replace(_LOOKS[name], width=1.0, symbol="") for name in CONTROL_GROUPS},
        units=values[values["series"] == "injected"],
        injected_layers=dose.layers,
        legend_lines=2,
        title=_finding(curves, config.metric),
        subtitle=f"{caption}. Thick: mean over concepts, band: its 95% interval over concepts (random vectors: over "
        "vectors), thin: single concepts, shaded: injected layers.",
    )
    if config.metric == "p_yes":
        figure.update_yaxes(range=_UNIT_INTERVAL, row=1)
        if values.loc[values["panel"] == "shift", "value"].abs().max() < _INVISIBLE:
            figure.update_yaxes(range=[-_INVISIBLE, _INVISIBLE], row=2)
    return figure


def _values(main: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return panel, series, layer, unit (the vector), value: what the overview draws, averaged over conversations."""
    introspection, control = main[main["kind"] == "introspection"], main[main["kind"] == "control"]
    question = introspection.assign(panel="question")
    controls = control.assign(
        panel="control", series=control["group"].where(control["series"] != "clean", control["group"] + _CLEAN)
    )
    shifted = [question[introspection["series"] != "clean"], controls[control["series"] != "clean"]]
    levels = pd.concat([question, controls]).assign(value=lambda rows: rows[metric])
    shifts = pd.concat(shifted).assign(panel="shift", value=lambda rows: rows[f"{metric}_shift"])
    rows = pd.concat([levels, shifts])
    return stats.strict_means(rows, ["panel", "series", "unit", "layer"], "value").reset_index()


def _within(metric: str) -> dict[str, tuple[float, float]]:
    """Return the bounds of a metric by panel; shifts have none."""
    return dict.fromkeys(("question", "control"), stats.RANGES[metric]) if metric in stats.RANGES else {}


def _finding(curves: pd.DataFrame, metric: str) -> str:
    """Say what happened at the output, the one layer that nobody chose; a shift that may be none is called so."""
    last = max(curves["layer"], key=layer_position)
    output = curves[curves["layer"] == last].set_index(["panel", "series"])
    clean = output.loc[("question", "clean"), "mean"]
    injected = output.loc[("question", "injected"), "mean"]
    shift, low, high = output.loc[("shift", "injected"), ["mean", "low", "high"]]
    label = METRICS[metric]
    if low <= 0 <= high:
        ends = bounded(shift, low, high, _signed)
        parts = [f"At the output, injected concepts do not move {label} for certain: {ends} from {_number(clean)}"]
    else:
        parts = [f"At the output, an injected concept moves {label} from {_number(clean)} to {_number(injected)}"]
    shifts = {series: mean for (panel, series), mean in output["mean"].items() if panel == "shift"}
    if "random" in shifts:
        parts.append(f"a random vector shifts it by {_signed(shifts['random'])}")
    if controls := [shifts[group] for group in CONTROL_GROUPS if group in shifts]:
        parts.append(f"control questions shift by at most {_signed(max(controls, key=abs))} (group mean)")
    return "; ".join(parts)


def _signed(value: float) -> str:
    return _number(value, sign="+")


def _number(value: float, sign: str = "") -> str:
    """Two decimals, or one significant digit where these would show nothing."""
    digits = ".2f" if abs(value) >= 0.005 or value == 0 else ".1g"
    return format(value, f"{sign}{digits}").replace("-", MINUS)


def concept_pages(main: pd.DataFrame, config: Config, dose: Dose, caption: str) -> list[go.Figure]:
    """Return small multiples: per concept clean, injected, controls answered no, and the band of random vectors."""
    concepts = list(dict.fromkeys(main.loc[main["series"] == "injected", "unit"]))
    values = _values(main, config.metric)
    values = values[values["panel"] != "shift"]
    by_concept = values[values["unit"].isin(concepts) & values["series"].isin(["injected", "no"])]
    clean = _everywhere(values[values["series"] == "clean"].rename(columns={"value": "mean"}), concepts)
    random = stats.group_means(
        values[values["series"] == "random"],
        ["series", "layer"],
        "value",
        unit="unit",
        within=stats.RANGES.get(config.metric),
    )
    by_panel = by_concept.assign(panel=by_concept["unit"]).rename(columns={"value": "mean"})
    curves = pd.concat([clean, by_panel, _everywhere(random, concepts)])
    curves = curves.reindex(columns=["panel", "series", "layer", "mean", "low", "high"])
    pages = [concepts[start : start + _PER_PAGE] for start in range(0, len(concepts), _PER_PAGE)]
    which = [f" (page {number + 1} of {len(pages)})" if len(pages) > 1 else "" for number in range(len(pages))]
    return [_concept_page(curves, page, config, dose, caption, words) for page, words in zip(pages, which, strict=True)]


def _concept_page(
    curves: pd.DataFrame, concepts: Sequence[str], config: Config, dose: Dose, caption: str, which: str
) -> go.Figure:
    metric = METRICS[config.metric]
    figure = draw.curves(
        curves,
        [Panel(concept, concept, metric, references=(), height=200) for concept in concepts],
        _LOOKS,
        columns=4,
        injected_layers=dose.layers,
        title=f"{metric} by layer for each injected concept{which}",
        subtitle=f"{caption}. The clean curve and the random vectors' mean and 95% interval are the same in every "
        "panel.",
    )
    return figure.update_yaxes(range=_y_range(curves["mean"], config.metric))


def _y_range(means: pd.Series, metric: str) -> list[float]:
    """Return the whole unit interval for probabilities, else the range of all curves; the same on every page."""
    if metric == "p_yes":
        return _UNIT_INTERVAL
    low, high = float(means.min()), float(means.max())
    margin = 0.05 * (high - low) or 1.0
    return [low - margin, high + margin]


def _everywhere(rows: pd.DataFrame, concepts: Sequence[str]) -> pd.DataFrame:
    return pd.concat([rows.assign(panel=concept) for concept in concepts])


def sweep_figure(rows: pd.DataFrame, sweep: str, config: Config, dose: Dose, model: str) -> go.Figure:
    """Return heatmaps of injected layers x readout layer for question, controls, random vectors and differences."""
    spans = list(dict.fromkeys(rows["injected_layers"]))
    layers = sorted(dict.fromkeys(rows["layer"]), key=layer_position)
    placement = "one layer" if sweep == "single" else f"a window of {len(parse_layers(spans[0]))} layers"
    wording, marks = _wording(config), Marks(config.uncorrected)
    figure = draw.heatmap(
        _panels(rows, f"{config.metric}_shift", spans, layers, marks),
        Scale(f"shift of<br>{METRICS[config.metric]}"),
        rows=spans,
        columns=layers,
        row_label="injected layer" if sweep == "single" else "injected layers",
        column_label="readout layer",
        upward=True,
        numbers=False,
        title=f"Injecting at {placement}: where must a concept enter, and where can it be read?",
        subtitle=f"{model}, {wording}; {dose}; {_counts(rows)}; units are concepts (random: vectors). "
        f"{draw.sign_words(spans, layers)}: cells whose {marks.caption}, and whose shift is at least 2% of the scale. "
        f"Left of the staircase the injection cannot act on the answer. {draw.line_words(spans, layers)}".rstrip(),
    )
    # There the readout layer is at or below the first injected one: the shift is zero by construction.
    x = [parse_layers(text)[0] + 0.5 for text in spans for _ in range(2)]
    y = [row + side for row in range(len(spans)) for side in (-0.5, 0.5)]
    stairs = {"color": INK, "width": 1.5}
    return figure.add_scatter(
        x=x, y=y, mode="lines", line=stairs, hoverinfo="skip", showlegend=False, row="all", col="all"
    )


def _panels(
    rows: pd.DataFrame, value: str, spans: Sequence[str], layers: Sequence[str], marks: Marks
) -> list[HeatPanel]:
    """Return the panels whose data are there; differences are taken within concepts, or against all random vectors."""
    concept = rows[rows["series"] == "injected"]
    parts = {
        "question": concept[concept["kind"] == "introspection"],
        "no": concept[concept["group"].isin(_ANSWER_NO)],
        "random": rows[rows["series"] == "random"],
        "yes": concept[concept["group"] == "yes"],
    }
    cubes = {
        name: _cube(panel_rows, value, spans, layers) for name, panel_rows in parts.items() if not panel_rows.empty
    }
    shifts = {name: marks.mean(cube) for name, cube in cubes.items()}
    if "no" in cubes:
        shifts["minus no"] = marks.mean(cubes["question"] - cubes["no"])
    if "random" in cubes:
        shifts["minus random"] = marks.difference(cubes["question"], cubes["random"])
    return [HeatPanel(title, shifts[name]) for name, title in _PANELS.items() if name in shifts]


def _cube(
    rows: pd.DataFrame, value: str, spans: Sequence[str], layers: Sequence[str]
) -> Float[np.ndarray, "injected layers vectors"]:
    """Return values by injected layers, readout layer and vector, averaged over conversations."""
    wide = stats.unit_means(rows, ["injected_layers", "layer"], value, "unit")
    wide = wide.reindex(pd.MultiIndex.from_product([spans, layers]))
    return np.asarray(wide, dtype=np.float64).reshape(len(spans), len(layers), -1)


def _caption(main: pd.DataFrame, config: Config, dose: Dose, model: str) -> str:
    return f"{model}, {_wording(config)}; {dose.caption()}; {_counts(main)}"


def _wording(config: Config) -> str:
    return config.conversations.name if config.conversations else str(config.wording)


def _counts(rows: pd.DataFrame) -> str:
    concepts = rows.loc[rows["series"] == "injected", "unit"].nunique()
    randoms = rows.loc[rows["series"] == "random", "unit"].nunique()
    controls = {group: rows.loc[rows["group"] == group, "conversation"].nunique() for group in CONTROL_GROUPS}
    control_counts = ", ".join(f"{number} {group}" for group, number in controls.items() if number)
    return f"{concepts} concepts, {randoms} random vectors, control questions: {control_counts or 'none'}"
