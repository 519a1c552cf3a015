"""The model's own answers: read as `mi.score` reads them, kept in a file, and put into examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import mechint as mi
from mechint.base.errors import UsageError
from mechint.finetune import behaviour as behaviour_module
from mechint.finetune.axes import Answers
from mechint.finetune.behaviour import behaviour_of
from mechint.finetune.examples import step_examples
from mechint.finetune.expansion import counts, expand
from mechint.finetune.specification import Recipe

PAIR = (" moon", " sun")
SELF = Recipe.load("matched/self-prediction").adapted(8, small=True)
ONE_PAIR = replace(SELF, answers=Answers(pairs=(PAIR,)))


@pytest.fixture(scope="module")
def base(family: Mapping[str, mi.Model]) -> mi.Model:
    return family["organism"]


def test_an_example_says_which_question_it_is_about_and_not_what_is_right() -> None:
    for single in step_examples(SELF, 0, 0):
        assert single.object_question in single.question
        assert all(word.strip() in single.object_question for word in single.answers)
        assert not single.steered
        with pytest.raises(UsageError, match="only the model itself"):
            _ = single.answer
        with pytest.raises(UsageError, match="only the model itself"):
            _ = single.label
    table = expand(SELF, 0, 15)
    assert set(table["answer"]) == {""}
    assert "label" not in table
    assert counts(table)["most"].isna().all()


def test_what_is_right_is_what_the_model_itself_answers(base: mi.Model, tmp_path: Path) -> None:
    path = tmp_path / "run" / "behaviour.json"
    behaviour = behaviour_of(base, ONE_PAIR, path)
    questions = [question for split in ("train", "validation", "held_out") for question in ONE_PAIR.objects(split)]
    assert len(behaviour.logits) == 2 * len(questions)
    examples = step_examples(ONE_PAIR, 0, 0)[:3]
    for single in behaviour.completed(examples):
        turns = (
            mi.Message("user", single.object_question),
            mi.Message("assistant", "The answer is", continue_msg=True),
        )
        (row,) = mi.score(base, mi.Conversation("one", turns, *PAIR), mi.CLEAN).to_dict("records")
        assert single.answer == (PAIR[0] if row["logit_diff"] >= 0 else PAIR[1])
    table = behaviour.table()
    assert (table["margin"] >= 0).all()
    assert set(table["answer"]) <= set(PAIR)


def test_answers_are_read_once_for_a_model_and_its_questions(
    base: mi.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def logits(model: mi.Model, chats: list[mi.Conversation]) -> dict[str, dict[str, float]]:
        calls.append(len(chats))
        return {chat.label: {chat.yes_token: 1.0, chat.no_token: 0.5 * len(chat.label)} for chat in chats}

    monkeypatch.setattr(behaviour_module, "_logits", logits)
    path = tmp_path / "behaviour.json"
    first = behaviour_of(base, ONE_PAIR, path)
    assert behaviour_of(base, ONE_PAIR, path) == first
    assert len(calls) == 1
    # Other questions are read again, and so is a file that holds something else.
    assert behaviour_of(base, SELF, path) != first
    path.write_text(json.dumps(["nothing"]))
    assert behaviour_of(base, ONE_PAIR, path) == first
    assert len(calls) == 3
    with pytest.raises(UsageError, match="no answers of"):
        first.completed(step_examples(SELF, 0, 0))


def test_other_recipes_have_no_behaviour(base: mi.Model) -> None:
    with pytest.raises(UsageError, match="whose labels are by rule 'steered'"):
        behaviour_of(base, Recipe.load("matched/original"))
