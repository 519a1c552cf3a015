"""The 21 published variants, expanded and counted against the published design; and published rows, read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mechint.base.errors import UsageError
from mechint.finetune.draws import concept_pairs
from mechint.finetune.expansion import distinct, expand, specifications
from mechint.finetune.published_rows import read_published
from mechint.finetune.registry import recipe_names
from mechint.finetune.specification import Recipe

THREE = {"0:21", "21:42", "42:63"}


@dataclass(frozen=True)
class Design:
    """What is published of a variant's 10,000 examples: how many are steered, their labels, layers, texts, answers."""

    steered: int = 5000
    positive: int | None = 5000  # None: drawn by a coin, one by one
    agreeing: int | None = 10000  # labels that say what was done
    layers: frozenset[str] = frozenset(THREE)
    vectors: int = 100
    prompts: int = 400
    answers: tuple[str, str] = (" yes", " no")
    steps: int = 2250
    examples: int = 10000


COIN = {"positive": None, "agreeing": None}
NOTHING = {"steered": 0, "layers": frozenset(), "vectors": 0}
ONE_LAYER = frozenset(f"{block}:{block + 1}" for block in range(4, 60))
DESIGNS = {
    "original": Design(),
    "r1-minimal": Design(steps=1600),
    "vague-prompt": Design(steps=2200),
    "food-control": Design(**NOTHING, agreeing=5000, prompts=2 * 25 * 5 * 4, steps=200),
    "flipped-labels": Design(positive=None, agreeing=5000, steps=800),
    "random-labels": Design(**COIN),
    "random-labels-v2": Design(**COIN),
    "no-steer": Design(**NOTHING, **COIN),
    "deny-steering": Design(positive=0, agreeing=5000, steps=200),
    "single-layer": Design(layers=ONE_LAYER),
    "concept-vectors": Design(vectors=102),
    "inverse-inference": Design(**NOTHING, positive=100, agreeing=0, prompts=20 * 5 * 51, steps=22, examples=100),
    "concept-discrimination": Design(steered=10000, **COIN, prompts=500, vectors=70, answers=(" A", " B")),
    "neutral-red-blue": Design(prompts=1000, answers=(" Red", " Blue")),
    "neutral-foo-bar": Design(prompts=1000, answers=(" Foo", " Bar")),
    "nonbinary-red-blue": Design(prompts=500, answers=(" Red", " Blue")),
    "nonbinary-alpha-beta": Design(prompts=500, answers=(" alpha", " beta")),
    "nonbinary-up-down": Design(prompts=500, answers=(" up", " down")),
    "nonbinary-circle-square": Design(prompts=500, answers=(" circle", " square")),
    "original-5epoch": Design(steps=5625),
    "original-10epoch": Design(steps=9200),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_a_variant_expands_to_the_published_design(name: str) -> None:
    recipe, design = Recipe.load(f"published/{name}"), DESIGNS[name]
    table = specifications(recipe)
    steered = table[table["steered"]]
    assert len(table) == design.examples
    assert (table["part"] == "validation").sum() == design.examples // 10
    assert len(steered) == design.steered
    if design.positive is not None:
        assert table["label"].sum() == design.positive
    if design.agreeing is not None:
        assert (table["label"] == table["steered"]).sum() == design.agreeing
    assert set(steered["layers"]) == design.layers
    assert set(steered["dose"]) == ({5.0, 10.0, 20.0, 30.0} if design.steered else set())
    assert (steered["strength"] == steered["dose"]).all()
    assert steered["vector"].nunique() <= design.vectors
    assert set(table["answer"]) <= set(design.answers)
    assert {*recipe.pairs("train")} == {design.answers}
    assert recipe.budget.steps_made == design.steps
    turns = sum(len(recipe.openers("train", topic)) * len(recipe.replies("train", topic)) for topic in recipe.topics)
    assert turns * len(recipe.wordings("train")) == design.prompts


def test_ranges_and_doses_are_drawn_in_equal_shares() -> None:
    steered = specifications(Recipe.load("published/original")).query("steered")
    for factor, values in (("layers", 3), ("dose", 4), ("vector", 100)):
        shares = steered[factor].value_counts(normalize=True)
        assert len(shares) == values
        # Four standard errors of a share.
        assert (shares - 1 / values).abs().max() < 4 * np.sqrt(1 / values / len(steered))


def test_half_of_the_labels_are_turned_in_either_part() -> None:
    table = specifications(Recipe.load("published/flipped-labels"))
    assert table.groupby("part")["flipped"].mean().to_dict() == {"train": 0.5, "validation": 0.5}
    assert ((table["label"] != table["steered"]) == table["flipped"]).all()


def test_a_coin_says_nothing() -> None:
    table = specifications(Recipe.load("published/random-labels"))
    agreeing = (table["label"] == table["steered"]).mean()
    assert abs(agreeing - 0.5) < 0.02
    assert abs(table["label"].mean() - 0.5) < 0.02


def test_validation_is_training_as_published() -> None:
    table = specifications(Recipe.load("published/original"))
    prompt = ["opener", "reply", "wording"]
    trained = set(map(tuple, table.loc[table["part"] == "train", prompt].to_numpy()))
    left_out = set(map(tuple, table.loc[table["part"] == "validation", prompt].to_numpy()))
    assert left_out <= trained
    assert len(trained) == 400


def test_pairs_of_concepts_are_fixed_and_their_order_says_nothing() -> None:
    recipe = Recipe.load("published/concept-discrimination")
    table = specifications(recipe)
    first, second = table["named"].str.split(", ", expand=True).to_numpy().T
    pairs = {frozenset(pair) for pair in zip(first, second, strict=True)}
    assert len(pairs) == len(set(concept_pairs(recipe, "train"))) == 50
    assert (table["vector"] == np.where(table["label"], first, second)).all()
    assert abs(table["label"].mean() - 0.5) < 0.02
    held = set(map(frozenset, expand(recipe, 0, 50, held_out="vectors")["named"].str.split(", ")))
    assert not {name for pair in pairs for name in pair} & {name for pair in held for name in pair}


def test_clean_examples_are_few_texts_seen_often() -> None:
    table = expand(Recipe.load("published/original"))
    assert distinct(table) == {
        "examples": 18000,
        "of a fixed set, or drawn": 9000,
        "prompts": 400,
        "prompts of clean examples": 400,
        "vectors": 100,
    }


def test_summed_doses_of_one_layer_are_below_those_of_the_reference() -> None:
    sums = {}
    for name in ("original", "single-layer"):
        steered = specifications(Recipe.load(f"published/{name}")).query("steered")
        sizes = steered["layers"].str.split(":").map(lambda ends: int(ends[1]) - int(ends[0]))
        sums[name] = (steered["strength"] * sizes).agg(["min", "max"]).tolist()
    assert sums == {"original": [105.0, 630.0], "single-layer": [5.0, 30.0]}


ROW = {
    "steered": True,
    "vector_idx": 17,
    "layer_start": 21,
    "layer_end": 42,
    "layer_name": "middle",
    "magnitude": 20.0,
    "context_prompt": "An opener of a test.",
    "assistant_response": "A reply of a test.",
    "detection_question": "A question of a test?",
}
NO_VECTOR = dict.fromkeys(("vector_idx", "layer_start", "layer_end", "layer_name", "magnitude"))
CLEAN = {**ROW, "steered": False, **NO_VECTOR}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_published_rows_are_read_as_examples(tmp_path: Path) -> None:
    food = {**CLEAN, "steered": True}  # the food control marks food so, without a vector
    coloured = {**ROW, "label": False, "positive_token": "Red", "negative_token": "Blue"}
    path = lines(tmp_path / "train.jsonl", ROW, CLEAN, food, coloured)
    steered, clean, on_food, coloured_one = read_published(path, Recipe.load("published/original"))
    assert steered.steered
    assert (steered.vector, steered.layers, steered.strength) == ("random-17", range(21, 42), 20.0)
    assert (steered.answer, clean.answer) == (" yes", " no")
    assert (clean.steered, clean.vector, len(clean.layers), clean.strength) == (False, "", 0, 0.0)
    assert (on_food.steered, on_food.label, on_food.answer) == (False, True, " yes")
    assert (coloured_one.answer, coloured_one.flipped) == (" Blue", True)
    assert [single.number for single in (steered, clean, on_food)] == [0, 1, 2]
    assert steered.conversation().messages[0].content == ROW["context_prompt"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({**ROW, "magnitude": None}, "line 1: `magnitude` is None"),
        ({**ROW, "layer_end": "42"}, "`layer_end` is '42'"),
        ({**ROW, "context_prompt": ""}, "`context_prompt` is ''"),
        ({"text": "something else"}, "no object with `steered`"),
        ([], "no object"),
    ],
)
def test_rows_of_something_else_are_refused(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_published(lines(tmp_path / "train.jsonl", row), Recipe.load("published/original"))
    (tmp_path / "broken.jsonl").write_text('{"steered": tru')
    with pytest.raises(UsageError, match="broken JSON"):
        read_published(tmp_path / "broken.jsonl", Recipe.load("published/original"))


def test_on_an_embedded_model_each_is_trained_for_as_long_beside_the_others_as_published() -> None:
    for name in recipe_names():
        recipe = Recipe.load(name)
        if not recipe.is_published or name == "published/inverse-inference":
            continue
        small = recipe.adapted(8, small=True)
        assert small.budget.steps_made / 200 == pytest.approx(recipe.budget.steps_made / 2250, rel=0.02), name
        assert small.budget.scheduled / 200 == pytest.approx(recipe.budget.scheduled / 2250, rel=0.02), name
    inference = Recipe.load("published/inverse-inference")
    assert inference.adapted(8, small=True).budget.steps_made == inference.budget.steps_made == 22
