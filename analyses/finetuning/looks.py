"""How recipes and seeds look in every figure of evaluations, and what figures say of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechint.evals.subjects import BASE
from mechint.figures.style import BLUE, BROWN, GREEN, INK, ORANGE, PURPLE, VERMILION, VIOLET, Series

if TYPE_CHECKING:
    import pandas as pd

    from analyses.finetuning.options import Facts

_SEEDS = (
    (VERMILION, "circle"),
    (BLUE, "square"),
    (GREEN, "diamond"),
    (ORANGE, "triangle-up"),
    (PURPLE, "star"),
    (BROWN, "x"),
    (VIOLET, "hexagon"),
)
_CURVES = (
    (VERMILION, "solid", "circle"),
    (BLUE, "dash", "square"),
    (GREEN, "dashdot", "diamond"),
    (ORANGE, "longdash", "triangle-up"),
    (PURPLE, "longdashdot", "star"),
    (BROWN, "dash", "triangle-down"),
    (VIOLET, "dot", "hexagon"),
)
BASE_LOOK = Series("base", INK, "dot", "circle-open")


def seed_looks(seeds: Sequence[int]) -> dict[str, Series]:
    """Return a look for each seed by its name; more seeds than looks take them again."""
    looks = {}
    for at, seed in enumerate(sorted(seeds)):
        color, symbol = _SEEDS[at % len(_SEEDS)]
        looks[seed_name(seed)] = Series(seed_name(seed), color, "solid", symbol)
    return looks


def seed_name(seed: int) -> str:
    """Return how a figure calls a seed."""
    return f"seed {seed}"


def recipe_looks(recipes: Sequence[str]) -> dict[str, Series]:
    """Return a look for each recipe, that of the base too; more recipes than looks take them again."""
    looks = {BASE: BASE_LOOK}
    for at, name in enumerate(recipe for recipe in recipes if recipe != BASE):
        looks[name] = Series(name, *_CURVES[at % len(_CURVES)])
    return looks


def recipes_of(units: pd.DataFrame) -> list[str]:
    """Return the recipes in order, without the base."""
    return [str(name) for name in dict.fromkeys(units["trained_by"]) if name != BASE]


def last_steps(units: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last step of each run, and those of the base."""
    return units[units["step"] == units.groupby(["trained_by", "seed"])["step"].transform("max")]


def measured(units: pd.DataFrame, evaluation: str, part: str, measure: str) -> pd.DataFrame:
    """Return the rows of a measure."""
    is_it = (units["evaluation"] == evaluation) & (units["part"] == part) & (units["measure"] == measure)
    return units[is_it]


def seeds_said(units: pd.DataFrame) -> str:
    """Return how many seeds there are; with one of each recipe, that nothing is claimed between recipes."""
    counts = units[units["seed"] >= 0].groupby("trained_by")["seed"].nunique()
    if counts.max() == 1:
        return "1 seed: no claim between recipes" if len(counts) > 1 else "1 seed"
    return f"{counts.min()} seeds" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()} seeds"


def caption(units: pd.DataFrame, facts: Facts) -> str:
    """Return what every figure says first: base, size and seeds."""
    return f"{facts.model}, {facts.size} size, {seeds_said(units)}"
