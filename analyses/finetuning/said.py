"""What is really said at the answer, clean and steered, by the base and by each recipe, as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyses.finetuning.looks import caption, last_steps, recipes_of
from mechint.evals.subjects import BASE
from mechint.figures.stacks import Hatch, stacks
from mechint.figures.style import GREEN, GRID, ORANGE, PURPLE, SKY, YELLOW

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts

_ANSWERS = {
    "positive": Hatch("the answer for steered", ORANGE),
    "negative": Hatch("the answer for clean", GRID),
}
_OTHERS = ((SKY, "/"), (YELLOW, "."), (GREEN, "\\"), (PURPLE, "x"))
_TOKENS = len(_OTHERS)


def first_tokens(table: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return how often each token is the likeliest of all, of recipes and of the base that is asked in their words."""
    import pandas as pd

    from mechint.evals.first_tokens import ANSWERS, OTHER, token_shares

    last = last_steps(table)
    recipes = recipes_of(last)
    trials = pd.concat(
        [
            last[last["asked_by"] == name].assign(kind=lambda rows, name=name: name + "\n" + _row(rows))
            for name in recipes
        ],
        ignore_index=True,
    )
    shares = token_shares(trials, tokens=_TOKENS)
    place = shares["kind"].str.partition("\n")
    bars = shares.assign(group=place[0], row=place[2], part=shares["said"], n=shares["n_trials"])
    others = [name for name in bars["part"].drop_duplicates() if name not in (*ANSWERS, OTHER)]
    parts = {
        **_ANSWERS,
        **{name: Hatch(f"\u201c{name}\u201d", *look) for name, look in zip(others, _OTHERS, strict=False)},
    }
    parts[OTHER] = Hatch("another token", "#FFFFFF", "|")
    return stacks(
        bars[["group", "row", "part", "share", "n"]],
        {name: look for name, look in parts.items() if (bars["part"] == name).any()},
        title=title(trials),
        subtitle=f"{caption(last, facts)}, together. Share of trials in which a token is the likeliest of the whole "
        "vocabulary at the answer; texts and vectors of no training",
        label="share of trials",
        counted="trials",
        legend_lines=2,
    )


def title(trials: pd.DataFrame) -> str:
    """Return of which recipe what is said is least often one of both answers."""
    trained = trials[trials["trained_by"] != BASE]
    words = trained["token"].str.strip()
    is_answer = (words == trained["positive"].str.strip()) | (words == trained["negative"].str.strip())
    shares = is_answer.groupby(trained["trained_by"], sort=False).mean()
    if shares.min() == 1.0:
        return "What is said at the answer: after each training one of both answers, in every trial"
    name = str(shares.idxmin())
    return f"What is said at the answer: one of both answers, least often after {name} ({shares.min():.0%} of trials)"


def _row(rows: pd.DataFrame) -> pd.Series:
    who = rows["trained_by"].where(rows["trained_by"] == BASE, "trained")
    return who + ", " + rows["kind"]
