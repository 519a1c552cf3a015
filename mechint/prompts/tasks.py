"""Wording beyond yes and no: lists to choose from, free naming, places, what is on top of mind, plain prose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mechint.base.files import JSON
from mechint.prompts.fields import (
    as_object,
    as_text,
    as_texts,
    field_names,
    filled_text,
    filled_texts,
    malformed,
    table,
)

OPTIONS, QUESTION, NUMBER, WORD, COUNT = "{options}", "{question}", "{n}", "{word}", "{count}"
COUNTS = dict(enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=2))


@dataclass(frozen=True)
class Lists:
    """How options are listed and chosen: a line for each `item`, a `question` around them, the answer's `digit`."""

    item: str
    question: str
    prefix: str
    digit: str

    def listed(self, options: Sequence[str], first: int) -> str:
        """Return numbered options, one a line."""
        lines = (self.item.replace(NUMBER, str(first + at)).replace(WORD, text) for at, text in enumerate(options))
        return "\n".join(lines)

    def digits(self, count: int, first: int) -> tuple[str, ...]:
        """Return the answer of each option, as it stands after the prefix."""
        return tuple(self.digit.replace(NUMBER, str(first + at)) for at in range(count))


@dataclass(frozen=True)
class Identification:
    """The question which option was injected, and the option for nothing; {count} stands for how many there are."""

    question: str
    none: str

    def asked(self, listed: str, count: int) -> str:
        """Return the question with its `count` options, whose number is written as a word."""
        return self.question.replace(COUNT, COUNTS[count]).replace(OPTIONS, listed)


@dataclass(frozen=True)
class Naming:
    """The question which concept was injected, and how its answer begins."""

    question: str
    prefix: str


@dataclass(frozen=True)
class Place:
    """A question where something was injected, the same form as a question of taste, and the options of both.

    A single option with the slot {n} stands for as many as there are sentences.
    """

    question: str
    preference: str
    options: tuple[str, ...]

    def of(self, count: int) -> tuple[str, ...]:
        """Return the options, `count` of them where there is one for each sentence."""
        numbered = tuple(self.options[0].replace(NUMBER, str(at + 1)) for at in range(count))
        return numbered if NUMBER in self.options[0] else self.options


@dataclass(frozen=True)
class Location:
    """A first turn made of sentences, in some of which something is injected, and the questions where."""

    setup: str
    sentences: tuple[str, ...]
    reply: str
    places: Mapping[str, Place]


@dataclass(frozen=True)
class TopOfMind:
    """Open requests, and how the replies to them begin ("": freely)."""

    prompts: tuple[str, ...]
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class Tasks:
    """The wording of every task of a prompt set; `plain` is prose without a word on models."""

    lists: Lists
    identification: Identification
    naming: Naming
    location: Location
    top_of_mind: TopOfMind
    plain: tuple[str, ...]

    @classmethod
    def from_dict(cls, data: JSON, where: str) -> Tasks:
        """Return the tasks of a design file, from its JSON object; raises UsageError."""
        top = as_object(data, where, field_names(cls))
        return cls(
            lists=_lists(top["lists"], f"{where}, lists"),
            identification=_identification(top["identification"], f"{where}, identification"),
            naming=Naming(**filled_texts(top["naming"], f"{where}, naming", field_names(Naming))),
            location=_location(top["location"], f"{where}, location"),
            top_of_mind=_top_of_mind(top["top_of_mind"], f"{where}, top_of_mind"),
            plain=as_texts(top["plain"], f"{where}, plain"),
        )


def _lists(data: JSON, where: str) -> Lists:
    lists = Lists(**filled_texts(data, where, field_names(Lists)))
    _check_slots(lists.item, where, NUMBER, WORD)
    _check_slots(lists.digit, where, NUMBER)
    _check_slots(lists.question, where, QUESTION, OPTIONS)
    return lists


def _identification(data: JSON, where: str) -> Identification:
    identification = Identification(**filled_texts(data, where, field_names(Identification)))
    _check_slots(identification.question, where, OPTIONS)
    return identification


def _location(data: JSON, where: str) -> Location:
    parts = as_object(data, where, field_names(Location))
    sentences = as_texts(parts["sentences"], f"{where}, sentences")
    if len(sentences) % 2:
        raise malformed(f"{where}, sentences", f"{len(sentences)} of them, which cannot be halved")
    return Location(
        setup=filled_text(parts["setup"], f"{where}, setup"),
        sentences=sentences,
        reply=filled_text(parts["reply"], f"{where}, reply"),
        places=table(parts["places"], f"{where}, places", _place),
    )


def _place(data: JSON, where: str) -> Place:
    parts = as_object(data, where, field_names(Place))
    question = filled_text(parts["question"], f"{where}, question")
    preference = filled_text(parts["preference"], f"{where}, preference")
    return Place(question, preference, as_texts(parts["options"], f"{where}, options"))


def _top_of_mind(data: JSON, where: str) -> TopOfMind:
    parts = as_object(data, where, field_names(TopOfMind))
    prefixes = parts["prefixes"]
    if not isinstance(prefixes, list) or not prefixes:
        raise malformed(f"{where}, prefixes", "not a list of texts, or an empty one")
    return TopOfMind(
        prompts=as_texts(parts["prompts"], f"{where}, prompts"),
        prefixes=tuple(as_text(item, f"{where}, prefixes") for item in prefixes),
    )


def _check_slots(text: str, where: str, *slots: str) -> None:
    if missing := [slot for slot in slots if slot not in text]:
        raise malformed(where, f"no {', '.join(missing)} in {text!r}")
