"""Files of trials that are not as they should be: each fault is a line of the report or one error, never a guess."""

from __future__ import annotations

import copy
import gzip
import json
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechint.base.errors import UsageError
from mechint.trials.importers import import_trials, integrity_report
from tests.trials.published_trees import MODELS, record

FILE = "phase2/14b/ocean.jsonl"
RESULTS = "run/Llama-8B/layer_10_strength_2/results.json"
RECORDS = [
    record(MODELS["14b"], "v2", "ocean", injected, 3.0, sample, f"I notice {injected} {sample}")
    for injected in (True, False)
    for sample in range(2)
]


def _written(folder: Path, content: str | bytes, file: str = FILE) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def _lines(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in records)


def _with(place: str, value: object) -> list[dict[str, object]]:
    """The records with another value in the first, at "config.layer"."""
    changed = copy.deepcopy(RECORDS)
    *outer, name = place.split(".", maxsplit=1)
    holder = changed[0][outer[0]] if outer else changed[0]
    holder[name] = value  # type: ignore[index]
    return changed


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        pytest.param("config.layer", 10**400, "layer that is no finite number", id="a huge layer"),
        ("config.strength", True, "strength that is no finite number: True"),
        ("config.trial", 0.5, "trial that is no whole number: 0.5"),
        ("config.magnitude", [1], "norm that is no finite number: [1]"),
        ("config.inject_style", "sideways", "config.inject_style that is neither generation nor all"),
        ("config.prompt_version", " ", "prompt that is empty"),
        ("id", [1], "id that is no text: [1]"),
        ("response", "half \ud800", "response that is no text"),
        ("judge", ["pass"], "judge that is no object"),
        ("judge.refused", "false", "judge.refused that is not true or false: 'false'"),
        ("judge.answer", ["pass"], "judge.answer that is no text: ['pass']"),
        ("judge.detected_concept", {"a": 1}, "judge.detected_concept that is no text"),
    ],
)
def test_a_value_of_another_kind_is_a_line_of_the_report(
    tmp_path: Path, place: str, value: object, complaint: str
) -> None:
    report = integrity_report(_written(tmp_path, _lines(_with(place, value))))
    (line,) = report.text.splitlines()[1:]
    assert line.startswith(f"{FILE}: {complaint}")
    assert report.problems["row"].tolist() == [1]
    verdicts = import_trials(tmp_path, as_published=True).verdicts  # the row is left out, or has no verdict
    assert len(verdicts) == 3 or verdicts["error"].iloc[0]


def test_a_file_without_trials_and_a_compressed_one_are_not_passed_over(tmp_path: Path) -> None:
    _written(tmp_path, _lines(RECORDS))
    _written(tmp_path, "\n", "phase2/14b/fear.jsonl")
    _written(tmp_path, gzip.compress(_lines(RECORDS).encode()), "phase2/14b/silence.jsonl.gz")
    report = integrity_report(tmp_path)
    assert report.text.splitlines()[1:] == [
        "phase2/14b/fear.jsonl: holds no trials",
        "phase2/14b/silence.jsonl.gz: is compressed and was not read: unpack it",
    ]
    assert len(import_trials(tmp_path, leave_out=report.files).trials) == 4
    (tmp_path / FILE).unlink()
    (tmp_path / "phase2/14b/fear.jsonl").unlink()
    with pytest.raises(UsageError, match=r"unpack silence\.jsonl\.gz"):
        import_trials(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (_lines(RECORDS)[:-30], "line 4: broken JSON"),
        (json.dumps(RECORDS), "line 1: no object"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("[" * 100_000, "line 1: broken JSON"),
        (_lines(RECORDS).replace('"trial": 0', '"trial": ' + "9" * 5000), "line 1: broken JSON"),
    ],
)
def test_what_cannot_be_read_is_one_error_with_its_file(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    with pytest.raises(UsageError, match="ocean") as raised:
        import_trials(_written(tmp_path, content))
    assert complaint in raised.value.given


def test_marks_of_byte_order_line_ends_and_parted_accents_are_no_faults(tmp_path: Path) -> None:
    parted = unicodedata.normalize("NFD", "oc\u00e9an")
    rows = [record(MODELS["14b"], "v2", "oc\u00e9an", True, 3.0, n, f"hm {n}") for n in range(3)]
    content = "\ufeff" + _lines(rows).replace("\n", "\r\n")
    _written(tmp_path, content, f"phase2/14b/{parted}.jsonl")
    assert set(import_trials(tmp_path).trials["concept"]) == {"oc\u00e9an"}


def test_a_folder_of_random_letters_has_no_size(tmp_path: Path) -> None:
    folder = _written(tmp_path / "tmp26vp9x9m", _lines(RECORDS), "run/ocean.jsonl")
    assert integrity_report(folder).problems.empty


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ({"phase2": "14b"}, "has no object"),
        ({"phase3": {"model": "x"}}, "phase3"),
        ({"phase2": {"modle": "x"}}, "modle"),
    ],
)
def test_a_manifest_that_says_nothing_is_an_error(tmp_path: Path, manifest: dict[str, object], complaint: str) -> None:
    _written(tmp_path, _lines(RECORDS))
    _written(tmp_path, json.dumps(manifest), "manifest.json")
    with pytest.raises(UsageError, match=complaint):
        import_trials(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"evaluations": {"claims_detection": {"claims_detection": "no"}}},
            "claims_detection that is not true or false",
        ),
        ({"evaluations": [1]}, "evaluations that are no object"),
        ({"layer_fraction": "x"}, "depth that is no finite number: 'x'"),
        ({"trial_type": None}, "trial_type that is no text"),
    ],
)
def test_grades_that_are_none_are_not_guessed(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    rows = [{"concept": "sea", "response": "hm", "trial": 0, "strength": 2.0, "layer": 10, **changes}]
    assert complaint in integrity_report(_written(tmp_path, json.dumps(rows), RESULTS)).text


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
PLACES = [
    *RECORDS[0],
    *(f"config.{name}" for name in RECORDS[0]["config"]),
    *(f"judge.{n}" for n in RECORDS[0]["judge"]),
]  # type: ignore[attr-defined]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(place=st.sampled_from(PLACES), value=ANYTHING)
def test_any_value_anywhere_is_read_or_refused_and_the_report_has_one_line_for_each_fault(
    place: str, value: object
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _written(Path(folder), _lines(_with(place, value)))
        report = integrity_report(folder)
        assert len(report.text.splitlines()) == 1 + len(report.problems)
        trials = import_trials(folder, as_published=True).trials
        assert len(trials) in (3, 4)
        assert trials["strength"].notna().all()
