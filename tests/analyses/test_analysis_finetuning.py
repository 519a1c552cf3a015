"""Trainings with planted values: means over seeds, steps of matched skill, what figures claim, and bad input."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from figure_reader import legend, panel_titles, points, subtitle, title
from whole_runs import refusal

from analyses import finetuning as analysis
from analyses.finetuning.figures import PANELS, grouped, seed_lines
from analyses.finetuning.training import means_table, rows_table
from mechint.finetune.registry import recipe_names
from mechint.finetune.run import WATCHED
from tests.finetune.watch_data import row_at
from tests.finetune.watch_folders import watched_run

pytestmark = pytest.mark.usefixtures("quick_analyses")

LEARNS, STAYS = "matched/original", "matched/food"
AREAS = {(LEARNS, 0): (0.5, 0.6, 0.8, 0.92, 1.0), (LEARNS, 1): (0.5, 0.7, 0.95, 0.9, 0.96), (STAYS, 0): (0.5,) * 5}
AREAS[STAYS, 1] = (0.5, 0.52, 0.48, 0.5, 0.52)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two recipes with two seeds each."""
    for (name, seed), areas in AREAS.items():
        watched_run(tmp_path / "runs", name, seed, areas)
    return tmp_path / "runs"


def test_tables_hold_rows_means_over_seeds_and_steps_of_matched_skill(runs: Path) -> None:
    results = analysis.run(runs=(runs,))
    assert len(results.table) == 20
    means = results.tables["means"].set_index(["recipe", "measure", "step"])
    middle = means.loc[LEARNS, "auc", 30]
    assert (middle["mean"], middle["n"], middle["examples"]) == (pytest.approx(0.875), 2, 480)
    assert middle["low"] < 0.8
    assert 0.95 < middle["high"] <= 1
    assert means.loc[STAYS, "mass", 0]["mean"] == pytest.approx(0.05)
    skill = results.tables["skill"].set_index(["recipe", "seed"])
    assert skill.loc[LEARNS, "step"].tolist() == [60, 30], "the first step with the skill, not the best"
    assert skill.loc[LEARNS, "examples"].tolist() == [960, 480]
    assert skill.loc[STAYS, "step"].isna().all()
    higher = analysis.run(runs=(runs,), skill=0.98).tables["skill"].set_index(["recipe", "seed"])
    assert higher.loc[LEARNS, "step"].isna().tolist() == [False, True]


def test_control_questions_that_are_hardly_answered_are_in_no_mean() -> None:
    rows = [row_at(1, 0.5, probe_mass=0.05, probe_shift=9.0), row_at(1, 0.5, seed=1, probe_shift=2.0)]
    table = rows_table(rows)
    assert table["probe_is_low"].tolist() == [True, False]
    shift = means_table(table).set_index("measure").loc["probe_shift"]
    assert (shift["mean"], shift["n"]) == (2.0, 1)
    assert "probe_shift" not in set(means_table(rows_table(rows[:1]))["measure"])
    assert seed_lines(table).query("panel == 'probe_shift'")["value"].tolist() == [2.0]


def test_the_figure_shows_all_recipes_and_says_how_many_seeds_there_are(runs: Path) -> None:
    figure = analysis.run(runs=(runs,)).figures["finetuning_training"]
    assert set(legend(figure)) == {LEARNS, STAYS}
    assert panel_titles(figure)[: len(PANELS)] == [panel.title for panel in PANELS]
    assert points(figure, LEARNS)[-1] == (1920.0, pytest.approx(0.98))
    assert f"{LEARNS} 0.98 [" in title(figure)
    assert f"{STAYS} 0.51 [" in title(figure)
    assert "thin: 2 seeds each" in subtitle(figure)
    assert "organism-blind" in subtitle(figure)


def test_a_single_seed_has_no_interval_and_makes_no_claim(tmp_path: Path) -> None:
    for name in (LEARNS, STAYS):
        watched_run(tmp_path, name, 0, AREAS[name, 0])
    results = analysis.run(runs=(tmp_path,))
    assert results.tables["means"][["low", "high"]].isna().all(axis=None)
    figure = results.figures["finetuning_training"]
    assert "1.00 (1 seed)" in title(figure)
    assert "1 seed each: no interval, and no claim between recipes" in subtitle(figure)
    assert not [trace for trace in figure.data if trace.line.width == 1], "a mean of one run is the run"


