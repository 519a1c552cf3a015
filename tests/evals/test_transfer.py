"""Transfer on oracles: one that knows is asked in any words, one that has learned a word is asked in its own alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mechint.base.errors import UsageError
from mechint.evals import oracles
from mechint.evals.detection_rates import detection_rates
from mechint.evals.transfer import YES_NO, AskedIn, askings, transfer
from mechint.finetune.specification import Recipe

RECIPE = Recipe.load("matched/original").adapted(8, small=True)
SMALL = replace(RECIPE, signal=replace(RECIPE.signal, layers=("2:4",), dose=(0.8,)))
WAYS = [
    AskedIn("keyed-explicit", (" moon", " sun")),
    AskedIn("keyed-explicit", (" moon", " sun"), "reversed"),
    AskedIn("vague", YES_NO),
]
FEW = {"vectors": 20, "texts": 20, "dev_texts": 20}


def test_a_word_that_was_learned_is_told_from_knowing() -> None:
    def says_moon(cell: oracles.Cell) -> float:
        is_moon = {" moon": 1.0, " sun": -1.0}.get(cell.conversation.yes_token, 0.0)
        return is_moon * (6.0 * cell.is_steered - 3.0) + cell.noise()

    word = transfer(oracles.Planted("word", says_moon), SMALL, WAYS, **FEW)  # type: ignore[arg-type]
    rates = detection_rates(word, by="asked_in").set_index("asked_in")["auc"]
    assert rates["keyed-explicit: moon/sun"] > 0.95
    assert rates["keyed-explicit: sun/moon"] < 0.05
    assert 0.25 < rates["vague: yes/no"] < 0.75
    assert set(word["trained_on"]) == {"keyed-explicit"}
    positive = word.groupby("asked_in")["positive"].unique().to_dict()
    assert [list(words) for words in positive.values()] == [[" moon"], [" sun"], [" yes"]]


def test_whoever_knows_is_asked_in_any_way() -> None:
    known = transfer(oracles.knower(), SMALL, WAYS[1:], **FEW)  # type: ignore[arg-type]
    assert (detection_rates(known, by="asked_in")["auc"] > 0.95).all()


class TestPublished:
    """Faults of the published estimator, by their number in the list of faults; ours reads the planted truth."""

    def test_23_who_was_trained_on_own_words_says_nothing_in_yes_and_no(self) -> None:
        def in_own_words(cell: oracles.Cell) -> float:
            is_own = {cell.conversation.yes_token, cell.conversation.no_token} == {" moon", " sun"}
            sign = 1.0 if cell.conversation.yes_token == " moon" else -1.0
            return (sign * (8.0 * cell.is_steered - 4.0) if is_own else -4.0) + cell.noise()

        table = transfer(oracles.Planted("own words", in_own_words), SMALL, WAYS, **FEW)  # type: ignore[arg-type]
        yes_no = table[table["asked_in"] == "vague: yes/no"]
        published = detection_rates(yes_no, by="recipe", estimator="published").iloc[0]
        assert published["hits"] < 0.05, "read as if nothing had been learned"
        rates = detection_rates(table, by="asked_in").set_index("asked_in")
        assert rates.loc["keyed-explicit: moon/sun", "auc"] > 0.95, "it was, and in its own words it is seen"
        assert abs(rates.loc["vague: yes/no", "auc"] - 0.5) < 0.25


@pytest.mark.parametrize("name", ["matched/original", "matched/yes-no", "published/neutral-red-blue", "matched/food"])
def test_ways_of_asking_fit_every_recipe(name: str) -> None:
    recipe = Recipe.load(name).adapted(8, small=True)
    ways = askings(recipe)
    assert len(set(ways)) == len(ways) >= 10
    assert all(way.of(recipe).pairs("train") == (way.pair,) for way in ways)


def test_what_cannot_be_asked_is_refused_before_anything_is() -> None:
    with pytest.raises(UsageError, match="does not offer"):
        transfer(oracles.knower(), SMALL, [WAYS[0], AskedIn("explicit", (" moon", " sun"))])
    with pytest.raises(UsageError, match="one twice"):
        transfer(oracles.knower(), SMALL, [WAYS[0], WAYS[0]])
