"""Effects between recipes that differ in one factor: differences of seeds' values, with intervals over seeds.

No percentages of a total: effects of factors need not add up. With one seed of either recipe there is a difference and
no interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("factor", "recipe", "reference", "evaluation", "part", "measure", "value", "low", "high", "seeds")


@dataclass(frozen=True)
class Factor:
    """A factor, and the ends of names of a recipe and of the reference that differ in it."""

    name: str
    recipe: str
    reference: str


# By the ends of recipes' names; the first pair of those that are there is taken for each factor.
FACTORS = (
    Factor("label truth", "original", "random-labels"),
    Factor("steering, labels by a coin", "random-labels", "no-steer"),
    Factor("explicit against neutral question", "original", "neutral-red-blue"),
    Factor("explicit against neutral question", "original", "neutral"),
    Factor("affirming against denying", "original", "deny-steering"),
    Factor("affirming against denying", "original", "deny"),
    Factor("steering against a topic", "original", "food-control"),
    Factor("steering against a topic", "original", "food"),
    Factor("half of the labels turned", "noise-50", "original"),
    Factor("all labels turned", "inverted", "original"),
    Factor("vague against explicit question", "vague", "original"),
    Factor("vague against explicit question", "vague-prompt", "original"),
    Factor("one layer against many", "single-layer", "original"),
    Factor("rank 1 against 16", "rank-1", "original"),
    Factor("rank 1 against 16", "r1-minimal", "original"),
    Factor("longer training", "original-5epoch", "original"),
    Factor("replay", "replay", "original"),
    Factor("stopped gradient", "stopped-gradient", "original"),
)
# What effects are on: evaluation, part, measure.
MEASURES = (
    ("detection", "held-out", "auc"),
    ("detection", "held-out", "auc_above_control"),
    ("battery", "self", "contrast"),
    ("battery", "self", "bias"),
    ("battery", "self", "slope"),
    ("multiturn", "self", "right"),
)


def pairs(recipes: list[str]) -> list[Factor]:
    """Return the factors in which recipes that are there differ, by their whole names; recipes of one kind together."""
    factors: dict[tuple[str, str], Factor] = {}
    for factor in FACTORS:
        for kind in dict.fromkeys(name.rpartition("/")[0] for name in recipes):
            folder = f"{kind}/" if kind else ""
            recipe, reference = f"{folder}{factor.recipe}", f"{folder}{factor.reference}"
            if {recipe, reference} <= set(recipes):
                factors.setdefault((factor.name, kind), Factor(factor.name, recipe, reference))
    return list(factors.values())


def effects_table(units: pd.DataFrame) -> pd.DataFrame:
    """Return the effect of each factor on each of `MEASURES` at the last step of the runs (`COLUMNS`)."""
    import pandas as pd

    from mechint.stats.intervals import difference_interval

    rows = []
    trained = units[units["seed"] >= 0]
    last = trained[trained["step"] == trained.groupby(["trained_by", "seed"])["step"].transform("max")]
    for factor in pairs(list(dict.fromkeys(last["trained_by"]))):
        for evaluation, part, measure in MEASURES:
            chosen = last[(last["evaluation"] == evaluation) & (last["part"] == part) & (last["measure"] == measure)]
            first = chosen.loc[chosen["trained_by"] == factor.recipe, "value"].to_numpy(float)
            second = chosen.loc[chosen["trained_by"] == factor.reference, "value"].to_numpy(float)
            if not len(first) or not len(second):
                continue
            interval = difference_interval(first, second)
            ends = {"value": float(interval.mean), "low": float(interval.low), "high": float(interval.high)}
            names = {"factor": factor.name, "recipe": factor.recipe, "reference": factor.reference}
            place = {"evaluation": evaluation, "part": part, "measure": measure}
            rows.append({**names, **place, **ends, "seeds": min(len(first), len(second))})
    return pd.DataFrame(rows, columns=list(COLUMNS))
