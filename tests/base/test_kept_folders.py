"""Kept folders: whole or not there, seen to be altered, made by whoever is first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from mechint.base.errors import OutputError
from mechint.base.files import JSON, temporary_prefix
from mechint.base.kept_folders import keep_folder, kept_record


def writing(text: str) -> dict[str, JSON]:
    return {"text": text}


def keep(folder: Path, text: str) -> Path:
    def write(temporary: Path) -> Mapping[str, JSON]:
        (temporary / "weights").write_text(text)
        return writing(text)

    return keep_folder(folder, write)


def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    folder = keep(tmp_path / "deep" / "kept", "a")
    assert kept_record(folder) == {"text": "a"}
    assert (folder / "weights").read_text() == "a"
    assert [path.name for path in folder.parent.iterdir()] == ["kept"]


def test_nothing_is_kept_where_nothing_was_written(tmp_path: Path) -> None:
    assert kept_record(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["weights", "kept.json", "more", "less"])
def test_a_damaged_folder_is_none_and_made_again(tmp_path: Path, damage: str) -> None:
    folder = keep(tmp_path / "kept", "a")
    if damage == "less":
        (folder / "weights").unlink()
    else:
        (folder / damage).write_text("b")
    assert kept_record(folder) is None
    keep(folder, "c")
    assert kept_record(folder) == {"text": "c"}
    assert sorted(path.name for path in folder.iterdir()) == ["kept.json", "weights"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(temporary: Path) -> Mapping[str, JSON]:
        (temporary / "weights").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_folder(tmp_path / "kept", fail)
    assert list(tmp_path.iterdir()) == []


def test_who_comes_second_leaves_the_first_ones(tmp_path: Path) -> None:
    def overtaken(temporary: Path) -> Mapping[str, JSON]:
        keep(tmp_path / "kept", "first")
        (temporary / "weights").write_text("second")
        return writing("second")

    keep_folder(tmp_path / "kept", overtaken)
    assert kept_record(tmp_path / "kept") == {"text": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_of_a_dead_writer_goes_and_one_of_a_living_stays(tmp_path: Path) -> None:
    living = temporary_prefix("kept") + "x"
    dead = living.replace(f"-{os.getpid()}.", "-999999999.")
    for name in (living, dead, ".other"):
        (tmp_path / name).mkdir()
    keep(tmp_path / "kept", "a")
    assert {path.name for path in tmp_path.iterdir()} == {living, ".other", "kept"}


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="MECHINT_CACHE"):
        keep(tmp_path / "file" / "kept", "a")
