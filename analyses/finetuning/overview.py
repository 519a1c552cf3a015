"""The overview: a row for each recipe, a small panel for each evaluation, a dot with its interval for each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analyses.finetuning.looks import BASE_LOOK, caption, last_steps, measured, recipes_of, seed_looks, seed_name
from mechint.evals.subjects import BASE
from mechint.figures.panels import DOTTED
from mechint.figures.style import INK, MINUS, Series, finish

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts

_ROW, _GAP, _COLUMNS = 30, 96, 4  # pixels: a row of a panel, and what stands between two lines of panels
_SPAN = 0.6  # of a row, that its seeds take


@dataclass(frozen=True)
class Shown:
    """A panel: where its measure stands in the table of units, how it is called, and the value of no effect.

    `within` are ends of the axis, for measures that are to be seen on their whole scale.
    """

    evaluation: str
    part: str
    measure: str
    title: str
    label: str
    neutral: float = 0.0
    within: tuple[float, float] | None = None


SHOWN = (
    Shown("detection", "held-out", "auc", "Steered told from clean", "area, held-out vectors", 0.5, (-0.03, 1.03)),
    Shown(
        "detection",
        "held-out",
        "auc_above_control",
        "Beyond its control question",
        f"area {MINUS} area of control question",
    ),
    Shown("detection", "odd", "auc", "Odd text called steered", "area, odd against clean", 0.5, (-0.03, 1.03)),
    Shown("detection", "held-out", "mass", "Still gives its answers", "mass of both answers", 1.0, (-0.03, 1.03)),
    Shown("battery", "self", "contrast", "Affirms of itself", "contrast with controls, nats"),
    Shown("battery", "control", "bias", "Says yes to anything", "bias, nats"),
    Shown("battery", "control", "slope", "Keeps its opinions", "slope, 0: indifferent", 1.0),
    Shown("multiturn", "self", "right", "A right answer moves it", "effect on stance, nats"),
    Shown("multiturn", "self", "stated", "A stated yes moves it", "effect on stance, nats"),
    Shown("realtime", "fill", "lift_above_leakage", "Names what was added", f"lift {MINUS} leakage, nats"),
    Shown("talk", "", "self_words", "Speaks of itself", "share of words: I, me, my"),
    Shown("talk", "", "loop", "Talks in loops", "share of replies"),
    Shown("self_prediction", "", "kappa", "Foretells its answers", "kappa"),
    Shown("self_prediction", "", "advantage", "Better than others do", "accuracy beyond other models"),
    Shown("calibration", "choice closed", "gain", "Reports its own odds", "gain over other reports, bits"),
    Shown("lengths", "length", "gain", "Guesses its lengths", "words nearer than the best other"),
    Shown("ability", "neutral", "kl", "Drift on neutral text", "KL from base, nats per token"),
)


def overview(units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return the figure; lines across rows are the base, asked in the words of that row's recipe."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    last = with_strongest(last_steps(units))
    rows, looks = recipes_of(last), seed_looks([int(seed) for seed in set(last["seed"]) if seed >= 0])
    panels = [panel for panel in SHOWN if len(measured(last, panel.evaluation, panel.part, panel.measure))]
    lines = -(-len(panels) // _COLUMNS)
    height = lines * (_ROW * len(rows) + _GAP)
    figure = make_subplots(
        rows=lines,
        cols=_COLUMNS,
        shared_yaxes=True,
        horizontal_spacing=0.025,
        vertical_spacing=_GAP / height,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )
    for at, panel in enumerate(panels):
        place = {"row": at // _COLUMNS + 1, "col": at % _COLUMNS + 1}
        values = measured(last, panel.evaluation, panel.part, panel.measure)
        for name, style in looks.items():
            of_seed = values[values["seed"].map(seed_name) == name]
            figure.add_trace(_dots(of_seed, rows, looks, style, legend=at == 0), **place)
        figure.add_trace(_base_lines(values[values["trained_by"] == BASE], rows, legend=at == 0), **place)
        figure.add_vline(panel.neutral, line=DOTTED, **place)
        figure.update_xaxes(title={"text": panel.label, "font": {"size": 12}}, nticks=5, range=panel.within, **place)
    figure.update_annotations(font_size=13)
    places = [len(rows) - 1 - at for at in range(len(rows))]
    figure.update_yaxes(tickvals=places, ticktext=rows, range=[-0.5, len(rows) - 0.5], ticks="", automargin=True)
    done = finish(figure, overview_title(last), overview_subtitle(last, facts), height=height, bottom=70)
    assert isinstance(done, go.Figure)
    return done


def with_strongest(units: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the rows of the strongest dose of naming also under the name of their mode alone."""
    import pandas as pd

    naming = units[units["evaluation"] == "realtime"]
    if naming.empty:
        return units
    doses = naming["part"].str.rpartition(" ")
    strongest = naming[doses[2].astype(float) == doses[2].astype(float).max()]
    return pd.concat([units, strongest.assign(part=strongest["part"].str.partition(" ")[0])], ignore_index=True)


