"""What replies come to besides their rates: shares of classes, concepts, grids of cells, wording, logit shifts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analyses.trials.rates import STEERED
from mechint.stats.intervals import binomial_interval
from mechint.trials.grids import COLUMNS as GRID
from mechint.trials.grids import grid_table
from mechint.trials.language import phrase_rates
from mechint.trials.outcomes import CLAIMING, CLASSES
from mechint.trials.prompts import concept_lexicon

PLACE = ("layers", "strength")
CELL = ("model", "series", "concept", *PLACE, "steer")
SHIFTED = (*CELL, "net", "logit_shift", "logit_shift_of", "n_trials")
FEWEST = 5  # replies of a class and an arm whose wording is counted


def grids(trials: pd.DataFrame, verdicts: pd.DataFrame, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return `model` and the columns of `grid_table`, of each model with two layers and two strengths or more.

    Cells are of all prompts and modes together.
    """
    parts = []
    for model in dict.fromkeys(trials["model"]):
        of_model = trials[trials["model"] == model]
        asking = of_model[of_model["question"] == "introspection"]
        steered = asking[asking["series"].isin(STEERED)]
        is_sweep = min(steered[name].nunique() for name in PLACE) > 1
        if is_sweep and (asking["series"] == "clean").any() and (asking["series"] == "injected").any():
            of_replies = verdicts[verdicts["id"].isin(of_model["id"])]
            classes = outcomes[outcomes["id"].isin(of_model["id"])]
            judge = str(outcomes["judge"].iloc[0])
            table = grid_table(of_model, of_replies, classes, concept_lexicon(), PLACE, judge=judge)
            parts.append(table.assign(model=model, layers=table["layers"].astype(str)))
    columns = ["model", *PLACE, *GRID]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def wording(trials: pd.DataFrame, outcomes: pd.DataFrame, by: Sequence[str] = ("outcome",)) -> pd.DataFrame:
    """Return phrases in 100 words by model, class and arm (`phrase_rates`), of replies to the prompts of a design.

    Of fewer than five replies nothing is said.
    """
    asking = trials[trials["question"] == "introspection"]
    rates = phrase_rates(asking, outcomes, ("model", "series", *by))
    return rates[rates["n_trials"] >= FEWEST].reset_index(drop=True)


def shifted_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return net detection and logit shift by cell (`SHIFTED`), where the table has shifts; prompts weigh the same.

    Net detection is the share of claims less that of the clean replies to the same prompt; refusals are denials.
    """
    judged = table[(table["question"] == "introspection") & table["outcome"].notna()]
    asking = judged.assign(claims=judged["outcome"].isin(CLAIMING).astype(float))
    source = ["model", "prompt"]
    alarms = asking[asking["series"] == "clean"].groupby(source)["claims"].mean().rename("alarms").reset_index()
    steered = asking[asking["series"].isin(STEERED) & asking["logit_shift"].notna()]
    cells = steered.groupby([*CELL, "logit_shift_of", "prompt"], sort=False).agg(
        claims=("claims", "mean"), logit_shift=("logit_shift", "mean"), n_trials=("claims", "size")
    )
    rows = cells.reset_index().merge(alarms, on=source)
    rows = rows.assign(net=rows["claims"] - rows["alarms"])
    means = {"net": "mean", "logit_shift": "mean", "n_trials": "sum"}
    return rows.groupby([*CELL, "logit_shift_of"], sort=False).agg(means).reset_index()[list(SHIFTED)]


def class_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of each class: `model, prompt, question, series, outcome, share, n`, all strengths together.

    Prompts of a control question are one group, "" as their prompt; so are all in which a concept is mentioned.
    """
    judged = table[table["outcome"].notna()]
    judged = judged.assign(prompt=judged["prompt"].where(judged["question"] == "introspection", ""))
    keys = ["model", "prompt", "question", "series"]
    counts = judged.groupby([*keys, "outcome"], sort=False).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(CLASSES), fill_value=0)
    n = counts.sum(axis=1)
    shares = counts.div(n, axis=0).stack().rename("share").reset_index()
    return shares.merge(n.rename("n").reset_index(), on=keys)


def difficulty(table: pd.DataFrame) -> pd.DataFrame:
    """Return `model, concept, measure, value, low, high, n`: claims and right names of each concept, over its replies.

    Intervals are exact, over replies: they are of this concept's vector, and of no other.
    """
    injected = table[(table["question"] == "introspection") & (table["series"] == "injected")]
    rows = []
    for (model, concept), replies in injected[injected["outcome"].notna()].groupby(["model", "concept"], sort=False):
        for measure, classes in (("claims", CLAIMING), ("names rightly", ("names rightly",))):
            count, n = int(replies["outcome"].isin(classes).sum()), len(replies)
            interval = binomial_interval(count, n)
            bounds = {"value": count / n, "low": float(interval.low), "high": float(interval.high)}
            rows.append({"model": model, "concept": concept, "measure": measure, **bounds, "n": n})
    return pd.DataFrame(rows, columns=["model", "concept", "measure", "value", "low", "high", "n"])
