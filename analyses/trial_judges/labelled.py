"""Labels that judges of a run are held against: a labelled set of ours, or a file of a published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.trials.judging import tell_cost
from mechint.base.files import sha256
from mechint.trials.agreement import AGREEMENT_COLUMNS, COUNTS, measures
from mechint.trials.judges.store import VerdictStore, judge_all, verdicts_by_id
from mechint.trials.labelled_sets import Half, LabelledSet, bundled_folder
from mechint.trials.measured import measure
from mechint.trials.outcomes import outcome
from mechint.trials.prompts import concept_lexicon
from mechint.trials.published_labels import PublishedReply, read_published_labels
from mechint.trials.verdicts import Item

if TYPE_CHECKING:
    from mechint.trials.labels import Label
    from mechint.trials.verdicts import Judge, Verdict

PASSES = "passes"
_DENIALS = ("denies", "leaks")


@dataclass(frozen=True)
class Labels:
    """A set of labels; `published` are replies with labels of others, which hold no prompts."""

    name: str
    ours: LabelledSet | None = None
    published: tuple[tuple[PublishedReply, Label], ...] = ()

    @classmethod
    def read(cls, path: Path) -> Labels:
        """Return the labels of a folder (a `LabelledSet`) or of a published file; raises UsageError for another."""
        if path.is_dir():
            return cls(path.name, LabelledSet.load(path))
        replies, labels = read_published_labels(path)
        return cls(path.name, published=tuple(zip(replies, labels, strict=True)))

    def measured(self, judge: Judge, folder: Path) -> pd.DataFrame:
        """Return how a judge agrees with the labels, as `mechint.trials.measured.measure` does; verdicts are kept.

        Of the bundled set the half that rules were not written with. Of published labels of pass and fail the question
        is `passes`: of an injected trial that it is claimed and named rightly, of a control that nothing is claimed.
        """
        if self.ours is not None:
            bundled = self.ours.labels.path.parent.resolve() == bundled_folder().resolve()
            half: Half = "held-out" if bundled else "all"
            tell_cost(judge, self.ours.items(half), VerdictStore(folder))
            return measure(judge, self.ours, half, VerdictStore(folder))
        items = [Item(f"{at}", "", reply.reply) for at, (reply, _) in enumerate(self.published)]
        replies = sha256(*(f"{item.id} {item.reply}\n".encode() for item in items))[:16]
        store = VerdictStore(folder / replies)
        tell_cost(judge, items, store)
        verdicts = verdicts_by_id(judge_all(judge, items, store))
        rows = _agreement([(*pair, verdicts.get(str(at))) for at, pair in enumerate(self.published)])
        whose = {"judge": judge.name, "version": judge.version, "labels_version": replies}
        return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS)).assign(**whose)[[*whose, *AGREEMENT_COLUMNS]]


def _agreement(read: Sequence[tuple[PublishedReply, Label, Verdict | None]]) -> list[dict[str, object]]:
    """Return a row for each arm and question; "all" is both arms."""
    rows: list[dict[str, object]] = []
    for question in (PASSES, "claims", "refused", "coherent"):
        answers = [
            (arm, *pair)
            for reply, label, verdict in read
            if verdict is not None
            for arm in ("injected" if reply.concept else "clean", "all")
            if (pair := _pair(question, reply, label, verdict)) is not None
        ]
        for arm in dict.fromkeys(arm for arm, _, _ in answers):
            counts = _counts([(truth, answer) for other, truth, answer in answers if other == arm])
            rows.append({"arm": arm, "question": question, **measures(counts)})
    return rows


def _pair(question: str, reply: PublishedReply, label: Label, verdict: Verdict) -> tuple[bool, bool] | None:
    """Return what label and judge answer; None where the label does not say."""
    if question == PASSES:
        return None if reply.passed is None else (reply.passed, _passes(reply, verdict))
    if question == "claims":
        # A failed trial of pass and fail may have claimed something else.
        return None if reply.passed is not None else (label.claims == "yes", verdict.claims == "yes")
    truth, answer = {
        "refused": (label.refused, verdict.refused),
        "coherent": (label.coherent, verdict.coherent),
    }[question]
    return truth, answer


def _passes(reply: PublishedReply, verdict: Verdict) -> bool:
    counted = outcome(verdict, reply.reply, reply.concept, concept_lexicon())
    return counted == "names rightly" if reply.concept else counted in _DENIALS


def _counts(answers: Sequence[tuple[bool, bool]]) -> np.ndarray:
    """Return TP, FP, FN, TN."""
    cells: Mapping[str, tuple[bool, bool]] = {
        "TP": (True, True),
        "FP": (False, True),
        "FN": (True, False),
        "TN": (False, False),
    }
    return np.array([answers.count(cells[name]) for name in COUNTS], dtype=float)
