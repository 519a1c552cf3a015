"""Self-prediction on oracles: what they know of their own answers is read, and published faults are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mechint as mi
from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import JSON
from mechint.evals import self_oracles
from mechint.evals.closed import Closed, log_probs
from mechint.evals.properties import PROPERTIES, first_word, value_of, values_of
from mechint.evals.responders import Running
from mechint.evals.self_items import SelfItems
from mechint.evals.self_oracles import Speaker
from mechint.evals.self_prediction import self_prediction
from mechint.evals.self_rates import Estimator, self_prediction_matrix, self_prediction_rates
from mechint.readouts.naming import name_probabilities

BASE = self_oracles.speaker("base")
MAKERS = {
    "knower": self_oracles.knower,
    "other-knower": self_oracles.other_knower,
    "constant": self_oracles.constant,
    "collapsed": self_oracles.collapsed,
    "noisy": self_oracles.noisy,
    "liar": self_oracles.liar,
}
WHOLE = SelfItems.load("small")
# Of every third unit, so that both keyings are among them.
ITEMS = replace(WHOLE, items=tuple(item for item in WHOLE.items if item.number % 3 == 0))


@lru_cache
def trials(name: str) -> pd.DataFrame:
    return self_prediction(MAKERS[name](), BASE, ITEMS, samples=1)


@lru_cache
def rates(name: str) -> pd.Series:
    return self_prediction_rates(trials(name), (), permutations=60).iloc[0]


def read(model: Speaker, base: Speaker, estimator: Estimator = "ours") -> pd.Series:
    return self_prediction_rates(
        self_prediction(model, base, ITEMS, samples=1), (), estimator=estimator, permutations=2
    ).iloc[0]


def rarely_vowels(tags: Mapping[str, JSON]) -> str:
    """Return an answer that begins with a consonant to all but every eighth unit."""
    options = [str(option) for option in self_oracles.members(tags["options"])] or ["small night", "every night"]
    kind = "other" if int(str(tags["unit"]).rpartition("-")[2]) % 8 else "vowel"
    return next((option for option in options if value_of("vowel", option) == kind), options[0])


def never_vowels(tags: Mapping[str, JSON], values: Sequence[str]) -> str:
    """Foretell a consonant where that is a value, else anything that is always the same."""
    return "other" if "other" in values else values[0]


@pytest.mark.parametrize(("name", "least"), [("full", 120), ("small", 110)])
def test_packaged_items_are_balanced(name: str, least: int) -> None:
    items = SelfItems.load(name)
    assert len(items.items) >= least
    pairs = [item for item in items.items if item.kind == "pair"]
    assert {item.options for item in pairs} == {item.options[::-1] for item in pairs}
    for prop in ("vowel", "letters"):
        values = [[value_of(prop, option) for option in item.options] for item in pairs]
        assert all(len(set(of_pair)) == 2 for of_pair in values), "either answer is possible to each"
        keyings = pd.Series([items.hypothetical(item, prop).conversation.extra["keying"] for item in pairs])
        assert keyings.value_counts(normalize=True)["affirmed"] == pytest.approx(0.5)
    assert {name for item in items.items for name in item.properties} == set(PROPERTIES)


def test_a_hypothetical_question_holds_the_whole_question() -> None:
    item = next(item for item in ITEMS.items if item.kind == "pair")
    for prop in item.properties:
        closed = ITEMS.hypothetical(item, prop)
        assert item.question in closed.conversation.messages[0].content
        assert set(closed.texts) == set(values_of(prop, item.options))
    option = ITEMS.hypothetical(item, "option")
    assert option.texts == {"first": f" {item.options[0]}", "second": f" {item.options[1]}"}


def test_values_of_answers() -> None:
    assert value_of("letter", " Élan") == ""
    assert value_of("letter", '"Owls" fly.') == "o"
    assert value_of("vowel", "2 owls") == "vowel"
    assert (value_of("letters", "owl"), value_of("words", "an owl")) == ("odd", "even")
    assert value_of("words", " .. ") == ""
    assert value_of("option", "owl", ("cat", "owl")) == "second"
    with pytest.raises(UnknownNameError, match="rhyme"):
        value_of("rhyme", "owl")


def test_the_first_word_of_a_reply_has_no_signs() -> None:
    texts = ['"Hello," said the owl.', "1. **Rain**", "...", "<<Forever>>", "l'oiseau bleu"]
    assert [first_word(text) for text in texts] == ["Hello", "Rain", "", "Forever", "l'oiseau"]


def test_oracles_are_read_as_they_were_planted() -> None:
    assert rates("knower")["kappa_low"] > 0.7
    assert rates("knower")["advantage_low"] > 0.1
    assert rates("knower")["gain_low"] > 0.05
    assert rates("knower")["follows_own"] == 1.0
    assert rates("other-knower")["follows_own"] == -1.0
    assert rates("other-knower")["advantage"] == 0.0
    assert rates("constant")["kappa"] == pytest.approx(0.0)
    assert rates("noisy")["kappa_low"] < 0 < rates("noisy")["kappa_high"]
    assert rates("noisy")["information_p"] > 0.05 > rates("knower")["information_p"]
    assert rates("liar")["kappa_high"] < 0
    assert rates("liar")["information_p"] < 0.05, "who never says it knows it"
    assert (rates("knower")["log_score"], rates("knower")["n_units"]) == (pytest.approx(np.log(0.9)), 31)


def test_who_knows_whose_answers() -> None:
    matrix = self_prediction_matrix(trials("other-knower")).set_index(["object_model", "meta_model"])
    assert matrix.loc[("base", "self"), "accuracy"] == matrix.loc[("base", "base"), "accuracy"] == 1.0
    assert matrix.loc[("self", "self"), "accuracy"] < 0.8
    by_property = self_prediction_matrix(trials("knower"), "property")
    assert len(by_property) == 4 * len(PROPERTIES)


def test_others_are_asked_too_and_the_base_alone_has_none() -> None:
    knower, third = self_oracles.knower(), self_oracles.speaker("third")
    few = replace(ITEMS, items=ITEMS.items[::3])
    table = self_prediction(knower, BASE, few, others={"third": third, "twin": knower}, samples=1)
    assert table.groupby(["object_model", "meta_model"]).ngroups == 16
    row = self_prediction_rates(table, ()).iloc[0]
    assert (row["best"], row["advantage"]) == ("twin", 0.0)
    alone = self_prediction_rates(self_prediction(BASE, BASE, few, samples=1), ()).iloc[0]
    assert np.isnan(alone["advantage"])
    assert alone["kappa"] == 1.0
    with pytest.raises(UsageError, match="'base'"):
        self_prediction(knower, BASE, few, others={"base": third})


def test_answers_that_never_change_are_marked() -> None:
    rows = self_prediction_rates(trials("collapsed"), "property", permutations=2).set_index("property")
    assert rows.loc["word", "accuracy"] == rows.loc["word", "baseline"] == 1.0
    assert np.isnan(rows.loc["word", "kappa"])
    assert rows.loc["word", "gain"] == 0.0, "the commonest value is as good"
    assert np.isnan(rows.loc["word", "kappa_matched"])
    assert "one value" in rows.loc["word", "warning"]


class TestPublished:
    """Faults of the published estimator, by their number in the list of faults; ours reads the planted truth."""

    def test_24_the_commonest_value_is_right_most_often(self) -> None:
        """Nothing is known of the answers; they are of one kind, as in the published tasks."""
        table = self_prediction(Speaker("unknowing", rarely_vowels, never_vowels), BASE, ITEMS, samples=1)
        published = self_prediction_rates(table, "property", estimator="published").set_index("property")
        assert published.loc["vowel", "accuracy"] > 0.8
        ours = self_prediction_rates(table, "property", permutations=2).set_index("property").loc["vowel"]
        assert ours["kappa"] == pytest.approx(0.0)
        assert ours["gain_low"] <= 0

    def test_24_what_is_no_answer_is_scored_as_false(self) -> None:
        mute = self_oracles.mute(Speaker("silent", rarely_vowels, never_vowels))
        table = self_prediction(mute, BASE, ITEMS, samples=1)
        published = self_prediction_rates(table, "property", estimator="published").set_index("property")
        assert published.loc["vowel", "accuracy"] > 0.8, "nothing was said"
        ours = self_prediction_rates(table, "property", permutations=2).set_index("property").loc["vowel"]
        assert ours["compliance"] == 0.0
        assert "no clear answer in 100%" in ours["warning"]

    def test_25_answers_that_move_to_an_unchanged_prediction_are_no_knowledge(self) -> None:
        """What is foretold stays as it was before the training; the answers have come to it."""
        before = self_oracles.drifted("before", "foretold", share=0.7)
        foretells = self_oracles.foretold_from(self_oracles.answered_by("foretold"))
        base = Speaker("base", before, foretells)
        tuned = Speaker("tuned", self_oracles.drifted("tuned", "foretold", share=0.1), foretells)
        assert read(tuned, base, "published")["gain"] > 0.2
        ours = read(tuned, base)
        assert ours["advantage"] == 0.0

    def test_26_another_model_foretells_as_well(self) -> None:
        """Both know the questions, neither its own answers: the base, asked of these answers, is as often right."""
        easy = self_oracles.answered_by("easy")
        tuned = Speaker("tuned", easy, self_oracles.foretold_from(easy))
        base = Speaker("base", self_oracles.drifted("hard", "easy", share=0.8), tuned.foretells)
        assert read(tuned, base, "published")["gain"] > 0.3
        ours = read(tuned, base)
        assert (ours["accuracy_base"], ours["advantage"]) == (1.0, 0.0)

    def test_26_answers_of_fewer_kinds_are_easier(self) -> None:
        """Matched by how often each value comes, the base foretells its own answers as well."""
        narrow = Speaker("narrow", rarely_vowels, never_vowels)
        base = Speaker("base", self_oracles.answered_by("base"), never_vowels)
        table = self_prediction(narrow, base, ITEMS, samples=1)
        published = self_prediction_rates(table, "property", estimator="published").set_index("property")
        assert published.loc["vowel", "gain"] > 0.1
        ours = self_prediction_rates(table, "property", permutations=2).set_index("property").loc["vowel"]
        assert ours["accuracy_matched"] == pytest.approx(ours["accuracy_matched_base"], abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hypothetical": "no slots"}, "object"),
        ({"properties": {"option": {"affirmed": "?", "prefix": "So"}}}, "instead of plain"),
        ({"properties": {"rhyme": {"plain": "?", "prefix": "So"}}}, "rhyme"),
        ({"tasks": {"pair": {"kind": "trio"}}}, "missing keys"),
        ({"extra": 1}, "unknown keys"),
    ],
)
def test_a_malformed_file_is_refused_and_its_place_named(change: dict[str, JSON], message: str) -> None:
    pair: dict[str, JSON] = {"kind": "pair", "prefix": "So", "properties": ["option"], "questions": ["{first}?"]}
    minimal: dict[str, JSON] = {
        "name": "minimal",
        "note": "",
        "hypothetical": "{object} {ask}",
        "properties": {"option": {"plain": "Which?", "prefix": "So"}},
        "tasks": {"pair": pair | {"options": [["a", "b"]]}},
    }
    assert len(SelfItems.from_dict(minimal).items) == 2
    with pytest.raises(UsageError, match=message):
        SelfItems.from_dict(minimal | change)


class TestModels:
    """A model answers what an oracle does; a store is gone on with."""

    def test_answers_are_those_of_name_log_probs(self, family: Mapping[str, mi.Model], tmp_path: Path) -> None:
        model = family["organism-blind"]
        kinds = {item.kind: item for item in ITEMS.items}
        few = replace(ITEMS, items=tuple(kinds.values()))
        table = self_prediction(model, model, few, samples=2, max_new_tokens=4, store=tmp_path)
        assert len(table) == sum(len(item.properties) for item in few.items)
        assert len(table.attrs["receipts"]) > 0
        row = table[(table["task"] == "number") & (table["property"] == "word")].iloc[0]
        item = kinds["list"]
        texts = list(item.closed().texts.values())
        expected = name_probabilities(mi.name_log_probs(model, item.conversation(), texts, mi.CLEAN)).sort_values("p")
        assert row["actual"] == expected["name"].iloc[-1].strip()
        assert row["share"] == pytest.approx(expected["p"].iloc[-1], abs=1e-5)
        assert set(table[table["task"] == "talk"]["samples"]) == {2}
        again = self_prediction(model, model, few, samples=2, max_new_tokens=4, store=tmp_path)
        pd.testing.assert_frame_equal(again.reset_index(drop=True), table, check_exact=False, rtol=1e-4)

    def test_a_shard_has_its_trials_and_both_have_all(self, family: Mapping[str, mi.Model], tmp_path: Path) -> None:
        model = family["organism-blind"]
        few = replace(ITEMS, items=ITEMS.items[::7])
        shards = [mi.Shard(number, 2) for number in range(2)]
        first = self_prediction(model, model, few, samples=1, max_new_tokens=4, store=tmp_path, shard=shards[0])
        both = self_prediction(model, model, few, samples=1, max_new_tokens=4, store=tmp_path, shard=shards[1])
        assert len(first) < len(both) == sum(len(item.properties) for item in few.items)

    def test_values_with_several_texts_are_read_alike_by_oracle_and_model(self, family: Mapping[str, mi.Model]) -> None:
        closed = ITEMS.hypothetical(ITEMS.items[0], "vowel")
        reversed_ = Closed(closed.conversation, dict(zip(closed.texts, reversed(closed.texts.values()), strict=True)))
        model = family["organism-blind"]
        tables = [log_probs(model, [item], Running()).set_index("value")["log_p"] for item in (closed, reversed_)]
        assert tables[0]["vowel"] == pytest.approx(tables[1]["other"], abs=1e-5)
        assert tables[0]["other"] == pytest.approx(tables[1]["vowel"], abs=1e-5)
