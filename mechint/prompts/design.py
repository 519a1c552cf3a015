"""Design files: the wording of a prompt set, read from JSON and checked part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from mechint.base.errors import UnknownNameError
from mechint.base.files import JSON, read_json
from mechint.prompts.fields import (
    as_object,
    as_text,
    as_texts,
    check_distinct,
    checked_name,
    field_names,
    filled_texts,
    malformed,
    table,
)
from mechint.prompts.tasks import Tasks

GROUPS = ("no", "confusing-no", "yes", "ambiguous")
SLOT = "{concept}"


@dataclass(frozen=True)
class Description:
    """The first user message (it says what was done), the assistant's reply, and the question that follows."""

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
class ExtractionTexts:
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
    extraction: ExtractionTexts
    tasks: Tasks

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
        top = as_object(data, where, field_names(cls))
        return cls(
            name=checked_name(top["name"], f"{where}, name"),
            system=as_text(top["system"], f"{where}, system"),
            descriptions=table(top["descriptions"], f"{where}, descriptions", _description),
            infos=table(top["infos"], f"{where}, infos", as_text),
            formats=table(top["formats"], f"{where}, formats", _format),
            controls=_controls(top["controls"], f"{where}, controls"),
            extraction=_extraction(top["extraction"], f"{where}, extraction"),
            tasks=Tasks.from_dict(top["tasks"], f"{where}, tasks"),
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
    """Return the folder of the packaged design files and of their rendered conversations."""
    return Path(str(resources.files("mechint.prompts").joinpath("prompt_sets")))


def _description(data: JSON, where: str) -> Description:
    return Description(**filled_texts(data, where, field_names(Description)))


def _format(data: JSON, where: str) -> AnswerFormat:
    answer_format = AnswerFormat(**filled_texts(data, where, field_names(AnswerFormat)))
    if answer_format.yes_token == answer_format.no_token:
        raise malformed(where, f"yes_token and no_token are both {answer_format.yes_token!r}")
    return answer_format


def _controls(data: JSON, where: str) -> Mapping[str, tuple[str, ...]]:
    groups = as_object(data, where, GROUPS)
    questions_by_group = {group: as_texts(groups[group], f"{where}, {group}") for group in GROUPS}
    check_distinct([question for group in questions_by_group.values() for question in group], where)
    return MappingProxyType(questions_by_group)


def _extraction(data: JSON, where: str) -> ExtractionTexts:
    parts = as_object(data, where, field_names(ExtractionTexts))
    extraction = ExtractionTexts(**{key: as_texts(value, f"{where}, {key}") for key, value in parts.items()})
    if len(extraction.concept) != len(extraction.baseline):
        raise malformed(where, f"{len(extraction.concept)} concept and {len(extraction.baseline)} baseline messages")
    if not all(SLOT in text for text in extraction.concept) or any(SLOT in text for text in extraction.baseline):
        raise malformed(where, f"{SLOT} must stand in every concept message and in no baseline message")
    return extraction
