"""What is really said at the answer: oracles that say it or not, and a tiny model beside its own replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

import mechint as mi
from mechint.base.errors import UsageError
from mechint.evals import oracles
from mechint.evals.first_tokens import first_tokens, token_shares
from mechint.evals.texts import distinct_texts
from mechint.finetune.specification import Recipe

RECIPE = Recipe.load("matched/original").adapted(8, small=True)
SMALL = replace(RECIPE, signal=replace(RECIPE.signal, layers=("2:4",), dose=(0.8,)))


def saying(word: Callable[[oracles.Cell], str]) -> oracles.Planted:
    """A knower by its odds, that says a word of its own."""
    return replace(oracles.knower(noise=0.0), says=lambda cell, sample: word(cell))


def test_what_is_said_is_counted_by_what_it_means() -> None:
    def word(cell: oracles.Cell) -> str:
        chat = cell.conversation
        return (chat.yes_token if cell.is_steered else chat.no_token).strip()

    shares = token_shares(first_tokens(saying(word), SMALL)).set_index(["kind", "said"])["share"]
    assert shares.to_dict() == {
        ("clean", "positive"): 0.0,
        ("clean", "negative"): 1.0,
        ("steered", "positive"): 1.0,
        ("steered", "negative"): 0.0,
    }


def test_odds_that_know_do_not_hide_what_is_said_instead() -> None:
    table = first_tokens(saying(lambda cell: "As" if cell.noise() > 0 else "Well"), SMALL, texts=30)
    odds = table["p_positive"] > table["p_negative"]
    assert (odds == (table["kind"] == "steered")).all(), "it knows, by its odds"
    shares = token_shares(table).groupby("said")["share"].sum()
    assert shares["positive"] == shares["negative"] == 0
    assert shares["As"] + shares["Well"] == pytest.approx(2.0)
    rare = token_shares(table, tokens=1)
    assert set(rare["said"]) == {"positive", "negative", table["token"].value_counts().index[0], "other"}
    assert rare.groupby("kind")["share"].sum().tolist() == pytest.approx([1.0, 1.0])


def test_the_likeliest_token_is_that_of_a_reply_and_no_answer_is_likelier(family: Mapping[str, mi.Model]) -> None:
    model = family["organism-blind"]
    table = first_tokens(model, SMALL, texts=3, vectors=2)
    assert table["kind"].tolist() == ["clean", "steered"] * 3
    assert (table["p_token"] >= table[["p_positive", "p_negative"]].max(axis=1) - 1e-6).all()
    text = distinct_texts(SMALL, 3, 0, "clean", ("keyed-neutral",))[0]
    reply = mi.generate(model, text.conversation(), mi.CLEAN, max_new_tokens=1)["text"].iloc[0]
    assert table["token"].iloc[0] == reply
    assert len(table.attrs["receipts"]) > 0


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(UsageError, match="without trials"):
        token_shares(first_tokens(saying(lambda cell: "As"), SMALL).head(0))
