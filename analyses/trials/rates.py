"""Rates of a run by prompt, strength and concept: as counted, and corrected for the errors of their judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mechint.trials.correction import Confusion, corrected_rates
from mechint.trials.outcomes import outcome_table
from mechint.trials.prompts import concept_lexicon
from mechint.trials.rates import matches_of_others, rate_table

if TYPE_CHECKING:
    from analyses.trials.judging import JudgeFacts

STEERED = ("injected", "random")
# What rates are taken by; each begins with the model, whose clean replies they are held against.
GROUPS: tuple[tuple[str, ...], ...] = (("model", "prompt"), ("model", "strength"), ("model", "concept"))
RATE_COLUMNS = ("series", "question", "model", "prompt", "strength", "concept")


@dataclass(frozen=True)
class Errors:
    """Counts of a judge's errors on labels, where there are any.

    Of claims, and of claims or refusals (`bounds`), by series; of steered claims that name rightly.
    """

    claims: Mapping[str, Confusion] = field(default_factory=dict)
    bounds: Mapping[str, Confusion] = field(default_factory=dict)
    naming: Confusion | None = None

    @classmethod
    def of(cls, judge: JudgeFacts) -> Errors:
        """Return those that the facts of a judge have."""
        return cls(judge.errors, judge.bounds, judge.naming)

    def corrected(
        self,
        trials: pd.DataFrame,
        outcomes: pd.DataFrame,
        by: Sequence[str],
        *,
        series: str,
        question: str,
        unmatched: bool,
    ) -> list[pd.DataFrame]:
        """Return a list with the corrected rates, an empty one without counts of both arms."""
        arms = {series, "clean"}
        if not arms <= set(self.claims) or outcomes.empty:
            return []
        naming = self.naming if series == "injected" else None
        bounds = self.bounds if arms <= set(self.bounds) else None
        table = corrected_rates(
            trials,
            outcomes,
            self.claims,
            by,
            judge=str(outcomes["judge"].iloc[0]),
            naming=naming,
            bounds=bounds,
            series=series,
            question=question,
            unmatched=unmatched,
        )
        return [table]


def rates(
    trials: pd.DataFrame,
    verdicts: pd.DataFrame,
    errors: Errors,
    *,
    unmatched: bool,
) -> pd.DataFrame:
    """Return rates by prompt, strength and concept: `RATE_COLUMNS` and those of `rate_table`.

    Columns that a row is not grouped by are empty. Rates of questions that are controls are by question alone. Those by
    prompt are also corrected for a judge's errors, where they were counted in both arms.
    """
    outcomes = outcome_table(trials, verdicts, concept_lexicon())
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
                if by == GROUPS[0]:
                    frames += errors.corrected(trials, outcomes, by, **shared)
                for frame in frames:
                    parts.append(frame[frame["n_trials"] > 0].assign(series=series, question=question))
    table = pd.concat([frame for frame in parts if len(frame)], ignore_index=True)
    table["strength"] = table["strength"].astype(np.float64) if "strength" in table else np.nan
    for name in ("prompt", "concept"):
        table[name] = table[name].fillna("") if name in table else ""
    # As the trials come, not as they were grouped: in the order of a design.
    order = {name: place for place, name in enumerate(dict.fromkeys(["", *trials["model"], *trials["prompt"]]))}
    places = {"key": lambda names: names.map(order), "kind": "stable", "ignore_index": True}
    table = table.sort_values(["model", "prompt"], **places)
    return table[[*RATE_COLUMNS, *(name for name in table.columns if name not in RATE_COLUMNS)]]
