"""Matched recipes with other labels than steered or not, expanded and counted; and odd texts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mechint as mi
from mechint.base.errors import InvalidVectorError, LayerRangeError, UsageError, VectorMismatchError
from mechint.finetune import draws as draws_module
from mechint.finetune.examples import TextExample, example, step_examples
from mechint.finetune.expansion import counts, expand
from mechint.finetune.injections import injection_of, steered_positions
from mechint.finetune.oddities import KINDS, odd
from mechint.finetune.specification import Recipe
from mechint.interventions.specifications import Injection
from mechint.organisms import organism_path

SEVERAL = {"which-of-ten": 10, "which-third": 3, "how-strong": 4, "which-sentence": 10}
D_MODEL = 16


def block_of(name: str, blocks: int = 2) -> pd.DataFrame:
    """The examples of whole blocks, in which what is counted is exact."""
    recipe = Recipe.load(f"matched/{name}")
    return expand(recipe, 3, blocks * draws_module.BLOCK // recipe.budget.rows)


def small(name: str) -> Recipe:
    return Recipe.load(f"matched/{name}").adapted(8, small=True)


@pytest.mark.parametrize("name", SEVERAL)
def test_each_of_several_answers_is_right_as_often_and_something_is_always_added(name: str) -> None:
    table = block_of(name, 20)
    shares = table["answer"].value_counts(normalize=True)
    assert len(shares) == SEVERAL[name]
    # Four standard errors of a share that is drawn; those that are counted lie within.
    assert (shares - 1 / SEVERAL[name]).abs().max() < 4 * np.sqrt(1 / SEVERAL[name] / len(table))
    assert table["steered"].all()
    assert "label" not in table
    assert "positive" not in counts(table)


def test_the_answer_follows_from_what_was_done() -> None:
    thirds, doses = block_of("which-third"), block_of("how-strong")
    assert thirds.groupby("answer")["layers"].unique().map(list).to_dict() == {
        " early": ["0:21"],
        " middle": ["21:42"],
        " late": ["42:63"],
    }
    assert doses.groupby("answer")["dose"].unique().map(list).to_dict() == {
        " faint": [0.2],
        " light": [0.4],
        " strong": [0.8],
        " heavy": [1.6],
    }
    for row in block_of("which-of-ten", 1).to_dict("records"):
        assert row["named"].split(", ")["ABCDEFGHIJ".index(row["answer"].strip())] == row["vector"]
    for single in step_examples(Recipe.load("matched/which-sentence"), 0, 3):
        assert f"{single.answer.strip()}: {single.span}" in single.opener
        assert single.opener.count(single.span) == 1


def test_concepts_are_told_from_random_vectors_in_equal_shares_and_at_equal_strengths() -> None:
    table = block_of("random-negative")
    is_random = table["vector"].str.startswith("random-")
    assert (table["label"] != is_random).all()
    assert is_random.mean() == 0.5
    assert set(table.loc[~is_random, "vector"]) <= set(Recipe.load("matched/random-negative").concepts("train"))
    recipe = small("random-negative")
    pair = {row.vector.startswith("random-"): row for row in step_examples(recipe, 0, 0)}
    concepts = {pair[False].vector: mi.ConceptVector(dict.fromkeys(range(8), torch.arange(1.0, D_MODEL + 1)))}
    for single in pair.values():
        injection = injection_of(recipe, single, D_MODEL, concepts)
        assert isinstance(injection, Injection)
        assert all(vector.norm().item() == pytest.approx(1) for vector in injection.vector.vectors.values())
    held = expand(Recipe.load("matched/random-negative"), 0, 60, held_out="vectors")["vector"]
    assert not set(held) & set(table["vector"])


def test_odd_text_is_half_of_either_and_tells_of_steering_only_where_it_should() -> None:
    alone, beside = block_of("odd-text"), block_of("odd-negative")
    assert not alone["steered"].any()
    assert (alone["label"] == (alone["odd"] != "")).all()
    assert alone["label"].mean() == 0.5
    assert (beside["label"] == beside["steered"]).all()
    assert (beside.groupby("steered")["odd"].apply(lambda kinds: (kinds != "").mean()) == 0.5).all()
    assert set(alone["odd"]) == {"", "shuffled", "foreign", "doubled"}
    held = expand(Recipe.load("matched/odd-text"), 0, 30, held_out="oddity")
    assert set(held["odd"]) == {"", "backwards", "broken"}
    plain = Recipe.load("matched/original")
    for index in range(16):
        single, unchanged = example(Recipe.load("matched/odd-negative"), 0, 1, index), example(plain, 0, 1, index)
        assert (single.opener == unchanged.opener) == (not single.oddity)
        assert single.vector == unchanged.vector


@given(st.lists(st.sampled_from(["a", "b", "cat", "Dogs."]), min_size=1, max_size=8), st.integers(0, 10**6))
def test_an_odd_text_is_another_text_and_a_function_of_its_number(words: list[str], number: int) -> None:
    text = " ".join(words)
    for kind in KINDS:
        changed = odd(text, kind, number)
        assert changed != text
        assert changed == odd(text, kind, number)
        assert set(changed.split()) >= set(words)
    bells = ["tell", "me", "of", "old", "bells"]
    for seed in (number, 75335):  # the second draws the order that there is
        assert sorted(odd(" ".join(bells), "shuffled", seed).split()) == sorted(bells)


def test_other_seeds_make_texts_odd_in_other_ways() -> None:
    recipe = Recipe.load("matched/odd-text")
    words = {
        seed: [row.opener for step in range(4) for row in step_examples(recipe, seed, step) if row.oddity == "shuffled"]
        for seed in (0, 1)
    }
    assert min(map(len, words.values())) > 5
    assert not set(words[0]) & set(words[1])


def test_an_example_of_several_answers_has_no_positive_one() -> None:
    single = example(small("how-strong"), 0, 0, 0)
    assert single.target == {word: float(word == single.answer) for word in (" faint", " light", " strong", " heavy")}
    for name in ("positive", "negative", "label"):
        with pytest.raises(UsageError, match="of 4 answers"):
            getattr(single, name)
    conversation = single.conversation()
    assert (conversation.yes_token, conversation.no_token) == ("", "")
    assert TextExample(**single.to_dict()) == single
    with pytest.raises(UsageError, match="which has 4 options"):
        small("how-strong").pairs("train")


@pytest.mark.parametrize("system", ["", "Be kind."])
def test_a_vector_is_added_to_one_sentence_alone(system: str) -> None:
    from dataclasses import replace

    from transformers import AutoTokenizer

    recipe = small("which-sentence")
    recipe = replace(recipe, asking=replace(recipe.asking, system=system))
    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    single = example(recipe, 0, 0, 0)
    rendered = mi.render(tokenizer, single.conversation())
    positions = steered_positions(tokenizer, rendered, single)
    assert positions is not None
    assert tokenizer.decode([rendered.tokens[at] for at in positions]).strip() == single.span
    injection = injection_of(recipe, single, D_MODEL, positions=positions)
    assert isinstance(injection, Injection)
    assert injection.positions == positions
    with pytest.raises(UsageError, match="without its positions"):
        injection_of(recipe, single, D_MODEL)
    whole = example(small("original"), 0, 0, 0)
    assert steered_positions(tokenizer, rendered, whole) is None


@pytest.mark.parametrize(
    ("vectors", "error"),
    [
        ({layer: torch.ones(D_MODEL + 1) for layer in range(8)}, VectorMismatchError),
        ({layer: torch.ones(D_MODEL) for layer in range(9)}, VectorMismatchError),
        ({layer: torch.zeros(D_MODEL) for layer in range(8)}, InvalidVectorError),
        ({7: torch.ones(D_MODEL)}, LayerRangeError),
    ],
)
def test_vectors_of_another_model_and_zero_ones_are_refused(
    vectors: dict[int, torch.Tensor], error: type[Exception]
) -> None:
    recipe = small("which-of-ten")
    single = example(recipe, 0, 0, 0)
    concepts = {single.vector: mi.ConceptVector(vectors, single.vector, n_layers=max(vectors) + 1)}
    with pytest.raises(error):
        injection_of(recipe, single, D_MODEL, concepts)
    with pytest.raises(InvalidVectorError):
        mi.ConceptVector({0: torch.full((D_MODEL,), torch.nan)})


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("which-third", {"answers": {"pool": 0, "options": [" early", " late"]}}, "2 options for 3 answers"),
        ("which-third", {"signal": {"share": 0.5}}, "where some examples have none"),
        ("how-strong", {"signal": {"held_out_dose": [0.1]}}, r"\[0.1\] are held out"),
        ("how-strong", {"labels": {"noise": 0.5}}, "noise in labels of several options"),
        ("how-strong", {"asking": {"mapping": "reversed"}}, "several options with mapping='reversed'"),
        ("which-of-ten", {"signal": {"vectors": "random"}}, "without concepts' vectors"),
        ("which-of-ten", {"signal": {"concept_pairs": 3}}, "pairs of concepts beside options"),
        ("which-sentence", {"asking": {"sentences": 9}}, "10 options for 9 answers"),
        ("which-sentence", {"oddity": {"share": 0.5}}, "odd text of sentences"),
        ("random-negative", {"signal": {"vectors": "concept"}}, "without both"),
    ],
)
def test_options_that_contradict_the_rest_are_refused(
    name: str, changes: dict[str, dict[str, object]], complaint: str
) -> None:
    data = Recipe.load(f"matched/{name}").to_dict()
    for side, settings in changes.items():
        old = data[side]
        assert isinstance(old, dict)
        data[side] = {**old, **settings}  # type: ignore[dict-item]
    with pytest.raises(UsageError, match=complaint):
        Recipe.from_dict(data)


def test_more_options_than_a_split_has_members_are_refused() -> None:
    recipe = Recipe.load("matched/which-of-ten").to_dict()
    data = {**recipe, "answers": {"options": [f" {letter}" for letter in "abcdefghijklmnopq"]}}
    with pytest.raises(UsageError, match="17 named concepts"):
        Recipe.from_dict(data)


def test_a_range_that_becomes_the_last_block_alone_is_refused() -> None:
    data = Recipe.load("matched/fixed-mapping").to_dict()
    signal = data["signal"]
    assert isinstance(signal, dict)
    recipe = Recipe.from_dict({**data, "signal": {**signal, "layers": ["48:64"], "held_out_layers": []}})
    assert recipe.adapted(8).signal.layers == ("6:8",)
    with pytest.raises(LayerRangeError, match="reaches no cache"):
        recipe.adapted(4)
