"""What a trial is: ids that name their contents, and tables that cannot contradict themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mechint.base.errors import UsageError
from mechint.trials.records import COLUMNS, TrialKey, checked_trials
from tests.trials.trial_tables import trial, trials

KEY = TrialKey("w", "p", "v", (20,), 2.0, "reply", 1.0, 200, 0, 3)
OTHERS = {
    "weights_hash": "w2",
    "prompt_hash": "p2",
    "vector_hash": "v2",
    "layers": (2, 0),
    "strength": 2.5,
    "steer": "everything",
    "temperature": 0.7,
    "max_new_tokens": 100,
    "seed": 1,
    "sample": 4,
    "draw": "standard/oceans",
    "surroundings": "other code",
}


def test_another_model_prompt_or_sample_is_another_id() -> None:
    ids = {KEY.id, *(replace(KEY, **{name: value}).id for name, value in OTHERS.items())}
    assert len(ids) == 1 + len(OTHERS)
    assert replace(KEY).id == KEY.id


def test_a_table_is_returned_in_order_with_its_types() -> None:
    table = trials(trial(0), trial(1, steered=False))
    checked = checked_trials(table[sorted(COLUMNS)].assign(seed=["0", "0"]))
    assert list(checked.columns) == list(COLUMNS)
    assert checked["seed"].dtype == "int64"
    assert checked["norm"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"series": "swapped"}, "series other than"),
        ({"question": "what"}, "question other than"),
        ({"strength": 0.0}, "a vector but no strength"),
        ({"strength": float("nan")}, "a vector but no strength"),
        ({"strength": float("inf")}, "strength that is no finite number"),
        ({"strength": "strong"}, "strength that is no finite number"),
        ({"concept": ""}, "a vector but no name"),
        ({"series": "clean"}, "a strength but no vector"),
        ({"series": "clean", "strength": 0.0}, "a concept but no vector"),
        ({"n_tokens": 1.5}, "no whole number"),
        ({"seed": None}, "no whole number"),
        ({"reply": None}, "reply that is no text"),
        ({"relative": "yes"}, "not true or false"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(change: dict[str, object], complaint: str) -> None:
    table = trials(trial(0), {**trial(1), **change})
    with pytest.raises(UsageError, match=complaint) as error:
        checked_trials(table, "replies.parquet")
    assert "replies.parquet, row 1" in str(error.value)


def test_a_concept_that_is_only_mentioned_needs_no_vector() -> None:
    assert len(checked_trials(trials(trial(0, steered=False, concept="oceans", question="mention")))) == 1


def test_two_rows_of_one_id_are_refused() -> None:
    with pytest.raises(UsageError, match="an id that another row has too"):
        checked_trials(trials(trial(0), trial(0, reply="another")))


def test_missing_and_unknown_columns_are_named() -> None:
    table = trials(trial(0)).drop(columns="prompt").assign(was_injected=True)
    with pytest.raises(UsageError, match="lacks prompt and has was_injected"):
        checked_trials(table)
