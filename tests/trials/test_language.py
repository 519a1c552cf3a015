"""Phrases of replies: counted as whole words, from lists that can be replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from mechint.base.errors import UnknownNameError, UsageError
from mechint.trials.language import count_phrases, language_table, load_phrases, phrase_rates, phrase_table
from mechint.trials.synthetic import Population, draw
from tests.trials.sweeps import sweep_of
from tests.trials.trial_tables import trial, trials

PHRASES = load_phrases()


def test_there_are_lists_of_hedges_claims_and_refusals() -> None:
    assert {kind: len(entries) for kind, entries in PHRASES.items()} == {"hedges": 15, "claims": 10, "refusals": 10}


@pytest.mark.parametrize(
    ("text", "kind", "count"),
    [
        ("Perhaps. PERHAPS!", "hedges", 2),
        ("It seems, seemingly, to seem so.", "hedges", 3),
        ("seamless", "hedges", 0),
        ("I am not at all sure.", "hedges", 1),
        ("I am not one of those who were ever quite so sure.", "hedges", 0),
        ("mighty", "hedges", 0),
        ("I do notice it, and I keep coming\nback to it.", "claims", 2),
        ("something rather odd", "claims", 1),
        ("As a language model I don\u2019t have real feelings.", "refusals", 2),
        ("", "hedges", 0),
    ],
)
def test_phrases_are_counted(text: str, kind: str, count: int) -> None:
    assert count_phrases(text, PHRASES)[kind] == count


def test_longer_phrases_hold_shorter_ones() -> None:
    assert count_phrases("it seems to me", {"h": ["seem*", "it seem* to me"]}) == {"h": 1}
    assert count_phrases("a.b a+b", {"h": ["a.b"]}) == {"h": 1}


def test_tables_count_words_phrases_and_concepts() -> None:
    sweep = sweep_of({"oceans": "nd"}, "d")
    sweep.trials["reply"] = ["Perhaps I do notice the sea.", "Maybe an ocean, maybe not.", "perhaps"]
    table = phrase_table(sweep.trials, lexicon={"oceans": ("sea",)})
    assert table["words"].tolist() == [6, 5, 1]
    assert table["hedges"].tolist() == [1, 2, 1]
    assert table["claims"].tolist() == [1, 0, 0]
    assert table["names_concept"].tolist() == [True, True, False]
    assert not phrase_table(sweep.trials, {"x": ["y"]})["names_concept"].iloc[0]


def test_means_are_over_concepts_and_by_outcome() -> None:
    sweep = draw(Population(), concepts=5, samples=5, controls=20, texts=True)
    table = language_table(sweep.trials, sweep.truth, ["series", "outcome"])
    claims = table[(table["measure"] == "claims") & (table["series"] == "injected")].set_index("outcome")
    assert claims.loc["denies", "mean"] == 0.0
    assert claims.loc["names rightly", "mean"] > 0.5
    assert claims.loc["names rightly", "n"] == 5
    refusals = table[(table["measure"] == "refusals") & (table["outcome"] == "refuses")]
    assert (refusals["mean"] >= 1).all()
    with pytest.raises(UnknownNameError, match="colour"):
        language_table(sweep.trials, sweep.truth, ["colour"])


def test_own_lists_replace_ours(tmp_path: Path) -> None:
    path = tmp_path / "de.json"
    path.write_text(json.dumps({"hedges": ["vielleicht"]}))
    assert load_phrases(path=path) == {"hedges": ["vielleicht"]}
    for content in ([], {}, {"hedges": []}, {"hedges": 3}):
        path.write_text(json.dumps(content))
        with pytest.raises(UsageError, match="no lists of phrases by kind"):
            load_phrases(path=path)
    with pytest.raises(UnknownNameError, match="language 'xx'"):
        load_phrases("xx")


def test_rates_are_phrases_over_words_and_of_concepts() -> None:
    lists = {"hedges": ["perhaps"], "claims": ["I notice"]}
    table = trials(
        trial(0, concept="cats", reply="perhaps perhaps no no"),
        trial(1, concept="cats", reply="no no no no"),
        trial(2, concept="bread", reply="no no perhaps no no no no no"),
        trial(3, steered=False, layers="", reply="I notice it perhaps"),
        trial(4, steered=False, layers="", reply="no"),
    )
    outcomes = pd.DataFrame({"id": table["id"], "judge": "hand", "pass_no": 0, "outcome": "denies"})
    rates = phrase_rates(table, outcomes, ("series",), phrases=lists).set_index(["series", "measure"])
    # Means over concepts: 1 and 1 phrases, 4 and 8 words.
    assert rates.loc[("injected", "hedges"), "value"] == pytest.approx(100 * 1 / 6)
    assert rates.loc[("injected", "words"), "value"] == pytest.approx(6)
    assert rates.loc[("injected", "claims"), "value"] == 0
    assert rates.loc[("clean", "claims"), "value"] == pytest.approx(100 * 1 / 5)
    assert rates.loc[("injected", "hedges"), ["n", "n_trials"]].tolist() == [2, 3]
    assert rates.loc[("clean", "hedges"), "n"] == 2  # replies
    half = phrase_rates(table, outcomes, ("series",), phrases=lists, words=50).set_index(["series", "measure"])
    assert half.loc[("injected", "hedges"), "value"] == pytest.approx(50 * 1 / 6)
    with pytest.raises(UnknownNameError, match="nowhere"):
        phrase_rates(table, outcomes, ("nowhere",))


def test_replies_without_words_have_no_rate() -> None:
    table = trials(trial(0, reply=""), trial(1, reply="", concept="bread"))
    outcomes = pd.DataFrame({"id": table["id"], "judge": "hand", "pass_no": 0, "outcome": "incoherent"})
    rates = phrase_rates(table, outcomes).set_index("measure")
    assert rates.loc["hedges", ["value", "low", "high"]].isna().all()
