"""Design files: the wording of a prompt set, read from JSON and checked part by part."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from mechint.errors import UnknownNameError, UsageError
from mechint.files import JSON, read_json

GROUPS = ("no", "confusing-no", "yes", "ambiguous")
SLOT = "{concept}"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # no underscore: it separates the names in a label
_T = TypeVar("_T")


@dataclass(frozen=True)
class Description:
    """What the first user message says was done, the assistant's reply, and the question that follows."""

    setup: str
    reply: str
    question: str


@dataclass(frozen=True)
class AnswerFormat:
    """How to answer: the instruction, the assistant_prefix, and the two answer tokens."""

    instruction: str
    prefix: str
    yes_token: str
    no_token: str


@dataclass(frozen=True)
class Extraction:
    """Texts that concept vectors are computed from; `concept[i]` has the slot, `baseline[i]` is its pair."""

    concept: tuple[str, ...]
    baseline: tuple[str, ...]
    baseline_words: tuple[str, ...]
    beginnings: tuple[str, ...]


@dataclass(frozen=True)
class PromptDesign:
    """The wording of one prompt set; its mappings keep the order of the file and cannot be changed."""

    name: str
    system: str
    descriptions: Mapping[str, Description]
    infos: Mapping[str, str]
    formats: Mapping[str, AnswerFormat]
    controls: Mapping[str, tuple[str, ...]]
    extraction: Extraction

    @classmethod
    def load(cls, name_or_path: str | Path) -> PromptDesign:
        """Return a packaged design ("small", "full") or the one in a `.json` file.

        Raises UnknownNameError for a name that is not packaged, UsageError for a malformed file.
        """
        path = Path(name_or_path)
        if isinstance(name_or_path, str) and path.suffix != ".json":
            path = _packaged(name_or_path)
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "design") -> PromptDesign:
        """Return the design that a JSON object describes, every part of it checked; raises UsageError."""
        top = _object(data, where, _keys(cls))
        return cls(
            name=_name(top["name"], f"{where}, name"),
            system=_text(top["system"], f"{where}, system"),
            descriptions=_table(top["descriptions"], f"{where}, descriptions", _description),
            infos=_table(top["infos"], f"{where}, infos", _text),
            formats=_table(top["formats"], f"{where}, formats", _format),
            controls=_controls(top["controls"], f"{where}, controls"),
            extraction=_extraction(top["extraction"], f"{where}, extraction"),
        )


def available_sets() -> list[str]:
    """Return the names of the packaged prompt sets."""
    return sorted(path.stem for path in packaged_folder().glob("*.json"))


def _packaged(name: str) -> Path:
    if name not in available_sets():
        allowed = f"{', '.join(available_sets())}, or a path that ends in .json"
        raise UnknownNameError(f"unknown prompt set {name!r}", allowed, "choose one of these")
    return packaged_folder() / f"{name}.json"


def packaged_folder() -> Path:
    """Return the folder of the packaged design files and of what they render to."""
    return Path(str(resources.files("mechint").joinpath("prompt_sets")))


def _description(data: JSON, where: str) -> Description:
    return Description(**_filled_texts(data, where, _keys(Description)))


def _format(data: JSON, where: str) -> AnswerFormat:
    found = AnswerFormat(**_filled_texts(data, where, _keys(AnswerFormat)))
    if found.yes_token == found.no_token:
        raise _malformed(where, f"yes_token and no_token are both {found.yes_token!r}")
    return found


def _controls(data: JSON, where: str) -> Mapping[str, tuple[str, ...]]:
    groups = _object(data, where, GROUPS)
    found = {group: _texts(groups[group], f"{where}, {group}") for group in GROUPS}
    _check_distinct([question for group in found.values() for question in group], where)
    return MappingProxyType(found)


def _extraction(data: JSON, where: str) -> Extraction:
    parts = _object(data, where, _keys(Extraction))
    found = Extraction(**{key: _texts(value, f"{where}, {key}") for key, value in parts.items()})
    if len(found.concept) != len(found.baseline):
        raise _malformed(where, f"{len(found.concept)} concept and {len(found.baseline)} baseline messages")
    if not all(SLOT in text for text in found.concept) or any(SLOT in text for text in found.baseline):
        raise _malformed(where, f"{SLOT} must stand in every concept message and in no baseline message")
    return found


def _table(data: JSON, where: str, read: Callable[[JSON, str], _T]) -> Mapping[str, _T]:
    entries = _object(data, where)
    if not entries:
        raise _malformed(where, "it is empty")
    found = {_name(key, where): read(value, f"{where}, {key}") for key, value in entries.items()}
    return MappingProxyType(found)


def _object(data: JSON, where: str, keys: Sequence[str] | None = None) -> dict[str, JSON]:
    if not isinstance(data, dict):
        raise _malformed(where, f"a {type(data).__name__} where an object must stand")
    if keys is not None and set(data) != set(keys):
        missing, unknown = sorted(set(keys) - set(data)), sorted(set(data) - set(keys))
        raise _malformed(where, f"missing keys {missing}, unknown keys {unknown}")
    return data


def _keys(record: type) -> list[str]:
    return [field.name for field in fields(record)]


def _filled_texts(data: JSON, where: str, keys: Sequence[str]) -> dict[str, str]:
    return {key: _filled(value, f"{where}, {key}") for key, value in _object(data, where, keys).items()}


def _texts(data: JSON, where: str) -> tuple[str, ...]:
    if not isinstance(data, list) or not data:
        raise _malformed(where, "not a list of texts, or an empty one")
    found = tuple(_filled(item, f"{where}, item {i}") for i, item in enumerate(data))
    _check_distinct(found, where)
    return found


def _check_distinct(texts: Sequence[str], where: str) -> None:
    repeated = sorted({text for text in texts if texts.count(text) > 1})
    if repeated:
        raise _malformed(where, f"texts that occur more than once: {repeated[:5]}")


def _filled(data: JSON, where: str) -> str:
    if not _text(data, where).strip():
        raise _malformed(where, "the text is empty")
    return _text(data, where)


def _text(data: JSON, where: str) -> str:
    if not isinstance(data, str):
        raise _malformed(where, f"{data!r} is not a text")
    return data


def _name(data: JSON, where: str) -> str:
    name = _text(data, where)
    if not _NAME.fullmatch(name):
        raise _malformed(where, f"{name!r} is not a name (lower-case letters and digits, joined by hyphens)")
    return name


def _malformed(where: str, what: str) -> UsageError:
    return UsageError(
        given=f"{where}: {what}",
        allowed=f"an object with {', '.join(_keys(PromptDesign))}",
        advice="correct the design file; mechint/prompt_sets/full.json is an example",
    )
