"""Several turns, naming by dose, and effects of factors, as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyses.finetuning.effects import MEASURES
from analyses.finetuning.looks import caption, last_steps, recipe_looks, recipes_of, seed_looks, seed_name
from mechint.evals.subjects import BASE
from mechint.figures import Panel, curves, dots
from mechint.figures.style import INK, MINUS, Series

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts

_EFFECTS = (
    Panel("steering", "Steering", "nats"),
    Panel("stated", "A stated yes", "nats"),
    Panel("right", "A right answer", "nats"),
    Panel("stated_irrelevant", "The same word, else", "nats"),
    Panel("steering_without_turn", "Steering, no turn", "nats"),
)
_AXES = {"auc": "areas", "auc_above_control": "areas", "slope": "slopes"}
_TITLES = {
    ("detection", "auc"): "Told from clean",
    ("detection", "auc_above_control"): "Beyond control",
    ("battery", "contrast"): "Affirms of itself",
    ("battery", "bias"): "Says yes",
    ("battery", "slope"): "Keeps opinions",
    ("multiturn", "right"): "Right answers",
}


def turns(units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return effects of steering, of a stated answer and of its being right on stances on itself; a dot a seed."""
    import pandas as pd

    last = last_steps(units[(units["evaluation"] == "multiturn") & (units["part"] == "self")])
    chosen = last[last["measure"].isin([panel.key for panel in _EFFECTS])]
    seeds = sorted({int(seed) for seed in chosen["seed"] if seed >= 0})
    looks = {**seed_looks(seeds), BASE: Series(BASE, INK, "dot", "circle-open")}
    is_base = chosen["trained_by"] == BASE
    summary = pd.DataFrame(
        {
            "panel": chosen["measure"],
            "row": chosen["trained_by"].where(~is_base, chosen["asked_by"]),
            "series": chosen["seed"].map(seed_name).where(~is_base, BASE),
            "mean": chosen["value"],
            "low": chosen["low"],
            "high": chosen["high"],
        }
    )
    order = recipes_of(last)
    summary = summary.assign(row=pd.Categorical(summary["row"], order, ordered=True)).sort_values("row")
    nothing = pd.DataFrame(columns=["panel", "row", "series", "unit", "value"])
    right = chosen[(chosen["measure"] == "right") & ~is_base].groupby("trained_by")["low"].min()
    moved = [str(name).rpartition("/")[2] for name in right.index[right > 0]]
    finding = f"Whether a stated answer was right moves {', '.join(moved)}, beyond the word that was stated"
    if not moved:
        finding = "Whether a stated answer was right moves no recipe for sure, beyond the word that was stated"
    return dots(
        summary.astype({"row": str}),
        nothing,
        _EFFECTS,
        looks,
        title=finding,
        subtitle=f"{caption(last, facts)}. Effects on stances on itself, nats, with 95% over vectors and texts. "
        "A right answer: half the interaction of steering and stated answer. The same word, else: stated as the "
        "answer to a question on something else",
    )


