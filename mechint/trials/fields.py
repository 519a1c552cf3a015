"""What is wrong with the fields of a foreign record, as short texts: what is missing, unknown, or of another kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

_LARGEST = 1e15  # a number beyond is no layer, strength or count, and may be none that arithmetic takes
_NAMES: Mapping[str, str] = MappingProxyType({"source_id": "id", "reply": "response", "sample": "trial"})


def faults_of_row(row: Mapping[str, object]) -> list[str]:
    """Return which values of a row (`mechint.trials.foreign.ROW`) are not of their kinds, or cannot be together."""
    texts = [field for field in ("model", "prompt", "concept", "reply") if not _is_text(row[field])]
    texts += [] if isinstance(row["source_id"], str | int) else ["source_id"]
    numbers = [field for field in ("strength", "layer", "sample") if not _is_number(row[field])]
    numbers += [field for field in ("norm", "depth") if not _is_number_or_nan(row[field])]
    faults = [f"{_NAMES.get(field, field)} that is no text: {row[field]!r:.60}" for field in texts]
    faults += [f"{_NAMES.get(field, field)} that is no finite number: {row[field]!r:.60}" for field in numbers]
    faults += [f"{field} that is empty" for field in ("model", "prompt", "concept") if not str(row[field]).strip()]
    if not row["steer"]:
        faults.append("config.inject_style that is neither generation nor all")
    if "sample" not in numbers and not float(str(row["sample"])).is_integer():
        faults.append(f"trial that is no whole number: {row['sample']!r}")
    if not isinstance(row["injected"], bool):
        faults.append(f"was_injected that is not true or false: {row['injected']!r:.60}")
    elif row["injected"] and not faults and row["strength"] == 0:
        faults.append("was_injected is true and the strength is 0")
    return faults


def faults_of_judge(judge: object) -> list[str]:
    """Return what in a verdict is of another kind than it should be: "false" as a text would count as true."""
    if judge is None:
        return []
    if not isinstance(judge, dict):
        return ["judge that is no object"]
    flags = [name for name in ("coherent", "refused") if not isinstance(judge.get(name, True), bool)]
    texts = [name for name in ("answer", "detected_concept") if not isinstance(judge.get(name), str | None)]
    return [
        *(f"judge.{name} that is not true or false: {judge[name]!r}" for name in flags),
        *(f"judge.{name} that is no text: {judge[name]!r}" for name in texts),
    ]


def faults_of_grades(record: Mapping[str, object]) -> list[str]:
    """Return which grades and kinds are not of the kind that they should be."""
    faults = [] if isinstance(record.get("trial_type", ""), str) else ["trial_type that is no text"]
    grades = record.get("evaluations")
    if not isinstance(grades, dict | None):
        return [*faults, "evaluations that are no object"]
    for name, answer in (
        ("claims_detection", "claims_detection"),
        ("correct_concept_identification", "correct_identification"),
    ):
        grade = (grades or {}).get(name)
        value = grade.get(answer) if isinstance(grade, dict) else grade
        if not isinstance(value, bool | None):
            faults.append(f"{name} that is not true or false: {value!r}")
    return faults


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def _is_number_or_nan(value: object) -> bool:
    """Whether a value is a number, or stands for one that nobody gave."""
    return _is_number(value) or (isinstance(value, float) and math.isnan(value))


def _is_text(value: object) -> bool:
    """Whether a value is a text that can be written: half a character of two cannot."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def missing(record: Mapping[str, object], needed: tuple[str, ...], prefix: str) -> list[str]:
    """Return which fields a record lacks; null is none."""
    return [f"missing {prefix}{name}" for name in needed if record.get(name) is None]


def unknown(record: Mapping[str, object], known_fields: frozenset[str], prefix: str) -> list[str]:
    """Return which fields of a record nobody knows."""
    return [f"unknown {prefix}{name}" for name in record if name not in known_fields]


def or_nan(value: object) -> object:
    """Return NaN for null: a field that need not be there."""
    return math.nan if value is None else value
