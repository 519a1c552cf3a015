"""Classes of replies: each verdict with each thing that was done has one, and the judge cannot change what was done."""

from __future__ import annotations

import pytest

from mechint.base.errors import UsageError
from mechint.trials.outcomes import CLASSES, mentions, outcome, outcome_table
from mechint.trials.verdicts import Item, Verdict, verdict_table
from tests.trials.trial_tables import trial, trials

LEXICON = {"oceans": ("sea", "waves"), "glass": ()}
SEA = Verdict("yes", named="the deep sea", claim_first=True)


@pytest.mark.parametrize(
    ("verdict", "reply", "concept", "expected"),
    [
        (SEA, "", "oceans", "names rightly"),
        (SEA, "", "curiosity+oceans", "names rightly"),
        (SEA, "", "glass", "names wrongly"),
        (SEA, "", "", "names wrongly"),
        (Verdict("yes", named="the sea", claim_first=False), "", "oceans", "claims"),
        (Verdict("yes"), "the sea", "oceans", "claims"),
        (Verdict("no"), "Waves.", "oceans", "leaks"),
        (Verdict("unclear"), "the sea", "oceans", "leaks"),
        (Verdict("no"), "the sea", "", "denies"),
        (Verdict("no"), "nothing", "oceans", "denies"),
        (Verdict("yes", named="the sea", refused=True), "", "oceans", "refuses"),
        (Verdict("yes", named="the sea", refused=True, coherent=False), "", "oceans", "incoherent"),
    ],
)
def test_each_verdict_has_one_class(verdict: Verdict, reply: str, concept: str, expected: str) -> None:
    assert outcome(verdict, reply, concept, LEXICON) == expected
    assert expected in CLASSES


@pytest.mark.parametrize(
    ("text", "concept", "expected"),
    [
        ("An OCEAN of it", "oceans", True),
        ("oceans", "ocean", True),
        ("oceanic", "oceans", False),
        ("glasses", "glass", True),
        ("a seat", "oceans", False),
        ("waves.", "oceans", True),
        ("", "oceans", False),
    ],
)
def test_words_are_whole_words_of_either_number(text: str, concept: str, expected: bool) -> None:
    assert mentions(text, concept, LEXICON) is expected


def test_a_table_leaves_out_what_was_not_judged_and_random_vectors_have_no_right_name() -> None:
    rows = [trial(0), trial(1, series="random"), trial(2), trial(3, steered=False)]
    table = trials(*rows)
    items = [Item(str(row["id"]), "?", str(row["reply"])) for row in rows]
    judged = verdict_table(_Judge(), items[:3], [SEA, SEA, Verdict("unclear", error="no answer")])
    classes = outcome_table(table, judged, LEXICON)
    assert classes["outcome"].tolist() == ["names rightly", "names wrongly"]
    assert classes["id"].tolist() == [rows[0]["id"], rows[1]["id"]]


def test_a_missing_verdict_is_no_class() -> None:
    with pytest.raises(UsageError, match="without a verdict: no answer"):
        outcome(Verdict("yes", error="no answer"), "", "oceans", LEXICON)
    with pytest.raises(UsageError, match="0 verdicts of the judge fixed for 1 replies"):
        verdict_table(_Judge(), [Item("a", "?", "!")], [])
    with pytest.raises(UsageError, match="1 verdicts on trials that are not here"):
        outcome_table(trials(trial(0)), verdict_table(_Judge(), [Item("a", "?", "!")], [SEA]), LEXICON)


class _Judge:
    name, version = "fixed", "0"

    def judge(self, items: list[Item]) -> list[Verdict]:
        return [SEA for _ in items]
