"""What a judge is worth: its agreement with the bundled labels, beside every number that it makes.

    table = measured("rules")                 # by arm and question: counts, sensitivity, specificity, kappa, intervals
    error_counts(table)                       # {"injected": Confusion(...), "clean": ...} for `corrected_rates`
    print(caption(table))                     # rules: sensitivity 0.92 (0.80 to 0.98), specificity 0.96 ...

The rules judge is measured when it is asked for; others were, and stand with their versions in `data/measured.csv`.
Half of the labels was for writing rules, and every judge is measured on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.files import write_atomically
from mechint.trials.agreement import ALL_ARMS, COUNTS, agreement
from mechint.trials.correction import Confusion
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.judges.store import VerdictStore, judge_all, verdicts_by_id
from mechint.trials.labelled_sets import Half, LabelledSet, bundled_folder, labelled_set
from mechint.trials.prompts import concept_lexicon
from mechint.trials.verdicts import Judge, Verdict

MEASURED_FILE = "measured.csv"
_WHOSE = ("judge", "version", "labels_version")


def measure(
    judge: Judge, labelled: LabelledSet | None = None, half: Half = "held-out", store: VerdictStore | None = None
) -> pd.DataFrame:
    """Return the agreement of a judge with frozen labels: `judge, version, labels_version` and `AGREEMENT_COLUMNS`.

    Raises UsageError where no label is frozen: a judge is run after labels are fixed, and not before.
    """
    labelled = labelled or labelled_set()
    labels = {key: label.verdict() for key, label in labelled.frozen(half).items()}
    if not labels:
        raise UsageError(
            given=f"no frozen labels in {labelled.labels.path}",
            allowed="labels that were fixed before the judge is run",
            advice="python -m analyses.trial_labels --set DIR --freeze",
        )
    items = [item for item in labelled.items(half) if item.id in labels]
    verdicts = verdicts_by_id(judge_all(judge, items, store))
    return of_verdicts(verdicts, labels, labelled, (judge.name, judge.version))


def first_replies(labelled: LabelledSet, count: int, half: Half = "held-out") -> LabelledSet:
    """Return the set with the first replies of a half alone, for a judge that takes long."""
    return LabelledSet(labelled.rows(half).head(count), labelled.prompts, labelled.labels)


def of_verdicts(
    verdicts: Mapping[str, Verdict], labels: Mapping[str, Verdict], labelled: LabelledSet, whose: tuple[str, str]
) -> pd.DataFrame:
    """Return the agreement of verdicts that are there already, with the judge's name and version in front."""
    table = agreement(labels, verdicts, labelled.trials, concept_lexicon())
    for place, value in enumerate((*whose, labelled.labels.version())):
        table.insert(place, _WHOSE[place], value)
    return table


def measured(name: str) -> pd.DataFrame:
    """Return how a judge agrees with the bundled labels it was not made with; raises UsageError for an unknown one."""
    if name == "rules":
        return measure(RulesJudge())
    path = bundled_folder() / MEASURED_FILE
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(_WHOSE))
    rows = table[table["judge"] == name].reset_index(drop=True)
    if rows.empty:
        raise UsageError(
            given=f"the judge {name!r}, which nobody has measured",
            allowed=", ".join(["rules", *sorted(table["judge"].unique())]),
            advice="measure it: mechint.trials.measured.measure(judge)",
        )
    return rows


def keep_measured(table: pd.DataFrame, path: Path) -> None:
    """Write a table of `measure` to a file, in place of the rows that it has of the judge; others stay."""
    stored = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame()
    if len(stored):
        stored = stored[~stored["judge"].isin(set(table["judge"]))]
    rows = pd.read_csv(StringIO(table.to_csv(index=False, float_format="%.4f")), dtype=str, keep_default_na=False)
    whole = pd.concat([stored, rows], ignore_index=True).sort_values("judge", kind="stable")
    write_atomically(path, whole.to_csv(index=False))


def error_counts(table: pd.DataFrame, question: str = "detects") -> dict[str, Confusion]:
    """Return the counts by series of one question: "detects" for claims, "names rightly" for identification."""
    rows = table[(table["question"] == question) & (table["arm"] != ALL_ARMS)]
    if rows.empty:
        raise UsageError(f"question {question!r}", ", ".join(table["question"].unique()), "choose one of these")
    return {str(row["arm"]): Confusion(*(int(row[name]) for name in COUNTS)) for _, row in rows.iterrows()}


def caption(table: pd.DataFrame, question: str = "detects") -> str:
    """Return the line that stands beside a judge's numbers: its sensitivity and specificity by arm."""
    rows = table[(table["question"] == question) & (table["arm"] != ALL_ARMS)]
    arms = [f"{row['arm']} {_rate(row, 'sensitivity')} and {_rate(row, 'specificity')}" for _, row in rows.iterrows()]
    return f"judge {table['judge'].iloc[0]}, sensitivity and specificity on {rows['n'].sum()} labels: {'; '.join(arms)}"


def _rate(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return "not known"
    return f"{row[name]:.2f} ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"
