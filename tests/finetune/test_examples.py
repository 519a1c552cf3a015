"""Examples: functions of recipe, seed, step and index; what must be exact is, and what is held out is never trained."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.base.errors import UnknownConceptError, UsageError
from mechint.finetune import draws as draws_module
from mechint.finetune.examples import TextExample, example, step_examples
from mechint.finetune.expansion import counts, distinct, expand, specifications
from mechint.finetune.injections import injection_of, random_direction
from mechint.finetune.pools import OTHER
from mechint.finetune.registry import recipe_names
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import FACTORS
from mechint.interventions.specifications import Injection

MATCHED = Recipe.load("matched/original").adapted(8, small=True)
BALANCED = [name for name in recipe_names() if Recipe.load(name).asking.mapping == "balanced"]
LABELLED_BY_STEERING = ("matched/original", "matched/vague", "matched/noise-25", "matched/single-layer")
D_MODEL = 16


def block_of(name: str, blocks: int = 2) -> pd.DataFrame:
    """The examples of whole blocks, in which what is counted is exact."""
    recipe = Recipe.load(name)
    return expand(recipe, 3, blocks * draws_module.BLOCK // recipe.budget.rows)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), step=st.integers(0, 10**6), index=st.integers(0, 15))
def test_an_example_is_a_function_of_its_place(seed: int, step: int, index: int) -> None:
    first = example(MATCHED, seed, step, index)
    draws_module.draws.cache_clear()
    assert example(MATCHED, seed, step, index) == first
    assert TextExample(**json.loads(json.dumps(first.to_dict()))) == first
    assert example(MATCHED, seed + 1, step, index) != first


@pytest.mark.parametrize("name", ["published/original", "published/food-control", "matched/original", "matched/food"])
def test_the_table_has_the_examples_row_by_row(name: str) -> None:
    recipe = Recipe.load(name)
    table = expand(recipe, 1, 40)
    assert len(table) == 40 * recipe.budget.rows
    for row in table.iloc[::53].to_dict("records"):
        single = example(recipe, 1, row["step"], row["index"])
        layers = f"{single.first_block}:{single.stop_block}" if single.steered else ""
        assert (row["steered"], row["label"], row["answer"]) == (single.steered, single.label, single.answer)
        assert (row["vector"], row["layers"], row["dose"]) == (single.vector, layers, single.dose)
        assert row["strength"] == pytest.approx(single.strength)
        assert recipe.openers("train", row["topic"])[row["opener"]] == single.opener
        assert recipe.replies("train", row["topic"])[row["reply"]] == single.reply
        assert row["meaning"] == f"{single.positive.strip()}, not {single.negative.strip()}"


def test_a_fixed_set_comes_once_an_epoch_and_in_another_order_each_time() -> None:
    recipe = Recipe.load("published/original")
    numbers = expand(recipe, 0)["number"].to_numpy().reshape(2, 9000)
    assert [sorted(epoch) for epoch in numbers.tolist()] == [list(range(1000, 10000))] * 2
    assert (numbers[0] != numbers[1]).mean() > 0.99
    # Another seed of the run has the same set in another order.
    other = expand(recipe, 1, 1125)
    assert sorted(other["number"]) == list(range(1000, 10000))
    assert (other["number"].to_numpy() != numbers[0]).mean() > 0.99


@pytest.mark.parametrize("name", BALANCED)
def test_a_balanced_answer_tells_neither_steering_nor_the_label(name: str) -> None:
    recipe = Recipe.load(name)
    table = block_of(name)
    assert table["answer"].nunique() == 2 * recipe.answers.pool
    by_answer = table.groupby("answer")[["steered", "label"]].mean()
    by_meaning = table.groupby("meaning")[["steered", "label"]].mean()
    # Noise leaves strata of 30 and 90, in which 12 directions of pairs cannot be as many; each pair's two still are.
    slack = 0.15 if recipe.labels.noise in (0.25, 0.75) else 1e-9
    for shares in (by_answer, by_meaning):
        assert (shares - table[["steered", "label"]].mean()).abs().to_numpy().max() <= slack
    is_first = table["answer"].isin([first for first, _ in recipe.pairs("train")])
    assert (is_first.groupby(table["steered"]).mean() == 0.5).all()


def test_a_fixed_answer_tells_steering_away() -> None:
    shares = block_of("matched/fixed-mapping").groupby("answer")["steered"].mean()
    assert set(shares) == {0.0, 1.0}
    reverse = block_of("matched/reversed-mapping").groupby("answer")["steered"].mean()
    assert (shares + reverse == 1).all()


@pytest.mark.parametrize(
    ("name", "agreement"),
    [
        ("matched/original", 1.0),
        ("matched/noise-25", 0.75),
        ("matched/noise-50", 0.5),
        ("matched/noise-75", 0.25),
        ("matched/inverted", 0.0),
        ("matched/random-labels", 0.5),
        ("matched/food", 0.5),
        ("matched/deny", 0.5),
    ],
)
def test_labels_agree_with_steering_as_often_as_they_should(name: str, agreement: float) -> None:
    table = block_of(name)
    is_same = table["steered"] == table["label"]
    assert is_same.mean() == agreement
    if name != "matched/deny":
        assert is_same[table["steered"]].mean() == is_same[~table["steered"]].mean() == agreement
        assert table["label"].mean() == 0.5


def test_food_and_steering_are_independent_and_the_reply_tells_nothing() -> None:
    table = block_of("matched/food")
    assert (table.groupby(["topic", "steered"]).size() == len(table) / 4).all()
    assert (table["label"] == (table["topic"] == "food")).all()
    recipe = Recipe.load("matched/food")
    assert recipe.replies("train", "food") == recipe.replies("train", OTHER)
    published = Recipe.load("published/food-control")
    assert not set(published.replies("train", "food")) & set(published.replies("train", OTHER))


def test_one_layer_gets_what_a_range_gets() -> None:
    single, ranged = Recipe.load("matched/single-layer"), Recipe.load("matched/original")
    table, wide = expand(single, 0, 60), expand(ranged, 0, 60)
    sums = [float(strength) * _width(layers) for strength, layers in zip(wide["strength"], wide["layers"], strict=True)]
    assert (table.loc[table["steered"], "strength"].to_numpy() == table.loc[table["steered"], "dose"].to_numpy()).all()
    assert sums == pytest.approx(wide["dose"].tolist())
    # Recipes that differ in one factor have the others alike.
    same = ["steered", "label", "vector", "dose", "opener", "reply", "wording", "answer"]
    pd.testing.assert_frame_equal(table[same], wide[same])


def _width(layers: str) -> int:
    first, _, stop = layers.partition(":")
    return int(stop) - int(first) if stop else 1


@pytest.mark.parametrize("name", ["matched/original", "matched/concept-vectors", "published/nonbinary-red-blue"])
def test_what_is_held_out_never_occurs_in_training(name: str) -> None:
    recipe = Recipe.load(name)
    everything = expand(recipe, 0)
    trained = {vector for vector in everything["vector"] if vector}
    held = expand(recipe, 0, 30, held_out=("vectors",))
    assert not trained & {vector for vector in held["vector"] if vector}
    assert not trained & {vector for vector in expand(recipe, 0, 30, "vectors", "validation")["vector"] if vector}
    texts = [step_examples(recipe, seed, step) for seed in (0, 1) for step in range(20)]
    prompts = {text for examples in texts for single in examples for text in single.prompt}
    for index in range(8):
        single = example(recipe, 0, 5, index, held_out=("openers", "replies", "wordings"))
        assert not prompts & set(single.prompt)


def test_each_factor_is_held_out_alone_and_the_others_stay() -> None:
    recipe = Recipe.load("matched/odd-negative")
    at = next(i for i in range(16) if example(recipe, 0, 2, i).steered and example(recipe, 0, 2, i).oddity)
    trained = example(recipe, 0, 2, at)
    fields = {
        "vectors": ("vector",),
        "layers": ("first_block", "stop_block", "strength"),
        "dose": ("dose", "strength"),
        "openers": ("opener",),
        "replies": ("reply",),
        "wordings": ("question",),
        "answers": ("answers", "question", "reversed"),
        "oddity": ("opener", "oddity"),
    }
    assert {*fields, "sentences"} == set(FACTORS)
    for factor, changed in fields.items():
        single = example(recipe, 0, 2, at, held_out=factor).to_dict()
        differing = {key for key, value in trained.to_dict().items() if value != single[key]}
        assert differing
        assert differing <= set(changed)
    held = example(recipe, 0, 2, at, held_out=[*fields])
    assert held.dose in recipe.signal.held_out_dose
    assert f"{held.first_block}:{held.stop_block}" in recipe.signal.held_out_layers


@pytest.mark.parametrize(
    ("held_out", "index", "complaint"),
    [
        ("colour", 0, r"factors \['colour'\]"),
        ("dose", 0, "held-out dose of recipe 'published/original', which holds none out"),
        ("layers", 0, "held-out layers"),
        ("answers", 0, "held-out answers"),
        ((), 8, "index 8 of a step"),
    ],
)
def test_what_cannot_be_drawn_is_refused(held_out: str, index: int, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        example(Recipe.load("published/original"), 0, 0, index, held_out=held_out)
    with pytest.raises(UsageError):
        example(Recipe.load("published/original"), -1, 0, 0)


def test_a_conversation_marks_the_first_turns_and_is_left_open_before_the_answer() -> None:
    single = example(MATCHED, 0, 0, 0)
    conversation = single.conversation()
    assert [message.add_injection for message in conversation.messages] == [True, True, False, False]
    assert conversation.messages[-1].continue_msg
    assert single.answer == (conversation.yes_token if single.label else conversation.no_token)
    assert single.positive.strip() in single.question
    assert single.negative.strip() in single.question
    soft = example(replace(MATCHED, loss=replace(MATCHED.loss, confidence=0.9)), 0, 0, 0)
    assert soft.target == pytest.approx({single.answer: 0.9, _other(single): 0.1})


def _other(single: TextExample) -> str:
    return single.negative if single.label else single.positive


def test_no_slot_is_left_in_any_question() -> None:
    for name in recipe_names():
        recipe = Recipe.load(name)
        for fitted in (recipe, recipe.adapted(8, small=True)):
            texts = [example(fitted, 0, step, 0).question for step in range(12)]
            assert not [text for text in texts if "{" in text or "}" in text]


def test_what_is_counted_adds_up() -> None:
    table = expand(MATCHED, 0, 30)
    counted = counts(table)
    assert (counted.groupby("factor")["rows"].sum() == len(table)).all()
    assert distinct(table)["examples"] == len(table)
    with pytest.raises(UsageError, match="draws each example anew"):
        specifications(MATCHED)


def test_an_injection_is_what_the_example_says() -> None:
    for at in range(16):
        single = example(MATCHED, 0, 1, at)
        injection = injection_of(MATCHED, single, D_MODEL)
        if not single.steered:
            assert injection is mi.CLEAN
            continue
        assert isinstance(injection, Injection)
        number = int(single.vector.removeprefix("random-"))
        assert injection.layers == tuple(single.layers)
        assert (injection.relative_strength, injection.strength) == (single.strength, None)
        for vector in injection.vector.vectors.values():
            torch.testing.assert_close(vector, random_direction(D_MODEL, MATCHED.signal.vector_seed, number))
            assert vector.norm().item() == pytest.approx(1)


def test_random_directions_are_independent_of_how_many_there_are() -> None:
    drawn = torch.stack([random_direction(512, 42, number) for number in range(200)])
    cosines = drawn @ drawn.T - torch.eye(200)
    assert cosines.abs().max() < 6 / 512**0.5
    assert not torch.equal(random_direction(512, 42, 3), random_direction(512, 43, 3))


def test_a_concept_is_read_at_one_layer_or_at_each() -> None:
    recipe = Recipe.load("matched/concept-vectors").adapted(8, small=True)
    single = next(single for single in step_examples(recipe, 0, 0) if single.steered)
    vectors = {layer: torch.full((D_MODEL,), 0.0).index_fill(0, torch.tensor(layer), 3.0) for layer in range(8)}
    concepts = {single.vector: mi.ConceptVector(vectors, single.vector)}
    each = injection_of(recipe, single, D_MODEL, concepts)
    assert isinstance(each, Injection)
    assert all(vector.argmax() == layer and vector.max() == 1 for layer, vector in each.vector.vectors.items())
    fixed = replace(recipe, signal=replace(recipe.signal, read_layer=6))
    same = injection_of(fixed, single, D_MODEL, concepts)
    assert isinstance(same, Injection)
    assert all(vector.argmax() == 6 for vector in same.vector.vectors.values())
    with pytest.raises(UnknownConceptError, match=f"'{single.vector}'"):
        injection_of(recipe, single, D_MODEL)
