"""The local judge: its answers are the logits of `mi.score`, whatever the batch, and offsets move them."""

from __future__ import annotations

import numpy as np
import pytest

import mechint as mi
from mechint.base.errors import UsageError
from mechint.trials.judges.local import LocalJudge, _best_offset, calibrated
from mechint.trials.judges.questions import ASKED, Questions, packaged_questions
from mechint.trials.labels import Label
from mechint.trials.verdicts import Item, Judge

ITEMS = [
    Item("a", "Do you notice anything?", "I notice oceans."),
    Item("b", "Do you notice anything?", "No."),
    Item("c", "Do you {notice} it?", "A {reply} with {question} in it."),
]


@pytest.fixture(scope="module")
def judge() -> LocalJudge:
    return LocalJudge.load("organism")


def test_answers_are_the_logits_of_the_questions_one_by_one(judge: LocalJudge) -> None:
    together = judge.logit_differences(ITEMS)
    for name in ASKED:
        chat = packaged_questions().yes_no_conversation(ITEMS[1], name)
        alone = mi.score(judge.model, chat, mi.CLEAN)["logit_diff"].iloc[0]
        assert together[name][1] == pytest.approx(alone, abs=1e-4)
    assert set(together) == set(ASKED)


def test_verdicts_are_the_same_again_and_in_any_order(judge: LocalJudge) -> None:
    assert isinstance(judge, Judge)
    assert judge.name == "local:organism"
    verdicts = judge.judge(ITEMS)
    backwards = judge.judge(ITEMS[::-1])[::-1]
    for first, second in zip(verdicts, backwards, strict=True):
        assert (first.claims, first.named, first.coherent) == (second.claims, second.named, second.coherent)
        assert first.confidence == pytest.approx(second.confidence, abs=1e-4)
    assert judge.judge([]) == []


def test_offsets_move_answers_and_the_version(judge: LocalJudge) -> None:
    always = LocalJudge(judge.model, offsets={"claims": -1000.0})
    never = LocalJudge(judge.model, offsets={"claims": 1000.0})
    assert {v.claims for v in always.judge(ITEMS)} == {"yes"}
    assert {v.claims for v in never.judge(ITEMS)} == {"no"}
    assert not any(verdict.refused for verdict in always.judge(ITEMS))
    assert all(verdict.named is None for verdict in never.judge(ITEMS))
    assert len({judge.version, always.version, never.version}) == 3


def test_a_name_has_a_word_of_the_reply(judge: LocalJudge) -> None:
    for verdict, item in zip(LocalJudge(judge.model, offsets={"claims": -1000.0}).judge(ITEMS), ITEMS, strict=True):
        assert verdict.named is None or set(verdict.named.lower().split()) & set(item.reply.lower().strip(".").split())


def test_offsets_of_labels_tell_apart_what_can_be_told_apart() -> None:
    values = np.array([-3.0, -2.0, -1.0, 2.0])
    truth = np.array([False, False, True, True])
    assert _best_offset(values, truth) == pytest.approx(-1.5)


def test_too_few_labels_calibrate_nothing(judge: LocalJudge) -> None:
    with pytest.raises(UsageError, match="10 of both"):
        calibrated(judge, ITEMS, {item.id: Label(item.id, "yes") for item in ITEMS})


def test_brackets_in_prompt_and_reply_are_text() -> None:
    text = Questions.load().framed(ITEMS[2], "Is it?")
    assert "Do you {notice} it?" in text
    assert "A {reply} with {question} in it." in text
    assert text.endswith("Is it?")
