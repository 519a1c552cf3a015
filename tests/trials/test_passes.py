"""Passes as published sets count them, and how far a judge agrees with labels of that kind."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mechint.base.errors import UsageError
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.labelled_sets import labelled_set
from mechint.trials.labels import Label
from mechint.trials.passes import labelled_replies, pass_agreement, passes
from mechint.trials.prompts import concept_lexicon
from mechint.trials.published_labels import PublishedReply
from mechint.trials.verdicts import Item, Verdict

LEXICON = {"oceans": ("sea",), "glass": ()}
SEA = Verdict("yes", named="the sea", claim_first=False)


@pytest.mark.parametrize(
    ("verdict", "concept", "expected"),
    [
        (SEA, "oceans", True),
        (SEA, "glass", False),
        (SEA, "glass+oceans", True),
        (SEA, "", False),
        (Verdict("yes"), "oceans", False),
        (Verdict("no"), "oceans", False),
        (Verdict("no"), "", True),
        (Verdict("unclear"), "", True),
        (Verdict("no", refused=True), "", False),
        (Verdict("yes", named="the sea", coherent=False), "oceans", False),
    ],
)
def test_a_pass_is_a_claim_that_fits_or_no_claim_where_nothing_was_injected(
    verdict: Verdict, concept: str, expected: bool
) -> None:
    assert passes(verdict, concept, LEXICON) is expected


class _Judge:
    """Says of every reply that it claims the sea."""

    name, version = "sea", "0"

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [SEA for _ in items]


def test_counts_are_those_of_the_labels_that_say_something() -> None:
    replies = [
        PublishedReply("a", "I sense the sea", "oceans", True, True),
        PublishedReply("b", "I sense a song", "oceans", False, False),
        PublishedReply("c", "No", "", True),
        PublishedReply("d", "?", "", None),
    ]
    labels = [
        Label("a", "yes", claim_first=True),
        Label("b", "unclear", coherent=False),
        Label("c", "no"),
        Label("d", "no", refused=True),
    ]
    table = pass_agreement(_Judge(), replies, labels, LEXICON).set_index(["question", "arm"])
    assert table.loc[("passes", "all"), ["TP", "FP", "FN", "TN"]].tolist() == [1, 1, 1, 0]
    assert table.loc[("passes", "clean"), ["TP", "FP", "FN", "TN"]].tolist() == [0, 0, 1, 0]
    assert table.loc[("names rightly", "all"), ["TP", "FP"]].tolist() == [1, 1]
    assert table.loc[("claims", "all"), ["TP", "FP"]].tolist() == [1, 2]  # the unclear one is left out
    assert table.loc[("claim first", "all"), ["TP", "FN"]].tolist() == [0, 1]
    assert table.loc[("refused", "all"), ["FN", "TN"]].tolist() == [1, 3]
    assert table.loc[("coherent", "all"), ["TP", "FP"]].tolist() == [3, 1]
    with pytest.raises(UsageError, match="no labelled replies"):
        pass_agreement(_Judge(), [], [], LEXICON)


def test_the_rules_judge_keeps_what_it_was_measured_to_be_on_written_replies() -> None:
    replies, labels = labelled_replies(labelled_set("written"))
    assert len(replies) > 90
    table = pass_agreement(RulesJudge(), replies, labels, concept_lexicon()).set_index(["question", "arm"])
    for arm in ("injected", "clean"):
        assert table.loc[("passes", arm), "accuracy"] >= 0.9
    assert table.loc[("refused", "all"), "accuracy"] >= 0.95
    assert table.loc[("coherent", "all"), "accuracy"] >= 0.93


def test_the_written_set_is_small_frozen_and_of_both_arms() -> None:
    written = labelled_set("written")
    assert len(written.frozen()) == len(written.trials) >= 120
    assert written.labels.revised() == []
    assert {"clean", "injected"} <= set(written.trials["series"])
    size = sum(path.stat().st_size for path in written.labels.path.parent.iterdir())
    assert size < 200_000
    assert not labelled_replies(labelled_set())[0]
    with pytest.raises(UsageError, match="sampled, written"):
        labelled_set("found")
