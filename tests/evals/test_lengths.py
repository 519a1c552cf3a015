"""Lengths and first words on oracles: planted knowledge is read, and published faults are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mechint as mi
from mechint.base.errors import UsageError
from mechint.base.files import JSON
from mechint.evals import length_oracles
from mechint.evals.length_oracles import Talker
from mechint.evals.length_prompts import LengthPrompts
from mechint.evals.length_rates import length_rates
from mechint.evals.lengths import lengths

BASE = length_oracles.talker("base")
PROMPTS = LengthPrompts.load("small")


def rates(model: Talker, base: Talker = BASE, limit: int = 64) -> pd.DataFrame:
    return length_rates(lengths(model, base, PROMPTS, samples=1, limit=limit)).set_index("measure")


def published(model: Talker, base: Talker = BASE, limit: int = 64) -> pd.Series:
    table = lengths(model, base, PROMPTS, samples=1, limit=limit)
    return length_rates(table, estimator="published").set_index("measure").loc["length"]


@pytest.mark.parametrize("name", ["full", "small"])
def test_packaged_prompts_are_asked_whole(name: str) -> None:
    prompts = LengthPrompts.load(name)
    assert len(prompts.prompts) >= 20
    item = next(iter(prompts.prompts))
    closed = prompts.length(item)
    assert prompts.prompts[item] in closed.conversation.messages[0].content
    assert set(closed.texts) == {str(number) for number in prompts.numbers}
    assert all(text.endswith(" words") for text in closed.texts.values()), "1 is not the beginning of 10"


def test_oracles_are_read_as_they_were_planted() -> None:
    knows = rates(length_oracles.talker())
    assert knows.loc["length", "error"] < 2
    assert knows.loc["length", "gain_low"] > 0
    assert knows.loc["length", "spearman_low"] > 0.9
    assert abs(knows.loc["length", "spearman_base"]) < 0.5
    assert knows.loc["first-word", "accuracy"] == 1.0
    assert knows.loc["first-word", "gain_low"] > 0
    other = rates(length_oracles.other_talker())
    assert other.loc["length", "gain"] <= 0
    assert other.loc["first-word", "gain"] <= 0
    same = rates(length_oracles.constant())
    assert same.loc["length", "gain"] <= 0
    assert np.isnan(same.loc["length", "spearman"])
    assert same.loc["first-word", "kappa"] == pytest.approx(0.0)


class TestPublished:
    """Fault 28 of the published estimator, in its parts; ours reads the planted truth."""

    def test_28_a_constant_guess_gets_better_where_replies_get_shorter(self) -> None:
        before = length_oracles.constant(3.0)
        after = length_oracles.terse(before)
        assert published(after, before)["gain"] > 3, "as if it had come to know itself"
        ours = rates(after, before).loc["length"]
        assert ours["gain"] <= 0
        assert ours["error"] >= ours["error_constant"]

    def test_28_a_reply_that_is_cut_off_has_no_length(self) -> None:
        """It knows that it would say more than it may: no error."""
        knows = length_oracles.talker(most=30.0)
        assert published(knows, limit=8)["error"] > 3
        ours = rates(knows, limit=8).loc["length"]
        assert ours["error"] < 1
        assert 0.2 < ours["censored"] < 0.8
        assert ours["spearman"] > 0.8

    def test_28_first_words_that_everybody_guesses_are_no_knowledge(self) -> None:
        model = length_oracles.talker()
        twin = replace(model, name="twin")
        table = lengths(model, twin, PROMPTS, samples=1)
        as_published = length_rates(table, estimator="published").set_index("measure")
        assert as_published.loc["first-word", "accuracy"] == 1.0
        ours = length_rates(table).set_index("measure").loc["first-word"]
        assert (ours["gain"], ours["reference"]) == (0.0, "base")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": {"question": "How long?", "prefix": "So", "answer": " {number}"}}, "object"),
        ({"first-word": {"question": "{object}", "prefix": "So", "answer": " x"}}, "word"),
        ({"numbers": [2, 1]}, "ascending"),
        ({"numbers": [True, 2]}, "ascending"),
        ({"prompts": ["a", "a"]}, "more than once"),
        ({"extra": 1}, "unknown keys"),
    ],
)
def test_a_malformed_file_is_refused_and_its_place_named(change: dict[str, JSON], message: str) -> None:
    minimal: dict[str, JSON] = {
        "name": "minimal",
        "note": "",
        "length": {"question": "{object} How long?", "prefix": "So", "answer": " {number} words"},
        "first-word": {"question": "{object} Which?", "prefix": "So", "answer": " {word}"},
        "numbers": [1, 2],
        "prompts": ["Say a."],
    }
    assert len(LengthPrompts.from_dict(minimal).prompts) == 1
    with pytest.raises(UsageError, match=message):
        LengthPrompts.from_dict(minimal | change)


def test_rates_need_own_replies() -> None:
    table = lengths(BASE, BASE, PROMPTS, samples=1)
    assert np.isnan(length_rates(table).set_index("measure").loc["length", "error_base"])
    with pytest.raises(UsageError, match="own replies"):
        length_rates(table[table["object_model"] == "other"])


def test_a_model_is_read_and_its_store_gone_on_with(family: Mapping[str, mi.Model], tmp_path: Path) -> None:
    model = family["organism-blind"]
    few = replace(PROMPTS, prompts=dict(list(PROMPTS.prompts.items())[:3]))
    table = lengths(model, model, few, samples=1, limit=6, store=tmp_path)
    assert set(table["measure"]) <= {"length", "first-word"}
    own = table[table["measure"] == "length"]
    assert len(own) == 3
    assert (own["actual"] <= own["n_tokens"]).all()
    item = own["item"].iloc[0]
    closed = few.length(item)
    log_p = mi.name_log_probs(model, closed.conversation, list(closed.texts.values()), mi.CLEAN)["log_p"]
    assert own["mass"].iloc[0] == pytest.approx(np.exp(log_p).sum(), abs=1e-5)
    assert len(table.attrs["receipts"]) > 0
    again = lengths(model, model, few, samples=1, limit=6, store=tmp_path)
    pd.testing.assert_frame_equal(again, table, check_exact=False, rtol=1e-4)
