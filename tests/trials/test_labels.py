"""Labels: every version is kept, what was frozen stays, and what was edited after it is on record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mechint.base.errors import StaleArtefactError, UsageError
from mechint.trials.labels import Label, LabelFile


@pytest.fixture
def labels(tmp_path: Path) -> LabelFile:
    file = LabelFile(tmp_path / "labels.jsonl")
    file.add(Label("a", "yes", named="the sea", claim_first=True, labeller="A"), Label("b", "no", refused=True))
    return file


def test_labels_are_read_as_they_were_written_and_every_version_is_kept(labels: LabelFile) -> None:
    labels.add(Label("a", "no"))
    assert [label.claims for label in labels.versions()] == ["yes", "no", "no"]
    assert labels.versions()[0] == Label("a", "yes", named="the sea", claim_first=True, labeller="A")
    assert labels.current()["a"].claims == "no"


def test_a_second_reading_does_not_replace_the_first(labels: LabelFile) -> None:
    labels.add(Label("a", "no", pass_no=1))
    assert labels.current()["a"].claims == "yes"
    assert set(labels.current(pass_no=1)) == {"a"}


def test_what_was_frozen_stays_and_an_edit_is_counted(labels: LabelFile) -> None:
    assert labels.frozen() == {}
    digest = labels.freeze()
    assert labels.version() == digest
    assert labels.edits() == []
    labels.add(Label("a", "no"), Label("b", "no", refused=True, note="the same again"), Label("c", "no"))
    assert labels.frozen()["a"].claims == "yes"
    assert labels.edits() == ["a"]


def test_an_edit_stays_on_record_when_labels_are_frozen_again(labels: LabelFile) -> None:
    first = labels.freeze()
    labels.add(Label("a", "no"))
    assert labels.freeze() != first
    assert labels.edits() == []
    assert labels.revised() == ["a"]


def test_a_frozen_line_that_was_changed_is_refused(labels: LabelFile) -> None:
    labels.freeze()
    labels.path.write_text(labels.path.read_text(encoding="utf-8").replace("the sea", "a song"), encoding="utf-8")
    with pytest.raises(StaleArtefactError, match="differ from those that were frozen"):
        labels.frozen()


def test_nothing_cannot_be_frozen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="label some replies first"):
        LabelFile(tmp_path / "none.jsonl").freeze()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 1: broken JSON"),
        ("[]", "line 1"),
        ('{"id": "a"}', "an object with id"),
        ('{"id": "a", "claims": "maybe"}', "maybe"),
        ('{"id": "a", "claims": "no", "arm": "injected"}', "an object with id"),
        ('{"id": "a", "claims": "no", "coherent": "yes"}', "coherent is 'yes'"),
        ('{"id": "a", "claims": "no", "claim_first": true}', "no claim"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=complaint):
        LabelFile(path).versions()


def test_lines_are_plain_json(labels: LabelFile) -> None:
    line = labels.path.read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(line)["named"] == "the sea"
