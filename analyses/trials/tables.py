"""The tables of a run: trials, verdicts, outcomes, and rates by group, raw and with the judge's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mechint.stats.intervals import binomial_interval
from mechint.trials.correction import Confusion, corrected_rates
from mechint.trials.outcomes import CLAIMING, CLASSES, outcome_table
from mechint.trials.prompts import concept_lexicon
from mechint.trials.rates import matches_of_others, rate_table
from mechint.trials.records import COLUMNS
from mechint.trials.verdicts import VERDICT_COLUMNS

if TYPE_CHECKING:
    from analyses.trials.judging import JudgeFacts

STEERED = ("injected", "random")
# What rates are taken by; each begins with the model, whose clean replies they are held against.
GROUPS: tuple[tuple[str, ...], ...] = (("model", "prompt"), ("model", "strength"), ("model", "concept"))
_ERRORS = "judge"
RATE_COLUMNS = ("series", "question", "model", "prompt", "strength", "concept")


def noted(table: pd.DataFrame, judge: JudgeFacts, *, unmatched: bool) -> pd.DataFrame:
    """Return a table with what its rates need besides it, which stays with the table."""
    errors = {name: _counts(counts) for name, counts in judge.errors.items()}
    naming = None if judge.naming is None else _counts(judge.naming)
    table.attrs[_ERRORS] = {"errors": errors, "naming": naming, "unmatched": unmatched}
    return table


def all_tables(table: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Return what is written: the table of replies, and by name what it is made of and comes to."""
    trials, verdicts = table[list(COLUMNS)], table[list(VERDICT_COLUMNS)].dropna(subset=["judge"])
    outcomes = table.loc[table["outcome"].notna(), ["id", "judge", "pass_no", "outcome"]]
    extra = table.attrs[_ERRORS]
    errors = {name: Confusion(*counts) for name, counts in extra["errors"].items()}
    naming = None if extra["naming"] is None else Confusion(*extra["naming"])
    summary = rates(trials, verdicts, errors, naming, unmatched=extra["unmatched"])
    bare = {"trials": trials, "verdicts": verdicts, "outcomes": outcomes}
    plain = {name: frame.reset_index(drop=True).copy() for name, frame in bare.items()}
    for frame in plain.values():
        frame.attrs = {}
    return {"table": table, **plain, "rates": summary}


def rates(
    trials: pd.DataFrame,
    verdicts: pd.DataFrame,
    errors: Mapping[str, Confusion],
    naming: Confusion | None,
    *,
    unmatched: bool,
) -> pd.DataFrame:
    """Return rates by prompt, strength and concept: `RATE_COLUMNS` and those of `rate_table`.

    Columns that a row is not grouped by are empty. Rates of questions that are controls are by question alone. Those by
    prompt are also corrected for a judge's errors, where they were counted in both arms.
    """
    outcomes = outcome_table(trials, verdicts, concept_lexicon())
    judge = str(outcomes["judge"].iloc[0]) if len(outcomes) else ""
    parts: list[pd.DataFrame] = []
    for question in dict.fromkeys(trials["question"]):
        of_question = trials[trials["question"] == question]
        for series in STEERED:
            if not (of_question["series"] == series).any():
                continue
            groups: Sequence[tuple[str, ...]] = GROUPS if question == "introspection" else (("model",),)
            foils = matches_of_others(trials, verdicts, concept_lexicon()) if series == "injected" else None
            for by in groups:
                shared = {"series": series, "question": question, "unmatched": unmatched}
                frames = [rate_table(trials, outcomes, by, foils=foils, **shared)]
                if by == GROUPS[0] and {series, "clean"} <= set(errors):
                    names = naming if series == "injected" else None
                    frames.append(corrected_rates(trials, outcomes, errors, by, judge=judge, naming=names, **shared))
                for frame in frames:
                    parts.append(frame[frame["n_trials"] > 0].assign(series=series, question=question))
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    table["strength"] = table["strength"].astype(np.float64) if "strength" in table else np.nan
    for name in ("prompt", "concept"):
        table[name] = table[name].fillna("") if name in table else ""
    # As the trials come, not as they were grouped: in the order of a design.
    order = {name: place for place, name in enumerate(dict.fromkeys(["", *trials["model"], *trials["prompt"]]))}
    places = {"key": lambda names: names.map(order), "kind": "stable", "ignore_index": True}
    table = table.sort_values(["model", "prompt"], **places)
    return table[[*RATE_COLUMNS, *(name for name in table.columns if name not in RATE_COLUMNS)]]


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


def _counts(confusion: Confusion) -> list[int]:
    return [confusion.tp, confusion.fp, confusion.fn, confusion.tn]