def test_a_mean_is_over_all_seeds_or_none(tmp_path: Path) -> None:
    watched_run(tmp_path, LEARNS, 0, AREAS[LEARNS, 0])
    watched_run(tmp_path, LEARNS, 1, AREAS[LEARNS, 1][:3])
    results = analysis.run(runs=(tmp_path,))
    auc = results.tables["means"].query("measure == 'auc'")
    assert auc["step"].tolist() == [0, 15, 30]
    assert "0.88 [" in title(results.figures["finetuning_training"])


def test_many_recipes_are_held_against_the_same_one_in_each_figure() -> None:
    names = recipe_names()
    groups = grouped(names)
    assert all(group[0] == LEARNS and len(group) <= 8 for group in groups)
    assert sorted({name for group in groups for name in group}) == names
    assert grouped([STAYS]) == [[STAYS]]
    assert grouped([STAYS, LEARNS]) == [[LEARNS, STAYS]]
    assert grouped([LEARNS]) == [[LEARNS]]


def test_a_run_that_was_not_watched_is_named(runs: Path) -> None:
    (runs / "matched__food" / "seed-1" / WATCHED).unlink()
    results = analysis.run(runs=(runs,))
    assert [Path(name).parts[-2:] for name in results.facts["not_watched"]] == [("matched__food", "seed-1")]  # type: ignore[union-attr]
    assert len(results.table) == 15


def test_runs_that_were_never_watched_have_evaluations_alone(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for watched in runs.rglob(WATCHED):
        watched.unlink()
    message = refusal(analysis, ["--runs", str(runs), "--out", str(runs / "figures")], capsys)
    assert "4 runs, of which none was watched" in message, "said before any model is loaded"
    rows = {"battery": pd.DataFrame({"trained_by": []})}
    units = pd.DataFrame({"evaluation": ["battery"], "value": [0.5]})
    monkeypatch.setattr(analysis, "is_evaluated", lambda *_: True)
    monkeypatch.setattr(analysis, "tables_of", lambda *_: rows)
    monkeypatch.setattr(analysis, "units_table", lambda *_: units)
    monkeypatch.setattr(analysis, "effects_table", lambda *_: pd.DataFrame())
    monkeypatch.setattr("analyses.finetuning.drawing.drawn", lambda frames, rows, facts: {})
    results = analysis.run(runs=(runs,), parts=("battery",))
    assert set(results.tables) == {"units", "effects", "battery"}
    assert len(results.facts["not_watched"]) == 4  # type: ignore[arg-type]


def test_runs_may_be_named_one_by_one_and_twice(runs: Path) -> None:
    single = runs / "matched__food" / "seed-0"
    assert analysis.run(runs=(single,)).table["recipe"].unique().tolist() == [STAYS]
    both = analysis.run(runs=(runs, single)).table
    pd.testing.assert_frame_equal(both, analysis.run(runs=(runs,)).table)


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watched_run(tmp_path / "a", LEARNS, 0, AREAS[LEARNS, 0])
    cases = {"different bases": {"identity": "another"}, "train different things": {"recipe_hash": "another"}}
    for number, (fault, changes) in enumerate(cases.items()):
        watched_run(tmp_path / f"b{number}", LEARNS, 1, AREAS[LEARNS, 1], **changes)
        both = ["--runs", str(tmp_path / "a"), "--runs", str(tmp_path / f"b{number}")]
        assert fault in refusal(analysis, both, capsys)
    watched_run(tmp_path / "c", LEARNS, 0, AREAS[LEARNS, 1])
    both = ["--runs", str(tmp_path / "a"), "--runs", str(tmp_path / "c")]
    assert "two trainings" in refusal(analysis, both, capsys)
    (tmp_path / "empty").mkdir()
    assert "no training in it" in refusal(analysis, ["--runs", str(tmp_path / "empty")], capsys)
    assert "no --runs" in refusal(analysis, [], capsys)
    assert "above 0.5" in refusal(analysis, ["--runs", str(tmp_path / "a"), "--skill", "0.5"], capsys)
