"""Detection as figures: areas by range of layers and dose, curves of hits over alarms, and transfer to other words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analyses.finetuning.looks import caption, last_steps, recipe_looks, recipes_of
from analyses.finetuning.units import HELD_OUT, subjects_of
from mechint.evals.subjects import BASE
from mechint.figures import HeatPanel, Scale, heatmap
from mechint.figures.panels import guide
from mechint.figures.style import BLUE, MINUS, VERMILION, finish
from mechint.stats.intervals import Interval
from mechint.stats.signal_detection import auc

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts

_POOLS = ("trained", HELD_OUT)
_AREA = Scale("area", 0.0, 1.0, ((0.0, BLUE), (0.5, "#FFFFFF"), (1.0, VERMILION)))


def cells(table: pd.DataFrame, units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return the areas of each recipe by layers and dose, means over seeds, held-out vectors beside trained ones."""
    own = table[(table["trained_by"] == table["asked_by"]) & (table["question"] == "own")]
    last = last_steps(own)
    recipes, columns = recipes_of(last), _places(last)
    values: dict[tuple[str, str, str], list[float]] = {}
    for place, rows in subjects_of(last):
        clean = rows[rows["kind"] == "clean"]["score"].to_numpy(np.float64)
        steered = rows[rows["kind"] == "steered"]
        for (pool, layers, dose), cell in steered.groupby(["pool", "layers", "dose"], sort=False):
            area = auc(cell["score"].to_numpy(np.float64), clean)
            values.setdefault((str(pool), str(place["trained_by"]), _place(layers, dose)), []).append(area)
    panels = []
    for pool in _POOLS:
        cells_of_pool = [[values.get((pool, recipe, column), [np.nan]) for column in columns] for recipe in recipes]
        means = np.array([[float(np.mean(seeds)) for seeds in row] for row in cells_of_pool])
        nothing = np.full_like(means, np.nan)
        title = "Trained vectors" if pool == "trained" else "Held-out vectors"
        panels.append(HeatPanel(title, Interval(means, nothing, nothing, 0), mark=""))
    reached = np.nanmax(panels[1].values.mean) if len(recipes) else float("nan")
    return heatmap(
        panels,
        _AREA,
        rows=recipes,
        columns=columns,
        title=f"Where is steering told from clean? Held-out vectors: areas up to {reached:.2f}",
        subtitle=f"{caption(units, facts)}. Area under the curve in the recipe's own words, means over seeds; 0.5 is "
        "chance. Columns: blocks that a vector was added to, and its dose in norms of the base's stream",
        column_label="layers, dose",
        per_line=1,
    )


def _places(table: pd.DataFrame) -> list[str]:
    steered = table[table["kind"] == "steered"]
    pairs = dict.fromkeys(zip(steered["layers"], steered["dose"], strict=True))
    return list(dict.fromkeys(_place(*pair) for pair in sorted(pairs, key=lambda pair: (_first(pair[0]), pair[1]))))


def _place(layers: object, dose: object) -> str:
    return f"{layers}<br>{float(str(dose)):g}"


def _first(layers: object) -> tuple[int, str]:
    return int(str(layers).partition(":")[0]), str(layers)


def curves_of_hits(table: pd.DataFrame, units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return hits over alarms of each recipe: held-out vectors, trained ones, and odd text with nothing added."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    last = last_steps(table)
    own = last[(last["question"] == "own")]
    recipes = recipes_of(own)
    looks = recipe_looks(recipes)
    titles = {HELD_OUT: "Held-out vectors", "trained": "Trained vectors", "odd": "Odd text, nothing added"}
    figure = make_subplots(
        cols=len(titles),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=[f"<b>{t}</b>" for t in titles.values()],
    )
    reference = recipes[0] if recipes else ""
    for column, pool in enumerate(titles, start=1):
        for place, rows in subjects_of(own):
            name = str(place["trained_by"])
            if name == BASE and place["asked_by"] != reference:
                continue
            positive, clean = rows[rows["pool"] == pool]["score"], rows[rows["kind"] == "clean"]["score"]
            hits, alarms = roc(positive.to_numpy(float), clean.to_numpy(float))
            style = looks[name]
            is_first = place["seed"] in (-1, own[own["trained_by"] == name]["seed"].min())
            trace = go.Scatter(
                x=alarms,
                y=hits,
                mode="lines",
                line={"color": style.color, "dash": style.dash, "width": 2},
                name=style.label,
                legendgroup=style.label,
                showlegend=bool(column == 1 and is_first),
                hovertemplate=f"{style.label}, seed {place['seed']}: %{{y:.2f}} at %{{x:.2f}}<extra></extra>",
            )
            figure.add_trace(trace, row=1, col=column)
        figure.add_trace(guide((0, 1), (0, 1), 1.0, "dot"), row=1, col=column)
        figure.update_xaxes(title_text="false alarms, share of clean texts", range=[-0.02, 1.02], row=1, col=column)
    figure.update_yaxes(range=[-0.02, 1.02])
    figure.update_yaxes(title_text="hits, share of trials", row=1, col=1)
    subtitle = (
        f"{caption(units, facts)}, a line each, all layers and doses together. Right: clean texts with their words in "
        f"another order; who reports these detects oddity. Base: asked as {reference} is"
    )
    return finish(
        figure, "Hits over false alarms, by what is to be told from clean text", subtitle, height=360, bottom=110
    )


def roc(positive: np.ndarray, negative: np.ndarray) -> tuple[list[float], list[float]]:
    """Return hits and alarms at every threshold, from the highest down; ties are one step."""
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    hits = [0.0, *[float((positive >= threshold).mean()) for threshold in thresholds]]
    alarms = [0.0, *[float((negative >= threshold).mean()) for threshold in thresholds]]
    return hits, alarms


def transferred(units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return the areas of each recipe in each way of asking, means over seeds, less that of the control question."""
    last = last_steps(units[units["evaluation"] == "transfer"])
    recipes = [*recipes_of(last), *([BASE] if (last["trained_by"] == BASE).any() else [])]
    ways = list(dict.fromkeys(last["part"]))
    wide = last.groupby(["trained_by", "measure", "part"], sort=False)["value"].mean().unstack("part")
    panels = []
    for measure, title in (("auc", "Area"), ("auc_above_control", f"Area {MINUS} area of the control question")):
        values = np.array([[_at(wide, (recipe, measure), way) for way in ways] for recipe in recipes])
        nothing = np.full_like(values, np.nan)
        scale = "area" if measure == "auc" else "above"
        panels.append(HeatPanel(title, Interval(values, nothing, nothing, 0), scale=scale, mark=""))
    above = Scale("difference", -1.0, 1.0)
    best = wide.xs("auc_above_control", level="measure").drop(index=BASE, errors="ignore").max(axis=1)
    moved = int((best > 0.2).sum()) if len(best) else 0
    return heatmap(
        panels,
        {"area": _AREA, "above": above},
        rows=recipes,
        columns=[_broken(way) for way in ways],
        title=f"Who knows in other words? {moved} of {len(best)} recipes exceed their control question by 0.2 in any",
        subtitle=f"{caption(units, facts)}. Held-out vectors and texts; means over seeds. Columns: bank of questions, "
        "then the answer for steered / for clean",
        per_line=1,
    )


def _at(wide: pd.DataFrame, row: tuple[str, str], column: str) -> float:
    return float(wide.loc[row, column]) if row in wide.index and column in wide else float("nan")


def _broken(way: str) -> str:
    bank, _, answers = way.partition(": ")
    return f"{bank.replace('keyed-', 'keyed,<br>')}<br>{answers}"