def naming(units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return what steering adds to the concept's name, less the same to unrelated questions, over doses."""
    import pandas as pd

    rows = last_steps(units[units["evaluation"] == "realtime"])
    parts = rows["part"].str.partition(" ")
    rows = rows.assign(mode=parts[0], dose=parts[2].astype(float))
    panels = [
        Panel("fill lift_above_leakage", "First turns steered: name above leakage", "nats"),
        Panel("active lift_above_leakage", "All steered: name above leakage", "nats"),
        Panel("active leaked_lift", "All steered: leakage alone", "nats"),
        Panel("fill choice", "First turns steered: chosen of a list", "share of lists", references=(1 / 8,)),
        Panel("active choice", "All steered: chosen of a list", "share of lists", references=(1 / 8,)),
        Panel("active loss", "All steered: what text costs", "nats per token"),
    ]
    rows = rows.assign(panel=rows["mode"] + " " + rows["measure"])
    looks = recipe_looks(recipes_of(rows))
    means = rows.groupby(["panel", "trained_by", "dose"], sort=False)["value"].mean().reset_index(name="mean")
    table = means.rename(columns={"trained_by": "series"}).assign(low=float("nan"), high=float("nan"))
    of_base = rows[rows["trained_by"] == BASE].set_index(["panel", "dose"])[["low", "high"]]
    is_base = table["series"] == BASE
    bounds = of_base.reindex(pd.MultiIndex.from_frame(table.loc[is_base, ["panel", "dose"]]))
    table.loc[is_base, ["low", "high"]] = bounds.to_numpy(float)
    singles = pd.DataFrame(
        {
            "panel": rows["panel"],
            "series": rows["trained_by"],
            "unit": rows["seed"].map(seed_name),
            "dose": rows["dose"],
            "value": rows["value"],
        }
    )
    several = rows.groupby("trained_by")["seed"].transform("nunique") > 1
    table = table[table["panel"].isin([panel.key for panel in panels])]
    figure = curves(
        table,
        panels,
        looks,
        title=naming_title(table),
        subtitle=f"{caption(rows, facts)}. Thick: means over seeds, thin: seeds; band: the base, 95% over concepts. "
        "Name: nats that steering adds to the concept's own name where it is asked for; leakage: the same where "
        "one word on something else is asked for",
        x="dose",
        x_label="dose, norms of the base's stream",
        log_x=True,
        columns=3,
        units=singles[several.to_numpy()].dropna(subset="value"),
        legend_lines=2,
    )
    for number in range(1, len(panels) + 1):
        figure.layout[f"yaxis{number if number > 1 else ''}"].update(matches=None, showticklabels=True)
    return figure


def naming_title(table: pd.DataFrame) -> str:
    """Return how much of the name is leakage, in active steering."""
    strongest = table[table["dose"] == table["dose"].max()].set_index(["panel", "series"])["mean"]
    above, leaked = strongest.get(("active lift_above_leakage", BASE)), strongest.get(("active leaked_lift", BASE))
    if above is None or leaked is None:
        return "Is a concept named beyond what its vector makes a model say anyway?"
    return (
        f"At the strongest dose steering adds {above + leaked:+.1f} nats to the concept's name in the base, "
        f"and {leaked:+.1f} where something else is asked for"
    )


def factors(effects: pd.DataFrame, units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return the effect of each factor on what evaluations measure: differences between recipes, over seeds."""
    import pandas as pd

    keys = [f"{evaluation} {part} {measure}" for evaluation, part, measure in MEASURES]
    table = effects.assign(panel=effects["evaluation"] + " " + effects["part"] + " " + effects["measure"])
    table = table[table["panel"].isin(keys)]
    panels = [
        Panel(key, _TITLES[evaluation, measure], _AXES.get(measure, "nats"))
        for key, (evaluation, _, measure) in zip(keys, MEASURES, strict=True)
        if (table["panel"] == key).any()
    ]
    short = table["recipe"].str.rpartition("/")[2] + f" {MINUS} " + table["reference"].str.rpartition("/")[2]
    summary = pd.DataFrame(
        {
            "panel": table["panel"],
            "row": table["factor"] + "<br>" + short,
            "series": "difference",
            "mean": table["value"],
            "low": table["low"],
            "high": table["high"],
        }
    )
    nothing = pd.DataFrame(columns=["panel", "row", "series", "unit", "value"])
    several = len(table) > 0 and int(table["seeds"].max()) > 1
    bars = "95% over seeds, wide since these are few, none where a recipe has 1" if several else "none, of 1 seed"
    figure = dots(
        summary,
        nothing,
        panels,
        {"difference": Series("difference of recipes", INK, "solid", "circle")},
        title="What does each factor do, all else equal? Differences between recipes",
        subtitle=f"{caption(units, facts)}. Bars: {bars}. Effects need not add up, so none is a share of a total",
    )
    return figure.update_xaxes(nticks=4, tickangle=0)
