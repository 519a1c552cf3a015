"""Evaluations of self-knowledge on tiny random models: every column is there, whatever these say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import mechint as mi
from mechint.evals.calibration import calibration
from mechint.evals.calibration_rates import calibration_rates
from mechint.evals.distribution_sets import DistributionSets
from mechint.evals.length_prompts import LengthPrompts
from mechint.evals.length_rates import length_rates
from mechint.evals.lengths import lengths
from mechint.evals.self_items import SelfItems
from mechint.evals.self_prediction import self_prediction
from mechint.evals.self_rates import self_prediction_rates


@pytest.fixture(scope="module")
def pair(tiny_model: Callable[..., mi.Model]) -> tuple[mi.Model, mi.Model]:
    return tiny_model("llama"), tiny_model("llama", seed=1)


def test_answers_of_random_models_are_foretold(pair: tuple[mi.Model, mi.Model]) -> None:
    items = SelfItems.load("full")
    few = replace(items, items=tuple(item for item in items.items if item.number < 1 and item.kind != "list"))
    table = self_prediction(*pair, few, samples=1, max_new_tokens=3)
    assert table.groupby(["object_model", "meta_model"]).size().nunique() == 1
    assert len(table) == 4 * sum(len(item.properties) for item in few.items)
    answered = table[table["actual"] != ""]
    assert answered["p_actual"].between(0, 1).all()
    assert table["mass"].between(0, 1).all()
    assert np.isfinite(self_prediction_rates(table, (), permutations=2)["accuracy"]).all()


def test_random_models_are_read_and_write_no_lists(pair: tuple[mi.Model, mi.Model]) -> None:
    sets = DistributionSets.load("full")
    few = replace(sets, sets=tuple(of_it for of_it in sets.sets if of_it.name in ("coin", "side", "word")))
    table = calibration(*pair, few, samples=2, reports=1, max_new_tokens=4)
    closed = table[(table["source"] != "verbal") & (table["kind"] == "closed")]
    sums = closed.groupby(["model", "prompt", "source"])["p"].sum()
    assert sums.to_numpy() == pytest.approx(1.0)
    rates = calibration_rates(table).set_index(["source", "kind"])
    assert rates.loc[("choice", "closed"), "js"] >= 0
    assert rates.loc[("verbal", "closed"), "failure"] == 1.0


def test_lengths_of_random_models_are_guessed(pair: tuple[mi.Model, mi.Model]) -> None:
    prompts = LengthPrompts.load("full")
    few = replace(prompts, prompts=dict(list(prompts.prompts.items())[:2]), numbers=(1, 20))
    table = lengths(*pair, few, samples=1, limit=4)
    of_lengths = table[table["measure"] == "length"]
    assert len(of_lengths) == 4 * 2
    assert of_lengths["predicted"].isin(few.numbers).all()
    assert length_rates(table)["measure"].iloc[0] == "length"
