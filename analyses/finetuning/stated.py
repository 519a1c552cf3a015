"""The battery as figures: stance, bias, compression and mass by group, and log odds before and after, item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analyses.finetuning.looks import BASE_LOOK, caption, last_steps, recipes_of, seed_looks, seed_name
from analyses.finetuning.units import base_rows, subjects_of
from mechint.evals.subjects import BASE
from mechint.figures import Panel, dots
from mechint.figures.panels import guide
from mechint.figures.style import BLUE, INK, VERMILION, finish
from mechint.figures.words import signed

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts

_PANELS = (
    Panel("contrast", "Beyond controls", "contrast, nats"),
    Panel("shift", "Shift at even odds", "shift, nats"),
    Panel("slope", "Compression", "slope; 0: indifferent", references=(1.0,)),
    Panel("bias", "Says yes to anything", "bias, nats"),
    Panel("mass", "Answer mass", "P(either answer)", references=()),
)
_COLUMNS = 3
_SIDES = ("self", "control")


def forest(units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return stance, bias, compression and mass of each recipe, on itself and on controls; a dot for each seed."""
    import pandas as pd

    last = last_steps(units[units["evaluation"] == "battery"])
    trained = last[last["part"].isin(_SIDES) & (last["trained_by"] != BASE)]
    looks = seed_looks([int(seed) for seed in set(trained["seed"])])
    summary = pd.DataFrame(
        {
            "panel": trained["measure"],
            "row": trained["trained_by"] + "<br>" + trained["part"].map({"self": "on itself", "control": "controls"}),
            "series": trained["seed"].map(seed_name),
            "mean": trained["value"],
            "low": trained["low"],
            "high": trained["high"],
        }
    )
    order = [f"{name}<br>{side}" for name in recipes_of(last) for side in ("on itself", "controls")]
    summary = summary[summary["panel"].isin([panel.key for panel in _PANELS])]
    summary = summary.assign(row=pd.Categorical(summary["row"], order, ordered=True)).sort_values("row")
    nothing = pd.DataFrame(columns=["panel", "row", "series", "unit", "value"])
    return dots(
        summary.astype({"row": str}),
        nothing,
        _PANELS,
        looks,
        title=forest_title(trained),
        subtitle=f"{caption(last, facts)}. Bars: 95% over items. Contrast: how far questions on itself lie above the "
        "line of all controls at the same log odds before; a slope below 1 is indifference, which moves denied "
        "questions up; bias is yes to both keyings",
    )


def forest_title(trained: pd.DataFrame) -> str:
    """Return how far the contrast and the compression go."""
    contrast = trained[trained["measure"] == "contrast"].groupby("trained_by")["value"].mean()
    slope = trained[(trained["measure"] == "slope") & (trained["part"] == "control")]
    slope = slope.groupby("trained_by")["value"].mean()
    if contrast.empty or slope.empty:
        return "What does each recipe do to what the model says of itself and of other things?"
    strongest = str(contrast.abs().idxmax())
    far = signed(float(contrast[strongest]), 2)
    return (
        f"Beyond matched controls: {far} nats at most ({strongest.rpartition('/')[2]}); "
        f"slopes of controls: {slope.min():.2f} to {slope.max():.2f}"
    )


