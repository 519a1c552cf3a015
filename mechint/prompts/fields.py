"""The parts of a design file, read from JSON and checked one by one; errors name the place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import TypeVar

from mechint.base.errors import UsageError
from mechint.base.files import JSON

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # no underscore: it separates the names in a label
_T = TypeVar("_T")


def table(data: JSON, where: str, read: Callable[[JSON, str], _T]) -> Mapping[str, _T]:
    """Return the entries of an object, each read by `read`; raises UsageError if there is none."""
    entries = as_object(data, where)
    if not entries:
        raise malformed(where, "it is empty")
    records = {checked_name(key, where): read(value, f"{where}, {key}") for key, value in entries.items()}
    return MappingProxyType(records)


def as_object(data: JSON, where: str, keys: Sequence[str] | None = None) -> dict[str, JSON]:
    """Return an object, with just these keys if they are given; raises UsageError."""
    if not isinstance(data, dict):
        raise malformed(where, f"a {type(data).__name__} where an object must stand")
    if keys is not None and set(data) != set(keys):
        missing, unknown = sorted(set(keys) - set(data)), sorted(set(data) - set(keys))
        raise malformed(where, f"missing keys {missing}, unknown keys {unknown}")
    return data


def field_names(record: type) -> list[str]:
    """Return the names of the fields of a record."""
    return [field.name for field in fields(record)]


def filled_texts(data: JSON, where: str, keys: Sequence[str]) -> dict[str, str]:
    """Return an object of texts that are not empty, with just these keys; raises UsageError."""
    return {key: filled_text(value, f"{where}, {key}") for key, value in as_object(data, where, keys).items()}


def as_texts(data: JSON, where: str) -> tuple[str, ...]:
    """Return a list of different texts that are not empty; raises UsageError."""
    if not isinstance(data, list) or not data:
        raise malformed(where, "not a list of texts, or an empty one")
    texts = tuple(filled_text(item, f"{where}, item {i}") for i, item in enumerate(data))
    check_distinct(texts, where)
    return texts


def check_distinct(texts: Sequence[str], where: str) -> None:
    """Raise UsageError for texts that occur twice."""
    repeated = sorted({text for text in texts if texts.count(text) > 1})
    if repeated:
        raise malformed(where, f"texts that occur more than once: {repeated[:5]}")


def filled_text(data: JSON, where: str) -> str:
    """Return a text that is not empty; raises UsageError."""
    if not as_text(data, where).strip():
        raise malformed(where, "the text is empty")
    return as_text(data, where)


def as_text(data: JSON, where: str) -> str:
    """Return a text; raises UsageError."""
    if not isinstance(data, str):
        raise malformed(where, f"{data!r} is not a text")
    return data


def checked_name(data: JSON, where: str) -> str:
    """Return a name of small letters, digits and hyphens; raises UsageError."""
    name = as_text(data, where)
    if not _NAME.fullmatch(name):
        raise malformed(where, f"{name!r} is not a name (lower-case letters and digits, joined by hyphens)")
    return name


def malformed(where: str, fault: str) -> UsageError:
    """Return the error for a design file."""
    return UsageError(
        given=f"{where}: {fault}",
        allowed="the parts that mechint/prompts/prompt_sets/full.json has",
        advice="correct the design file, with that one as a pattern",
    )
