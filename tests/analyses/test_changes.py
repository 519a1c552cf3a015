"""The committed gallery is what the code draws today; what is not is named."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
from conftest import refuse_pictures

from analyses import ANALYSES
from analyses.gallery import changes

GALLERY = Path(__file__).resolve().parents[2] / "figures"


def test_equal_figures_have_no_differences_and_last_digits_are_none() -> None:
    old = {"data": [{"y": [1.0, None, 1000.0], "name": "P(yes) rises by +0.50"}]}
    new = {"data": [{"y": [1.0005, None, 1001.0], "name": "P(yes) rises by +0.51"}]}
    assert list(changes.differences(old, old)) == []
    assert list(changes.differences(old, new)) == []


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"y": [1.0, 2.5]}, ".y[1]: 2.0 -> 2.5"),
        ({"y": [1.0]}, ".y: 2 -> 1 entries"),
        ({"y": [1.0, None]}, ".y[1]: 2.0 -> None"),
        ({"y": [1.0, 2.0], "text": "a"}, ".text: only in the new"),
        ({}, ".y: only in the old"),
    ],
)
def test_every_change_is_named(new: dict[str, object], said: str) -> None:
    assert list(changes.differences({"y": [1.0, 2.0]}, new)) == [said]
    assert list(changes.differences({"t": "falls by 0.5"}, {"t": "rises by 0.5"}))
    assert list(changes.differences({"t": "by 0.50"}, {"t": "by 0.59"}))


def test_the_command_names_figures_that_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side, value in (("old", 1.0), ("new", 2.0)):
        (tmp_path / side / "detection").mkdir(parents=True)
        (tmp_path / side / "detection" / "shift.json").write_text(json.dumps({"data": [{"y": [value]}]}))
    (tmp_path / "new" / "detection" / "more.json").write_text("{}")
    assert changes.main([str(tmp_path / "old"), str(tmp_path / "new")]) == 1
    told = capsys.readouterr().out
    assert "detection/shift.json.data[0].y[0]: 1.0 -> 2.0" in told
    assert f"detection/more.json: not in {tmp_path / 'old'}" in told
    assert changes.main([str(tmp_path / "old"), str(tmp_path / "old")]) == 0
    assert changes.main([str(tmp_path / "old"), str(tmp_path / "empty")]) == 2


@pytest.mark.parametrize("name", ["published", "detection"])
def test_the_committed_figures_are_what_the_code_draws(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two analyses stand for all, one without and one with a model; `make figures` and git say it of the others."""
    monkeypatch.setattr("mechint.figures.pictures.write_images", refuse_pictures)
    shutil.copytree(GALLERY / name, tmp_path / "old" / name)
    assert importlib.import_module(f"analyses.{name}").main([*ANALYSES[name], "--out", str(tmp_path / "new")]) == 0
    assert changes.compare(tmp_path / "old", tmp_path / "new") == []
