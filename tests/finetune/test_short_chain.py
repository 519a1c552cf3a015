"""The short recipes for a real model: what differs among them, and what their table refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import short_chain
from mechint.finetune.registry import differs_in, load_recipe

FOLDER = Path(short_chain.__file__).parent / "short"
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
    assert (recipe.budget.steps_made, recipe.budget.rows, recipe.fill.gradient) == (128, 8, "stopped")
    assert recipe.signal.dose == (0.04, 0.08, 0.16, 0.32)


def test_a_folder_without_finished_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        short_chain.main(["--runs", str(tmp_path), "--out", str(tmp_path / "runs.csv")])
    assert "no finished run" in capsys.readouterr().err
    assert not (tmp_path / "runs.csv").exists()
