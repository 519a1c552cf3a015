"""Figures of trainings: what was watched, over the examples that were seen, all recipes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mechint.figures import curves
from mechint.figures.panels import Panel
from mechint.figures.style import BLUE, BROWN, GREEN, INK, ORANGE, PURPLE, VERMILION, VIOLET, Series

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts

# Lines of three; those of the first two share an axis of shares.
PANELS = (
    Panel("auc", "Steered told from clean", "area under the curve", references=(0.5,)),
    Panel("hits", "Hits, at log odds above 0", "share of steered trials"),
    Panel("false_alarms", "False alarms, at log odds above 0", "share of clean trials"),
    Panel("task_auc", "Told apart by the recipe's labels", "area under the curve", references=(0.5,)),
    Panel("mass", "Answer mass", "P(either answer)"),
    Panel("says_it", "Says it: an answer is likeliest", "share of trials"),
    Panel("criterion", "Criterion, below 0: readily yes", "criterion c"),
    Panel("probe_shift", "Yes to control questions", "log odds, minus the base's"),
    Panel("kl", "Drift on neutral text", "KL from base, nats per token"),
)
COLUMNS = 3
_OWN_AXES = (7, 8, 9)  # panels of the last line measure different things
_LOOKS = (
    (VERMILION, "solid", "circle"),
    (BLUE, "dash", "square"),
    (GREEN, "dashdot", "diamond"),
    (INK, "dot", "x"),
    (ORANGE, "longdash", "triangle-up"),
    (PURPLE, "longdashdot", "star"),
    (BROWN, "dash", "triangle-down"),
    (VIOLET, "dot", "hexagon"),
)
REFERENCES = ("matched/original", "published/original")


def figures(table: pd.DataFrame, means: pd.DataFrame, facts: Facts) -> dict[str, go.Figure]:
    """Return the figures by file name; of many recipes several, each with the recipe that others are held against."""
    groups = grouped(list(dict.fromkeys(table["recipe"])))
    names = ["finetuning_training", *(f"finetuning_training_{at}" for at in range(2, len(groups) + 1))]
    return {
        name: _figure(table[table["recipe"].isin(group)], means[means["recipe"].isin(group)], group, facts)
        for name, group in zip(names, groups, strict=True)
    }


def grouped(recipes: Sequence[str]) -> list[list[str]]:
    """Return recipes in groups that one figure can show, in each of them first the one that others are held against."""
    first = [name for name in REFERENCES if name in recipes][:1]
    others = [name for name in recipes if name not in first]
    size = len(_LOOKS) - len(first)
    return [[*first, *others[start : start + size]] for start in range(0, max(1, len(others)), size)]


def looks(recipes: Sequence[str]) -> dict[str, Series]:
    """Return a look for each recipe."""
    return {name: Series(name, *look) for name, look in zip(recipes, _LOOKS, strict=False)}


def _figure(table: pd.DataFrame, means: pd.DataFrame, recipes: Sequence[str], facts: Facts) -> go.Figure:
    measured = means.dropna(subset="mean").rename(columns={"recipe": "series", "measure": "panel"})
    figure = curves(
        measured.assign(low=float("nan"), high=float("nan")),
        PANELS,
        looks(recipes),
        title=title(means, recipes),
        subtitle=subtitle(table, facts),
        x="examples",
        x_label="examples seen",
        columns=COLUMNS,
        units=seed_lines(table),
        legend_lines=2,
    )
    for number in _OWN_AXES:
        figure.layout[f"yaxis{number}"].matches = None
    return figure


def seed_lines(table: pd.DataFrame) -> pd.DataFrame:
    """Return what single runs show, for lines behind the means; none of recipes with one seed, whose mean it is."""
    import pandas as pd

    several = table[table.groupby("recipe")["seed"].transform("nunique") > 1]
    columns = {
        "series": several["recipe"],
        "unit": "seed " + several["seed"].astype(str),
        "examples": several["examples"],
    }
    shown = several.assign(probe_shift=several["probe_shift"].mask(several["probe_is_low"]))
    parts = [pd.DataFrame({**columns, "panel": panel.key, "value": shown[panel.key]}) for panel in PANELS]
    return pd.concat(parts, ignore_index=True).dropna(subset="value")


def title(means: pd.DataFrame, recipes: Sequence[str]) -> str:
    """Return how well steered and clean are told apart in the end, and by how many seeds each."""
    last = means[means["measure"] == "auc"].sort_values("step").groupby("recipe", sort=False).tail(1)
    last = last.set_index("recipe").reindex([name for name in recipes if name in set(last["recipe"])])
    if last.empty:
        return "No step that all seeds have come to"
    highest, lowest = last["mean"].idxmax(), last["mean"].idxmin()
    if highest == lowest:
        return f"{highest} comes to an area of {_area(last.loc[highest])}"
    return (
        f"Steered told from clean in the end: {highest} {_area(last.loc[highest])}, {lowest} {_area(last.loc[lowest])}"
    )


def subtitle(table: pd.DataFrame, facts: Facts) -> str:
    """Return what is shown, of what."""
    counts = table.groupby("recipe")["seed"].nunique()
    seeds = str(counts.min()) if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    lines = f"Thick: means; thin: {seeds} seeds each"
    if counts.max() == 1:
        lines = "1 seed each: no interval, and no claim between recipes" if len(counts) > 1 else "1 seed: no interval"
    texts = f"{table['texts'].min()} texts, each clean and steered, none of them trained"
    if (table["vectors_of"] != table["recipe"]).any():
        texts += "; recipes without vectors are asked about those of the reference"
    if table["probe_is_low"].any():
        texts += "; control questions only where yes and no have a tenth of the mass"
    return f"{facts.model}. {lines}. {texts}"


def _area(row: Mapping[str, float] | pd.Series) -> str:
    """Return an area with its interval over seeds, or with how many there are."""
    if row["n"] == 1:
        return f"{row['mean']:.2f} (1 seed)"
    return f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
