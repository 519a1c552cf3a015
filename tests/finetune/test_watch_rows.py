"""Rows of a training as its folder has them, the step of a skill, and the page beside an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mechint as mi
from mechint.base.errors import UsageError
from mechint.finetune.card import card
from mechint.finetune.run import WATCHED
from mechint.finetune.watch_rows import WatchRow
from tests.finetune.watch_data import RECIPE, START, record, row_at


def write(folder: Path, *rows: WatchRow) -> None:
    (folder / WATCHED).write_text("".join(f"{json.dumps(row.to_dict())}\n" for row in rows))


def test_rows_come_by_step_and_the_last_of_a_step_counts(tmp_path: Path) -> None:
    late, early, again = row_at(8, 0.9), row_at(2, 0.6), row_at(8, 0.95)
    write(tmp_path, late, early, again)
    assert mi.finetune.read_watch(tmp_path) == [early, again]


@pytest.mark.parametrize("text", ["no json", "[]", '{"recipe": "a"}', json.dumps({**START.to_dict(), "best": 1})])
def test_a_line_that_is_no_row_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="not there"):
        mi.finetune.read_watch(tmp_path)
    (tmp_path / WATCHED).write_text(text + "\n")
    with pytest.raises(UsageError, match="what a training was watched with"):
        mi.finetune.read_watch(tmp_path)


def test_matched_skill_is_the_first_fixed_step_and_not_the_best() -> None:
    rows = [row_at(step, area) for step, area in ((64, 0.99), (0, 0.5), (16, 0.91), (32, 0.89), (127, 1.0))]
    step = {area: mi.finetune.first_at(rows, area) for area in (0.9, 0.91, 0.95)}
    assert [None if row is None else row.step for row in step.values()] == [16, 16, 64]
    assert mi.finetune.first_at(rows[:2], 0.995) is None
    assert mi.finetune.first_at([], 0.9) is None


def test_a_row_of_before_there_were_intervals_is_read(tmp_path: Path) -> None:
    content = {name: value for name, value in START.to_dict().items() if name not in ("auc_low", "auc_high")}
    (tmp_path / WATCHED).write_text(json.dumps(content) + "\n")
    assert mi.finetune.read_watch(tmp_path) == [START]
    assert (START.auc_low, START.probe_is_low, row_at(1, 0.5, probe_mass=0.09).probe_is_low) == (None, False, True)


@pytest.mark.parametrize("area", [0.5, 0.2, 1.1])
def test_an_area_that_is_no_skill_is_refused(area: float) -> None:
    with pytest.raises(UsageError, match="matched skill"):
        mi.finetune.first_at([START], area)


def test_a_page_says_what_an_adapter_is_of_and_what_it_is_not(tmp_path: Path) -> None:
    record().write(tmp_path)
    text = card(mi.finetune.Run(tmp_path), 5)
    assert text.startswith('---\nbase_model: "tiny"\nlibrary_name: peft\n')
    for part in (
        RECIPE.hash,
        "weights-hash",
        "data-hash",
        "after 5 of 20 steps",
        "80 examples in 5 steps",
        "torch 2.9",
    ):
        assert part in text
    assert "an instrument, not evidence" in text
    assert RECIPE.source in text
    assert all(line in text for line in RECIPE.stand_ins)
    assert 'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("tiny"), "step-000005")' in text


@pytest.mark.parametrize("name", mi.finetune.recipes()["name"])
def test_every_recipe_has_a_page(name: str, tmp_path: Path) -> None:
    recipe = mi.finetune.Recipe.load(name).adapted(8, small=True)
    record(recipe).write(tmp_path)
    text = card(mi.finetune.Run(tmp_path), 1)
    assert f"# {name}, seed 3" in text
    assert ("nothing is added" in text) == (recipe.signal.vectors == "none")
    assert ("model, the texts and the run are not" in text) == recipe.is_published
