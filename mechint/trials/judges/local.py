"""A model as a judge: its yes/no logits to questions about prompt and reply, in float32, with no sampling.

Any model that `mi.load` opens will do, and a small one will not do well: what it is worth is measured on the labelled
set like every other judge (`mechint.trials.measured`). A model that says yes to everything has its `offsets` moved to
where labels of the tuning half are told apart best (`calibrated`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from mechint.base.errors import UsageError
from mechint.base.files import sha256
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model, load
from mechint.readouts.generate import generate
from mechint.readouts.score import score
from mechint.trials.judges.questions import ASKED, Questions, packaged_questions
from mechint.trials.judges.texts import words
from mechint.trials.labels import Label
from mechint.trials.verdicts import Item, Verdict

_NAME_TOKENS = 12
FEWEST = 10  # labels of either answer: fewer have set a threshold that was worse than none


@dataclass(frozen=True)
class LocalJudge:
    """Judges by the logits of `model`; `offsets` are subtracted from logit(yes) - logit(no), by question."""

    model: Model
    questions: Questions = field(default_factory=packaged_questions)
    offsets: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str) -> LocalJudge:
        """Return a judge by the name or path of its model; raises what `mi.load` raises."""
        return cls(load(name))

    @property
    def name(self) -> str:
        """The judge's name: local:MODEL."""
        return f"local:{self.model.name}"

    @property
    def version(self) -> str:
        """Hash of weights, wording and offsets."""
        offsets = repr(sorted(self.offsets.items()))
        return sha256(self.model.identity.encode(), self.questions.key.encode(), offsets.encode())[:16]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict for each reply."""
        differences = self.logit_differences(items)
        answers = {name: values - self.offsets.get(name, 0.0) for name, values in differences.items()}
        claiming = [item for item, value in zip(items, answers["claims"], strict=True) if value > 0]
        names = self._names(claiming)
        return [
            self._verdict({key: float(values[at]) for key, values in answers.items()}, names.get(item.id))
            for at, item in enumerate(items)
        ]

    def logit_differences(self, items: Sequence[Item]) -> dict[str, Float[np.ndarray, " items"]]:
        """Return logit(yes) - logit(no) of every question, in the order of the items."""
        if not items:
            return {name: np.zeros(0) for name in ASKED}
        chats = [self.questions.yes_no_conversation(item, name) for item in items for name in ASKED]
        table = score(self.model, chats, CLEAN).set_index("conversation")["logit_diff"]
        return {name: table.loc[[f"{item.id}/{name}" for item in items]].to_numpy() for name in ASKED}

    def _names(self, items: Sequence[Item]) -> dict[str, str]:
        """Return what replies name, by id; an answer none of whose words the reply has is none."""
        if not items:
            return {}
        chats = [self.questions.naming_conversation(item) for item in items]
        texts = generate(self.model, chats, CLEAN, max_new_tokens=_NAME_TOKENS)["text"]
        lines = {
            item.id: str(text).strip().split("\n")[0].strip(" \"'.") for item, text in zip(items, texts, strict=True)
        }
        return {item.id: lines[item.id] for item in items if set(words(lines[item.id])) & set(words(item.reply))}

    @staticmethod
    def _verdict(answers: Mapping[str, float], named: str | None) -> Verdict:
        claims = answers["claims"] > 0
        named = named if claims else None
        return Verdict(
            claims="yes" if claims else "no",
            named=named,
            claim_first=answers["claim_first"] > 0 if named is not None else None,
            refused=answers["refused"] > 0 and not claims,
            coherent=answers["coherent"] > 0,
            confidence=_probability(answers["claims"]),
            reason=", ".join(f"{name} {value:+.2f}" for name, value in answers.items()),
        )


def calibrated(judge: LocalJudge, items: Sequence[Item], labels: Mapping[str, Label]) -> LocalJudge:
    """Return the judge with offsets at which labels are told apart best (sensitivity + specificity).

    Give it labels that it is not measured on. Raises UsageError for fewer than ten of either answer.
    """
    labelled = [item for item in items if item.id in labels]
    differences = judge.logit_differences(labelled)
    offsets = {}
    for name in ("coherent", "refused", "claims"):
        truth = np.array([_answer(labels[item.id], name) for item in labelled], dtype=bool)
        if min(truth.sum(), (~truth).sum()) < FEWEST:
            given = f"labels of {name!r}: {truth.sum()} yes and {(~truth).sum()} no"
            raise UsageError(given, f"{FEWEST} of both at least", "label more replies, or take the judge as it is")
        offsets[name] = _best_offset(differences[name], truth)
    return replace(judge, offsets=offsets)


def _answer(label: Label, name: str) -> bool:
    return label.claims == "yes" if name == "claims" else bool(getattr(label, name))


def _best_offset(values: Float[np.ndarray, " items"], truth: Bool[np.ndarray, " items"]) -> float:
    """Return the threshold of the largest sensitivity + specificity, midway between two values."""
    ordered = np.unique(values)
    thresholds = np.concatenate([[ordered[0] - 1], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1]])
    gains = [(values[truth] > t).mean() + (values[~truth] <= t).mean() for t in thresholds]
    return float(thresholds[int(np.argmax(gains))])


def _probability(logit: float) -> float:
    return 1 / (1 + math.exp(-min(max(logit, -50.0), 50.0)))
