"""A model answers what an oracle does: rows are those of `mi.score`, receipts come along, a store is gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import mechint as mi
from mechint.evals.added import Adding
from mechint.evals.battery import battery
from mechint.evals.detection import CONTROLS, detection
from mechint.evals.items import Items
from mechint.evals.texts import distinct_texts
from mechint.finetune.specification import Recipe

RECIPE = Recipe.load("matched/original").adapted(8, small=True)
SMALL = replace(RECIPE, signal=replace(RECIPE.signal, layers=("2:4",), dose=(0.8,)))
FEW = {"pools": ("held-out",), "vectors": 2, "texts": 2, "dev_texts": 2}


def test_trials_are_those_of_score(family: Mapping[str, mi.Model], tmp_path: Path) -> None:
    model = family["organism-blind"]
    table = detection(model, SMALL, **FEW, store=tmp_path)  # type: ignore[arg-type]
    row = table[(table["kind"] == "steered") & (table["question"] == "control")].iloc[0]
    texts = distinct_texts(SMALL, 2, 0, "clean", CONTROLS)
    (text,) = [item for item in texts if item.unit == row["text"]]
    pool = Adding(SMALL, model, {}).pool("held-out", texts[0].source, 2, 0)
    (added,) = [item for item in pool if item.vector == row["vector"]]
    expected = mi.score(model, text.conversation("control"), added.intervention).iloc[0]
    assert row["score"] == pytest.approx(expected["logit_diff"], abs=1e-5)
    assert row["mass"] == pytest.approx(expected["yes_no_mass"], abs=1e-6)
    assert len(table.attrs["receipts"]) > 0
    null = table[table["kind"] == "null"].set_index(["question", "text"])["score"]
    assert null.equals(table[table["kind"] == "clean"].set_index(["question", "text"])["score"])
    again = detection(model, SMALL, **FEW, store=tmp_path, base=model)  # type: ignore[arg-type]
    assert again["score"].to_numpy() == pytest.approx(table["score"].to_numpy(), abs=1e-5)


def test_a_shard_has_its_trials_and_both_have_all(family: Mapping[str, mi.Model], tmp_path: Path) -> None:
    model = family["organism-blind"]
    first = detection(model, SMALL, **FEW, store=tmp_path, shard=mi.Shard(0, 2))  # type: ignore[arg-type]
    both = detection(model, SMALL, **FEW, store=tmp_path, shard=mi.Shard(1, 2))  # type: ignore[arg-type]
    assert 0 < len(first) < len(both) == len(detection(model, SMALL, **FEW))  # type: ignore[arg-type]


def test_a_battery_is_that_of_score(family: Mapping[str, mi.Model]) -> None:
    model, items = family["organism-blind"], Items.load("small")
    few = replace(items, items=items.items[::20])
    table = battery(model, few)
    assert len(table) == len(few.items) * 6
    assert table[table["format"] == "free"]["refusal"].between(0, 1).all()
    assert table[table["format"] != "free"]["refusal"].isna().all()
    question = next(q for q in few.questions() if q.format == "choice" and q.keying == "negated")
    expected = mi.score(model, question.conversation, mi.CLEAN).iloc[0]
    rows = table[(table["item"] == question.item.name) & (table["format"] == "choice") & (table["keying"] == "negated")]
    assert rows["log_odds"].iloc[0] == pytest.approx(expected["logit_diff"], abs=1e-5)
