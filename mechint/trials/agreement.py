"""How far a judge agrees with labels, or one reading with another: by question, and by what was done to the model.

    table = agreement(labels, verdicts, labelled.rows("held-out"), concept_lexicon())
    table[table["question"] == "claims"]      # one row for each arm, one for all: TP, FP, FN, TN, sensitivity, ...

Sensitivity and specificity stand apart for each arm: a judge whose errors differ between the arms that are compared
makes a difference where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.stats.agreement import kappa as table_kappa
from mechint.stats.intervals import binomial_interval
from mechint.trials.outcomes import CLAIMING, Lexicon, concept_of, outcome
from mechint.trials.records import SERIES
from mechint.trials.verdicts import Verdict

COUNTS: tuple[str, ...] = ("TP", "FP", "FN", "TN")
MEASURES: tuple[str, ...] = ("sensitivity", "specificity", "accuracy", "kappa")
AGREEMENT_COLUMNS = ("arm", "question", "n", *COUNTS, *(f"{m}{end}" for m in MEASURES for end in ("", "_low", "_high")))
ALL_ARMS = "all"
_DRAWS, _LEVEL = 2000, 0.95


@dataclass(frozen=True)
class Reading:
    """A verdict or label on a reply, with the class that it has."""

    verdict: Verdict
    outcome: str


@dataclass(frozen=True)
class Question:
    """What is compared: an answer of yes or no that a reading gives, None where the question does not arise in it."""

    name: str
    answer: Callable[[Reading], bool | None]
    arises: Callable[[Reading], bool]  # in the labels


def _is_claim(reading: Reading) -> bool:
    return reading.verdict.coherent and reading.verdict.claims == "yes"


# A reply that cannot be read has no claim to find, and only a claim has a name or an order.
QUESTIONS: tuple[Question, ...] = (
    Question("coherent", lambda r: r.verdict.coherent, lambda r: True),
    Question("refused", lambda r: r.verdict.refused, lambda r: r.verdict.coherent),
    Question("claims", lambda r: r.verdict.claims == "yes", lambda r: r.verdict.coherent),
    Question("named", lambda r: r.verdict.named is not None, _is_claim),
    Question("claim_first", lambda r: r.verdict.claim_first, lambda r: r.verdict.claim_first is not None),
    Question("detects", lambda r: r.outcome in CLAIMING, lambda r: True),
    # What a claim is at most: bounds count a refusal as the answer that it may hide.
    Question("detects or refuses", lambda r: r.outcome in (*CLAIMING, "refuses"), lambda r: True),
    Question("names rightly", lambda r: r.outcome == "names rightly", lambda r: True),
)


def agreement(
    labels: Mapping[str, Verdict], verdicts: Mapping[str, Verdict], trials: pd.DataFrame, lexicon: Lexicon
) -> pd.DataFrame:
    """Return counts and measures by arm and question (`AGREEMENT_COLUMNS`), labels taken for true.

    Only trials that have both count; verdicts with an error do not. "detects" and "names rightly" are classes, so they
    hold what coherence and refusal do to a claim. Intervals are exact for rates, of resampled counts for kappa.
    """
    rows = []
    read = _readings(labels, verdicts, trials, lexicon)
    for question in QUESTIONS:
        for arm in (*SERIES, ALL_ARMS):
            pairs = [pair for series, *pair in read if arm in (series, ALL_ARMS)]
            counts = _counts(question, pairs)
            if counts.sum():
                rows.append({"arm": arm, "question": question.name, **measures(counts)})
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))


def measures(counts: Float[np.ndarray, " 4"]) -> dict[str, float | int]:
    """Return what `TP, FP, FN, TN` amount to, with 95% intervals; NaN where there is nothing to divide by."""
    tp, fp, fn, tn = np.asarray(counts).astype(int).tolist()
    total = tp + fp + fn + tn
    values: dict[str, float | int] = {"n": total, "TP": tp, "FP": fp, "FN": fn, "TN": tn}
    rates = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "accuracy": (tp + tn, total)}
    for name, (right, of) in rates.items():
        interval = binomial_interval(right, of, level=_LEVEL) if of else None
        ends = (interval.mean, interval.low, interval.high) if interval else (np.nan, np.nan, np.nan)
        values |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, ends), strict=True))
    drawn = np.random.default_rng(0).multinomial(total, counts / total, size=_DRAWS).astype(float)
    low, high = _bounds(kappa(drawn))
    return {**values, "kappa": float(kappa(counts)), "kappa_low": low, "kappa_high": high}


def kappa(counts: Float[np.ndarray, "*draws 4"]) -> Float[np.ndarray, "*draws"]:
    """Return Cohen's kappa of `TP, FP, FN, TN`; NaN where both always say the same."""
    tables = np.asarray(counts, dtype=float)[..., [0, 2, 1, 3]]  # actual x predicted
    return table_kappa(tables.reshape(*tables.shape[:-1], 2, 2))


def _bounds(values: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _readings(
    labels: Mapping[str, Verdict], verdicts: Mapping[str, Verdict], trials: pd.DataFrame, lexicon: Lexicon
) -> list[tuple[str, Reading, Reading]]:
    """Return arm, label and verdict of every trial that has both."""
    read = []
    for row in trials.to_dict("records"):
        label, verdict = labels.get(row["id"]), verdicts.get(row["id"])
        if label is None or verdict is None or verdict.error:
            continue
        concept = concept_of(row)
        pair = [Reading(v, outcome(v, row["reply"], concept, lexicon)) for v in (label, verdict)]
        read.append((str(row["series"]), pair[0], pair[1]))
    return read


def _counts(question: Question, pairs: list[list[Reading]]) -> Float[np.ndarray, " 4"]:
    """Return TP, FP, FN, TN; a question that arises for the label alone is one that the verdict has answered no."""
    counts = dict.fromkeys(COUNTS, 0)
    for label, verdict in pairs:
        if not question.arises(label):
            continue
        truth, answer = question.answer(label), question.answer(verdict)
        if question.name == "claim_first" and answer is None:
            continue  # no order to compare
        counts[_cell(bool(truth), bool(answer))] += 1
    return np.array([counts[name] for name in COUNTS], dtype=float)


def _cell(truth: bool, answer: bool) -> str:
    return ("TP" if answer else "FN") if truth else ("FP" if answer else "TN")
