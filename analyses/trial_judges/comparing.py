"""Judges of the same replies: how far they agree, and what each makes of the headline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from analyses.trials.judging import JudgeFacts
from analyses.trials.rates import Errors, rates
from mechint.trials.agreement import AGREEMENT_COLUMNS, agreement
from mechint.trials.judges.store import verdicts_by_id
from mechint.trials.outcomes import CLASSES, outcome_table
from mechint.trials.prompts import concept_lexicon

PAIR = ("first", "second", "of")
JUDGES, RETEST, LABELS = "judges", "retest", "labels"


@dataclass(frozen=True)
class Read:
    """What a judge has said of all replies, in one pass or two, and the facts of it."""

    facts: JudgeFacts
    verdicts: pd.DataFrame

    @property
    def name(self) -> str:
        """The judge's name."""
        return self.facts.name


def agreements(trials: pd.DataFrame, judges: Sequence[Read]) -> pd.DataFrame:
    """Return `first, second, of` and `AGREEMENT_COLUMNS`: of pairs of judges, and of two passes of one.

    The first is taken for the truth, where a question asks for one: counts and kappa hold for both.
    """
    tables = [
        _compared(trials, first.verdicts, second.verdicts, (first.name, second.name, JUDGES), (0, 0))
        for first, second in combinations(judges, 2)
    ]
    again = [read for read in judges if (read.verdicts["pass_no"] == 1).any()]
    tables += [
        _compared(trials, read.verdicts, read.verdicts, (read.name, read.name, RETEST), (0, 1)) for read in again
    ]
    columns = [*PAIR, *AGREEMENT_COLUMNS]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def _compared(
    trials: pd.DataFrame,
    first: pd.DataFrame,
    second: pd.DataFrame,
    names: tuple[str, str, str],
    passes: tuple[int, int],
) -> pd.DataFrame:
    reading, other = verdicts_by_id(first, passes[0]), verdicts_by_id(second, passes[1])
    asking = trials[trials["question"] == "introspection"]
    table = agreement(reading, other, asking, concept_lexicon())
    return table.assign(**dict(zip(PAIR, names, strict=True)))


def crossed_classes(trials: pd.DataFrame, judges: Sequence[Read]) -> pd.DataFrame:
    """Return `first, second, first_class, second_class, n`: what replies count as by two judges."""
    asking = trials[trials["question"] == "introspection"]
    by_judge = {read.name: _classes(asking, read.verdicts) for read in judges}
    rows = []
    for first, second in combinations(by_judge, 2):
        both = pd.DataFrame({"first_class": by_judge[first], "second_class": by_judge[second]}).dropna()
        counts = both.groupby(["first_class", "second_class"]).size().rename("n").reset_index()
        rows.append(counts.assign(first=first, second=second))
    columns = ["first", "second", "first_class", "second_class", "n"]
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def _classes(trials: pd.DataFrame, verdicts: pd.DataFrame) -> pd.Series:
    chosen = verdicts[(verdicts["pass_no"] == 0) & verdicts["id"].isin(trials["id"])]
    table = outcome_table(trials, chosen, concept_lexicon()).set_index("id")["outcome"]
    return table.astype(pd.CategoricalDtype(CLASSES)).astype(object)


def headline(trials: pd.DataFrame, judges: Sequence[Read], *, unmatched: bool) -> pd.DataFrame:
    """Return the rates of `analyses.trials` by judge, raw and corrected for the errors that each was measured with."""
    tables = []
    for read in judges:
        first = read.verdicts[read.verdicts["pass_no"] == 0]
        tables.append(rates(trials, first, Errors.of(read.facts), unmatched=unmatched))
    return pd.concat(tables, ignore_index=True)


def outcomes_of(trials: pd.DataFrame, judges: Sequence[Read]) -> Mapping[str, pd.DataFrame]:
    """Return the verdicts of all judges and what replies count as by each, as tables by name."""
    verdicts = pd.concat([read.verdicts for read in judges], ignore_index=True)
    return {"verdicts": verdicts, "outcomes": outcome_table(trials, verdicts, concept_lexicon())}
