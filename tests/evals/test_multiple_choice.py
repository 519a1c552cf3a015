"""Which of several, on oracles: who knows is told from who says one word; a model is read as `mi.score` reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import pytest

import mechint as mi
from mechint.base.errors import UsageError
from mechint.chat.tokens import Answers
from mechint.evals import oracles
from mechint.evals.multiple_choice import multiple_choice, multiple_choice_rates
from mechint.finetune.examples import example
from mechint.finetune.injections import injection_of
from mechint.finetune.specification import Recipe

STRONG = Recipe.load("matched/how-strong").adapted(8, small=True)
WORDS = [option.strip() for option in STRONG.answers.options]


def answering(word: Callable[[oracles.Cell], str], mass: float = 0.98) -> oracles.Planted:
    """An oracle by the option that it gives, as a word."""
    return oracles.Planted(
        "answering",
        lambda cell: 0.0,
        lambda cell: mass,
        lambda cell, option: 4.0 * (option.strip() == word(cell)),
    )


def right_word(cell: oracles.Cell) -> str:
    return WORDS[int(str(cell.tags["right"]))]


def trials_of(oracle: oracles.Planted, recipe: Recipe = STRONG) -> pd.DataFrame:
    return multiple_choice(oracle, recipe, n=64)


def test_who_knows_is_told_from_who_guesses() -> None:
    knows = multiple_choice_rates(trials_of(answering(right_word))).iloc[0]
    assert (knows["accuracy"], knows["kappa"], knows["warning"]) == (1.0, 1.0, "")
    assert knows["baseline"] < 0.4
    guesses = multiple_choice_rates(trials_of(answering(lambda cell: WORDS[int(abs(cell.noise()) * 97) % 4]))).iloc[0]
    assert guesses["kappa_low"] < 0 < guesses["kappa_high"]
    assert guesses["log_score"] < knows["log_score"]


def test_one_answer_to_everything_is_marked_and_so_is_hardly_any() -> None:
    constant = multiple_choice_rates(trials_of(answering(lambda cell: WORDS[2]))).iloc[0]
    assert constant["kappa"] == pytest.approx(0.0)
    assert constant["warning"] == "one answer to everything"
    mute = multiple_choice_rates(trials_of(answering(right_word, mass=0.05))).iloc[0]
    assert mute["kappa"] == 1.0
    assert mute["warning"] == "options are hardly said"


class TestPublished:
    """Faults of the published estimator, by their number in the list of faults; ours reads the planted truth."""

    def test_32_one_word_for_two_doses_is_above_chance_for_who_says_it(self) -> None:
        merged = {WORDS[3]: WORDS[2]}  # as published, where 20 and 30 were one word of three
        table = trials_of(answering(lambda cell: WORDS[2]))
        published = multiple_choice_rates(table, words=merged, estimator="published").iloc[0]
        assert published["chance"] == pytest.approx(1 / 3)
        assert published["accuracy"] > 0.45, "it knows nothing"
        ours = multiple_choice_rates(table, words=merged).iloc[0]
        assert ours["accuracy"] == ours["baseline"] == published["accuracy"]
        assert ours["kappa"] == pytest.approx(0.0)

    def test_32_what_is_known_and_not_said_is_a_wrong_answer(self) -> None:
        table = trials_of(answering(right_word, mass=0.4))
        assert multiple_choice_rates(table, estimator="published")["accuracy"].iloc[0] == 0.0
        ours = multiple_choice_rates(table).iloc[0]
        assert ours["kappa"] == 1.0
        assert ours["mass"] == pytest.approx(0.4)


@pytest.mark.parametrize("name", ["which-third", "which-sentence"])
def test_every_recipe_with_options_is_asked(name: str) -> None:
    recipe = Recipe.load(f"matched/{name}").adapted(8, small=True)
    right = [option.strip() for option in recipe.answers.options]
    table = trials_of(answering(lambda cell: right[int(str(cell.tags["right"]))]), recipe)
    assert multiple_choice_rates(table)["kappa"].iloc[0] == 1.0
    assert table["right"].nunique() == len(right)


def test_a_model_is_read_as_score_reads_it(family: Mapping[str, mi.Model]) -> None:
    model = family["organism-blind"]
    table = multiple_choice(model, STRONG, n=2)
    item = example(STRONG, 0, 0, 1, ("vectors", "openers", "replies", "wordings"))
    added = injection_of(STRONG, item, model.d_model)
    expected = mi.score(model, item.conversation(), added, answers=Answers.options(list(item.answers))).iloc[0]
    p = {word.strip(): expected[f"p_{word}"] for word in item.answers}
    row = table.iloc[1]
    assert row["mass"] == pytest.approx(sum(p.values()), rel=1e-4)
    assert row["p_right"] == pytest.approx(p[row["right"]] / sum(p.values()), rel=1e-4)
    assert row["answered"] == max(p, key=lambda word: p[word])
    assert len(table.attrs["receipts"]) > 0


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(UsageError, match="one of two answers"):
        multiple_choice(oracles.knower(), Recipe.load("matched/original").adapted(8, small=True))
    with pytest.raises(UsageError, match="without trials"):
        multiple_choice_rates(trials_of(answering(right_word)).head(0))
