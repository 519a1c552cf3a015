"""What a training costs: nothing where nothing was trained, and no more than text_loss and the battery say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import mechint as mi
from mechint.base.errors import UsageError
from mechint.evals.ability import ability
from mechint.evals.ability_rates import ability_rates
from mechint.prompts.design import PromptDesign


def concepts(model: mi.Model) -> dict[str, mi.ConceptVector]:
    """Directions that make each word likelier: its own row of the unembedding, at the last layers but one."""
    ids = {word: model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in ("cats", "rain")}
    rows = {word: model.readout.weight[token].detach().float() for word, token in ids.items()}
    return {word: mi.ConceptVector({5: row, 6: row}, word, model.n_layers) for word, row in rows.items()}


def test_values_are_those_of_text_loss_and_the_base_is_beside_them(
    family: Mapping[str, mi.Model], tmp_path: Path
) -> None:
    base, model = family["organism"], family["organism-finetuned"]
    vectors = concepts(base)
    table = ability(model, base, concepts=vectors, doses=(2.0,), layers=(5, 6), replies=3, store=tmp_path)
    losses = mi.text_loss(model, PromptDesign.load(base.prompts).tasks.plain, mi.CLEAN)["loss"]
    own = table[(table["model"] == "self") & (table["set"] == "text")]
    assert own["loss"].to_numpy() == pytest.approx(losses.to_numpy(), abs=1e-5)
    rates = ability_rates(table).set_index(["set", "measure"])
    assert rates.loc[("neutral", "kl"), "base"] == 0.0
    assert rates.loc[("neutral", "kl"), "value"] > 1e-4
    assert rates.loc[("steered", "right"), "base"] == 1.0, "a word's own direction makes it likelier"
    assert rates.loc[("steered", "shift"), "base"] > 0.5
    facts = table[table["set"] == "facts"]
    assert ((facts["log_odds"] > 0) == (facts["right"] == 1.0)).all()
    published = ability_rates(table, estimator="published")
    assert published["difference"].iloc[0] == pytest.approx(rates.loc[("facts", "right"), "difference"])
    again = ability(model, base, concepts=vectors, doses=(2.0,), layers=(5, 6), replies=3, store=tmp_path)
    assert again.equals(table), "nothing is measured twice"
    shard = ability(model, base, replies=3, store=tmp_path, shard=mi.Shard(1, 2))
    assert len(shard) == len(table[table["set"] != "steered"]), "what others have kept is there"


def test_a_model_that_is_its_base_has_moved_nowhere(family: Mapping[str, mi.Model]) -> None:
    base = family["organism-blind"]
    twin = mi.load("organism-blind")
    table = ability(twin, base, replies=2)
    rates = ability_rates(table)
    assert np.abs(rates["difference"]).max() < 1e-5
    assert rates.set_index("measure").loc["kl", "value"] < 1e-9
    alone = ability(base, base, replies=2)
    assert set(alone["model"]) == {"self"}
    assert ability_rates(alone)["difference"].isna().all()


def test_what_cannot_be_measured_is_refused(family: Mapping[str, mi.Model]) -> None:
    model = family["organism-blind"]
    vector = mi.ConceptVector({3: torch.ones(model.d_model)}, "cats", model.n_layers)
    with pytest.raises(UsageError, match="1 concept"):
        ability(model, model, concepts={"cats": vector})
    with pytest.raises(UsageError, match="above 0"):
        ability(model, model, doses=(0.0,))
    with pytest.raises(UsageError, match="model's rows"):
        ability_rates(ability(model, model, replies=1).iloc[:0])