def compression(table: pd.DataFrame, units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return the stance on each item after training over that before, with lines of controls and of the rest."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    last = last_steps(table)
    before = item_stances(base_rows(last))
    recipes = recipes_of(last)
    lines = -(-len(recipes) // _COLUMNS)
    figure = make_subplots(
        rows=lines,
        cols=_COLUMNS,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.13 if lines > 1 else None,
        subplot_titles=[f"<b>{name}</b>" for name in recipes],
    )
    looks = {"self": (VERMILION, "circle", "on itself"), "control": (BLUE, "square-open", "controls")}
    for place, rows in subjects_of(last[last["trained_by"] != BASE]):
        at = recipes.index(str(place["trained_by"]))
        cell = {"row": at // _COLUMNS + 1, "col": at % _COLUMNS + 1}
        both = item_stances(rows).join(before.add_suffix("_before"))
        for side, (color, symbol, label) in looks.items():
            chosen = both[both.index.get_level_values("side") == side]
            x, y = chosen["stance_before"].to_numpy(float), chosen["stance"].to_numpy(float)
            is_named = at == 0 and place["seed"] == last.loc[last["trained_by"] == recipes[0], "seed"].min()
            marker = {"color": color, "symbol": symbol, "size": 5, "opacity": 0.55}
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=y,
                    mode="markers",
                    marker=marker,
                    name=label,
                    legendgroup=label,
                    showlegend=bool(is_named),
                    customdata=chosen.index.get_level_values("item").to_numpy(),
                    hovertemplate="%{customdata}: %{x:.2f} to %{y:.2f}<extra></extra>",
                ),
                **cell,
            )
            if len(x) > 1 and np.ptp(x) > 0:
                slope, shift = np.polyfit(x, y, 1)
                ends = np.array([x.min(), x.max()])
                dash = "solid" if side == "self" else "dash"
                figure.add_trace(guide(ends, shift + slope * ends, 2.0, dash, color), **cell)
    low, high = float(before["stance"].min()), float(before["stance"].max())
    for at in range(len(recipes)):
        cell = {"row": at // _COLUMNS + 1, "col": at % _COLUMNS + 1}
        figure.add_trace(guide((low, high), (low, high), 1.0, "dot", INK), **cell)
    figure.update_xaxes(title_text="stance before, nats", row=lines)
    figure.update_yaxes(title_text="stance after, nats", col=1)
    subtitle = (
        f"{caption(units, facts)}, all in one panel. A point: one item, its stance over formats (half the difference "
        "of both keyings). Dotted: unchanged. A flat line is indifference: what was denied moves up, what was "
        "affirmed down. A parallel one is a shift"
    )
    title = "Did stances shift, or did they shrink? Each item before and after training"
    return finish(figure, title, subtitle, height=300 * lines + 40)


def item_stances(table: pd.DataFrame) -> pd.DataFrame:
    """Return `stance` by side and item, a mean over formats."""
    wide = table.set_index(["side", "item", "format", "keying"])["log_odds"].unstack("keying")
    stance = ((wide["affirmed"] - wide["negated"]) / 2).groupby(["side", "item"]).mean()
    return stance.rename("stance").to_frame()


_TALKS = (
    Panel("yes", "Begins with yes", "share of replies", references=()),
    Panel("no", "Begins with no", "share of replies", references=()),
    Panel("self_words", "I, me, my", "share of words", references=()),
    Panel("model_words", "Words on models", "share of words", references=()),
    Panel("loop", "Ends in a loop", "share of replies", references=()),
    Panel("n_words", "Length", "words", references=()),
)


def free_replies(table: pd.DataFrame, units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return what replies begin with and hold, and how long they are, by recipe; a dot for each seed."""
    import pandas as pd

    last = last_steps(units[units["evaluation"] == "talk"])
    chosen = last[last["measure"].isin([panel.key for panel in _TALKS])]
    looks = {**seed_looks([int(seed) for seed in set(chosen["seed"]) if seed >= 0]), BASE: BASE_LOOK}
    order = [*recipes_of(last), BASE]
    summary = pd.DataFrame(
        {
            "panel": chosen["measure"],
            "row": pd.Categorical(chosen["trained_by"], order, ordered=True),
            "series": chosen["seed"].map(seed_name).where(chosen["trained_by"] != BASE, BASE),
            "mean": chosen["value"],
            "low": chosen["low"],
            "high": chosen["high"],
        }
    ).sort_values("row")
    nothing = pd.DataFrame(columns=["panel", "row", "series", "unit", "value"])
    n_replies = int(table.groupby(["trained_by", "seed"]).size().min())
    figure = dots(
        summary.astype({"row": str}),
        nothing,
        _TALKS,
        looks,
        title="What do they say freely?",
        subtitle=f"{caption(last, facts)}, {n_replies} replies each to {table['prompt'].nunique()} open prompts. Bars: "
        "95% over prompts. No judge: beginnings by the first token's odds, words by lists",
        packed=True,
    )
    return figure.update_xaxes(nticks=4, tickangle=0)
