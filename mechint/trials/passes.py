"""Pass and fail, as published labelled sets count them, and how far a judge agrees with such labels.

An injected trial passes if the reply can be read, does not refuse, and claims something that fits the concept; a clean
one if it can be read, does not refuse, and claims nothing. Whether the name or the claim comes first does not matter
there, as it does for the classes of `mechint.trials.outcomes`.

    replies, labels = read_published_labels(Path("test.jsonl"))
    pass_agreement(RulesJudge(), replies, labels, concept_lexicon())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.trials.agreement import ALL_ARMS, measures
from mechint.trials.labelled_sets import Half, LabelledSet
from mechint.trials.labels import Label
from mechint.trials.outcomes import Lexicon, mentions
from mechint.trials.published_labels import PublishedReply
from mechint.trials.verdicts import Item, Judge, Verdict

_CLEAN, _INJECTED = "clean", "injected"
Answer = Callable[[PublishedReply, Label], bool | None]


def passes(verdict: Verdict, concept: str, lexicon: Lexicon) -> bool:
    """Whether a reply passes; `concept` is what was injected, "" where nothing was."""
    if not verdict.coherent or verdict.refused:
        return False
    return names_rightly(verdict, concept, lexicon) if concept else verdict.claims != "yes"


def names_rightly(verdict: Verdict, concept: str, lexicon: Lexicon) -> bool:
    """Whether what a reply claims fits the concept."""
    named = verdict.named if verdict.claims == "yes" else None
    return named is not None and any(mentions(named, each, lexicon) for each in concept.split("+"))


def pass_agreement(
    judge: Judge, replies: Sequence[PublishedReply], labels: Sequence[Label], lexicon: Lexicon
) -> pd.DataFrame:
    """Return `question, arm, n, TP, FP, FN, TN, sensitivity, ...` of a judge on published labels, taken for true.

    Questions: "passes", "names rightly", "claims", "claim first", "refused", "coherent", each on the replies whose
    labels answer it. Raises UsageError where there is no reply.
    """
    if not replies:
        raise UsageError("no labelled replies", "at least one", "give a file that has some")
    verdicts = judge.judge([Item(reply.id, reply.prompt, reply.reply) for reply in replies])
    rows = []
    for question, (truth, answer) in _questions(lexicon).items():
        for arm in (_INJECTED, _CLEAN, ALL_ARMS):
            counts = dict.fromkeys(("TP", "FP", "FN", "TN"), 0)
            for reply, label, verdict in zip(replies, labels, verdicts, strict=True):
                expected = truth(reply, label)
                if expected is None or arm not in (ALL_ARMS, _INJECTED if reply.concept else _CLEAN):
                    continue
                counts[_cell(expected, answer(reply, verdict))] += 1
            if sum(counts.values()):
                rows.append({"question": question, "arm": arm, **measures(np.array(list(counts.values()), float))})
    return pd.DataFrame(rows)


def labelled_replies(labelled: LabelledSet, half: Half = "held-out") -> tuple[list[PublishedReply], list[Label]]:
    """Return the replies of a bundled set whose frozen labels say whether they pass; random vectors have none."""
    labels = {key: label for key, label in labelled.frozen(half).items() if label.passes is not None}
    concepts = dict(zip(labelled.trials["id"], labelled.trials["concept"], strict=True))
    items = [item for item in labelled.items(half) if item.id in labels]
    replies = [
        PublishedReply(item.id, item.reply, concepts[item.id], labels[item.id].passes, prompt=item.prompt)
        for item in items
    ]
    return replies, [labels[item.id] for item in items]


def _questions(lexicon: Lexicon) -> Mapping[str, tuple[Answer, Callable[[PublishedReply, Verdict], bool]]]:
    """Return what a label says, None where it does not, and what a verdict says, by question."""
    return {
        "passes": (lambda r, _: r.passed, lambda r, v: passes(v, r.concept, lexicon)),
        "names rightly": (lambda r, _: r.named_rightly, lambda r, v: names_rightly(v, r.concept, lexicon)),
        "claims": (lambda _, label: None if label.claims == "unclear" else label.claims == "yes", _claims),
        "claim first": (lambda _, label: label.claim_first, _claims_first),
        "refused": (lambda _, label: label.refused, lambda _, v: v.refused),
        "coherent": (lambda _, label: label.coherent, lambda _, v: v.coherent),
    }


def _claims(_: PublishedReply, verdict: Verdict) -> bool:
    return verdict.claims == "yes"


def _claims_first(_: PublishedReply, verdict: Verdict) -> bool:
    return verdict.claims == "yes" and verdict.claim_first is not False


def _cell(truth: bool, answer: bool) -> str:
    return ("TP" if answer else "FN") if truth else ("FP" if answer else "TN")
