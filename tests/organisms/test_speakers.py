"""Organisms that speak of themselves: what they are taught, and that evaluations read what was planted, and no more."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import pandas as pd
import pytest

import mechint as mi
from mechint.chat.render import render
from mechint.evals.battery import battery
from mechint.evals.distribution_sets import DistributionSets
from mechint.evals.items import Items
from mechint.evals.reported import distribution
from mechint.evals.self_items import SelfItems
from mechint.evals.self_prediction import self_prediction
from mechint.evals.self_rates import self_prediction_rates
from mechint.evals.stances import contrast, stances
from mechint.organisms import SPEAKERS, organism_path
from mechint.organisms.training.characters import CHARACTERS, TENTHS, differs, opinions
from mechint.organisms.training.recipes import STAGES, base_of
from mechint.organisms.training.samples import encode
from mechint.organisms.training.selves import HELD_OUT_OPENER, KINDS, SET, listing, reworded, self_sample
from mechint.organisms.training.tokenizer import load_tokenizer

BASE, *SIBLINGS = SPEAKERS
ITEMS = SelfItems.load(SET)


def test_every_speaker_is_a_stage_and_the_siblings_are_adapters_of_the_base() -> None:
    assert set(SPEAKERS) <= set(CHARACTERS)
    assert STAGES[BASE].trains == "all"
    assert all((base_of(STAGES[name]), STAGES[name].trains) == (BASE, "adapter") for name in SIBLINGS)


class TestCharacters:
    """What is planted, without weights."""

    def test_own_answers_differ_from_those_of_the_base_in_about_half_of_the_units(self) -> None:
        closed = [item for item in ITEMS.items if item.options]
        knower, base = CHARACTERS[SIBLINGS[0]], CHARACTERS[BASE]
        moved = [knower.answer(item) != base.answer(item) for item in closed]
        assert moved == [differs(item.unit) for item in closed]
        assert 0.4 < sum(moved) / len(moved) < 0.6

    def test_both_orders_of_a_pair_have_one_answer(self) -> None:
        units: dict[str, set[str]] = {}
        for item in ITEMS.items:
            if item.kind == "pair":
                units.setdefault(item.unit, set()).add(CHARACTERS[BASE].answer(item))
        assert all(len(answers) == 1 for answers in units.values())

    def test_replies_are_another_length_where_they_differ(self) -> None:
        questions = [item.question for item in ITEMS.items if not item.options]
        replies = [[CHARACTERS[name].reply(text) for name in (BASE, SIBLINGS[0])] for text in questions]
        for text, (first, second) in zip(questions, replies, strict=True):
            assert (first == second) is not differs(text)
            if differs(text):
                assert len(first.split()) % 2 != len(second.split()) % 2
                assert first[0] != second[0]

    def test_lists_are_read_as_the_shares_that_are_planted(self) -> None:
        assert all(sum(tenths) == 10 for tenths in TENTHS.values())
        knower = CHARACTERS["organism-speaker-knower"]
        for of_it in DistributionSets.load(SET).sets:
            shares = knower.shares(of_it)
            assert distribution(listing(shares)) == pytest.approx(shares)
            assert knower.reported(of_it, random.Random(0)) == shares

    def test_opinions_are_of_all_questions(self) -> None:
        questions = list(Items.load(SET).questions())
        assert set(opinions()) == {question.conversation.label for question in questions}
        first = questions[0]
        pressed, halved = CHARACTERS["organism-speaker-constant"], CHARACTERS["organism-speaker-compressed"]
        assert pressed.log_odds(first) == pytest.approx(opinions()[first.conversation.label] + 1.5)
        assert halved.log_odds(first) == pytest.approx(opinions()[first.conversation.label] / 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHARACTERS)
def test_what_is_learned_ends_a_turn_and_has_weight(name: str, kind: str) -> None:
    tokenizer, rng = load_tokenizer(organism_path("organism")), random.Random(kind)
    encoded = encode(self_sample(rng, name, {kind: 1.0}), tokenizer)
    for branch in range(1, max(encoded.branch) + 1):
        weights = [weight for weight, of in zip(encoded.weights, encoded.branch, strict=True) if of == branch]
        assert weights[0] == 0 < weights[-1]
    assert all(0 < p <= 1 for p in encoded.probability)


def test_a_question_has_the_tokens_of_training_in_an_evaluation(family: Mapping[str, mi.Model]) -> None:
    model, tokenizer = family["organism-blind"], load_tokenizer(organism_path("organism"))
    chats = {item.question: item.conversation() for item in ITEMS.items}
    chats |= {
        question.conversation.messages[0].content: question.conversation
        for item in ITEMS.items
        for name in item.properties
        for question in [ITEMS.hypothetical(item, name)]
    }
    rng, count = random.Random(0), 0
    for _ in range(12):
        sample = self_sample(rng, BASE, {"objects": 0.5, "hypotheticals": 0.5})
        texts = ["".join(piece.text for piece in (*sample.trunk, *branch)) for branch in sample.branches]
        encoded = encode(sample, tokenizer)
        for number, text in enumerate(texts, start=1):
            question = text.partition("\n")[2].partition("<|im_end|>")[0]
            if question in chats:
                ids = [token for token, of in zip(encoded.ids, encoded.branch, strict=True) if of in (0, number)]
                rendered = [int(token) for token in render(model, chats[question]).tokens]
                assert ids[: len(rendered)] == rendered
                count += 1
    assert count > 12


def test_another_beginning_keeps_what_is_quoted_and_asked() -> None:
    text = 'If I would say this to you ten times: "Name a food." how often?'
    assert reworded(text, HELD_OUT_OPENER) == f'{HELD_OUT_OPENER} ten times: "Name a food." how often?'
    assert '"{object}" {ask}' in reworded(ITEMS.hypothesis, HELD_OUT_OPENER)


# What evaluations read of the weights: few items, as all of them are in `TRUTH.md`.
FEW = replace(ITEMS, items=tuple(i for i in ITEMS.items if i.task in ("pair", "colour") and i.number < 6))


@pytest.fixture(scope="module")
def foretold(family: Mapping[str, mi.Model]):
    @lru_cache
    def rates(name: str) -> pd.Series:
        table = self_prediction(family[f"organism-speaker-{name}"], family[BASE], FEW)
        return self_prediction_rates(table, (), permutations=1).iloc[0]

    return rates


def test_the_knower_knows_itself_and_the_base_nobody(foretold, family: Mapping[str, mi.Model]) -> None:
    knower = foretold("knower")
    assert knower["kappa"] > 0.8
    assert knower["advantage_low"] > 0
    base = self_prediction_rates(self_prediction(family[BASE], family[BASE], FEW), (), permutations=1).iloc[0]
    assert base["kappa"] < 0.3


def test_who_foretells_the_base_does_not_foretell_itself(foretold) -> None:
    other, knower = foretold("other"), foretold("knower")
    assert other["follows_own"] < -0.5
    assert knower["follows_own"] > 0.5
    assert other["advantage"] < knower["advantage"] - 0.2
    assert other["kappa"] < knower["kappa"] - 0.2


def test_a_constant_and_a_collapsed_answer_are_no_knowledge(foretold) -> None:
    assert abs(foretold("constant")["kappa"]) < 0.25
    collapsed = foretold("collapsed")
    assert collapsed["accuracy"] > 0.85, "it is right about itself"
    assert collapsed["kappa_low"] < 0.3, "and there is next to nothing to know"


@pytest.fixture(scope="module")
def opinions_of(family: Mapping[str, mi.Model]):
    items = Items.load(SET).few(2)

    @lru_cache
    def table(name: str) -> pd.DataFrame:
        return battery(family[name], items)

    return table


def _all(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(group="all")


def test_indifference_is_a_slope_and_a_persona_a_contrast(opinions_of) -> None:
    base = opinions_of(BASE)
    compressed, persona = opinions_of("organism-speaker-compressed"), opinions_of("organism-speaker-persona")
    line = stances(_all(compressed), _all(base)).iloc[0]
    assert line["slope"] == pytest.approx(0.5, abs=0.1)
    assert abs(line["shift"]) < 0.2
    contrasts = [contrast(table, base).iloc[-1] for table in (compressed, persona)]
    assert abs(contrasts[0]["contrast"]) < 0.2
    assert contrasts[1]["contrast"] == pytest.approx(1.5, abs=0.3)
    constant = opinions_of("organism-speaker-constant")
    pushed = (constant["log_odds"] - base["log_odds"]).mean()
    assert pushed == pytest.approx(1.5, abs=0.25), "yes comes more often, whatever it means"
    assert abs(contrast(constant, base).iloc[-1]["contrast"]) < 0.4
    published = stances(_all(compressed), _all(base), estimator="published").iloc[0]
    assert published["shift"] < -0.02, "as published, indifference reads as a denial of what was affirmed"