def overview_title(last: pd.DataFrame) -> str:
    """Return which recipes tell steered turns beyond what moves their control question too, by every seed."""
    values = measured(last, "detection", "held-out", "auc_above_control")
    trained = values[values["trained_by"] != BASE]
    if trained.empty:
        return "What did training change?"
    surely = trained.groupby("trained_by", sort=False)["low"].min() > 0
    names = [str(name).rpartition("/")[2] for name in surely.index[surely]]
    if not names:
        return "No recipe tells steered turns beyond what moves its control question too"
    if len(names) == len(surely):
        return "All recipes tell steered turns beyond what moves their control question too"
    return f"Only {_listed(names)} told steered turns beyond what moves the control question too"


def overview_subtitle(last: pd.DataFrame, facts: Facts) -> str:
    """Return how the figure is read."""
    return (
        f"{caption(last, facts)}. A dot: one seed, with its 95% interval over what that run was asked (vectors and "
        "texts, items, concepts, prompts), which says nothing of other seeds. Dashed lines: the base, asked in the "
        "words of that recipe where these differ. Dotted: no effect"
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _dots(
    values: pd.DataFrame, rows: Sequence[str], looks: Mapping[str, Series], style: Series, *, legend: bool
) -> go.Scatter:
    import plotly.graph_objects as go

    at = list(looks).index(style.label)
    shift = _SPAN * ((at + 0.5) / len(looks) - 0.5)
    y = [len(rows) - 1 - rows.index(str(name)) - shift for name in values["trained_by"]]
    x = values["value"].to_numpy(float)
    low, high = values["low"].to_numpy(float), values["high"].to_numpy(float)
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        name=style.label,
        legendgroup=style.label,
        showlegend=legend,
        marker={"color": style.color, "symbol": style.symbol, "size": 8},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(high - x),
            "arrayminus": np.nan_to_num(x - low),
            "color": style.color,
            "thickness": 1.5,
            "width": 0,
        },
        customdata=np.column_stack([low, high]),
        hovertemplate=f"{style.label} %{{x:.3g}} [%{{customdata[0]:.3g}}, %{{customdata[1]:.3g}}]<extra></extra>",
    )


def _base_lines(base: pd.DataFrame, rows: Sequence[str], *, legend: bool) -> go.Scatter:
    """Return a line across each row where the base is; one that was asked in no recipe's words is across all."""
    import plotly.graph_objects as go

    x: list[float | None] = []
    y: list[float | None] = []
    for record in base.to_dict("records"):
        asked_by = str(record["asked_by"])
        spans = [asked_by] if asked_by in rows else list(rows) if not asked_by else []
        for name in spans:
            height = len(rows) - 1 - list(rows).index(name)
            x += [float(record["value"])] * 2 + [None]
            y += [height - 0.42, height + 0.42, None]
    line = {"color": INK, "width": 2, "dash": "dash"}
    return go.Scatter(
        x=[*x, None],
        y=[*y, None],
        mode="lines",
        line=line,
        name=BASE_LOOK.label,
        legendgroup=BASE_LOOK.label,
        showlegend=legend,
        hoverinfo="skip",
    )
