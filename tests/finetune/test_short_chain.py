"""The short recipes for a real model: what differs among them, and the areas that are read of their adapters."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import short_chain
from mechint.finetune.examples import example
from mechint.finetune.registry import differs_in, load_recipe

FOLDER = short_chain.REFERENCE.parent
RECIPES = {path.stem: path for path in sorted(FOLDER.glob("*.json"))}
CHANGED = {
    "random-labels": {"labels"},
    "no-steer": {"labels", "signal"},
    "food": {"labels", "signal", "asking"},
    "neutral-red-blue": {"asking", "answers"},
    "concept-vectors": {"signal"},
}


@pytest.mark.parametrize("name", CHANGED)
def test_controls_differ_in_what_their_names_say_and_are_as_long(name: str) -> None:
    assert set(RECIPES) == {*CHANGED, "original"}
    assert {line.partition(".")[0] for line in differs_in(RECIPES[name])} == CHANGED[name]
    recipe = load_recipe(RECIPES[name]).adapted(30)
    assert (recipe.budget.steps_made, recipe.budget.rows, recipe.fill.gradient) == (80, 8, "stopped")
    assert recipe.signal.dose == (0.04, 0.08, 0.16, 0.32)


def test_areas_are_those_of_planted_scores() -> None:
    recipe = load_recipe(RECIPES["original"]).adapted(30)
    examples = [example(recipe, 0, at // 8, at % 8, short_chain.HELD_OUT[2]) for at in range(64)]
    flags = np.array([item.steered for item in examples])
    odds = np.array([2.0 if item.dose == 0.32 else -1.0 for item in examples])
    rows = {row["dose"]: row for row in short_chain.areas(examples, odds, np.ones(64))}
    assert (rows[0.32]["auc"], rows[0.32]["hits"], rows[0.32]["false_alarms"]) == (1.0, 1.0, 0.0)
    assert (rows[0.04]["auc"], rows[0.04]["hits"]) == (0.5, 0.0)
    whole = next(row for place, row in rows.items() if np.isnan(place))
    assert whole["steered"] == flags.sum() == sum(row["steered"] for place, row in rows.items() if place > 0)
    assert 0.5 < whole["auc"] < 1
