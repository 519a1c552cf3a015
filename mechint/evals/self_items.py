"""Questions whose answers a model is to foretell, and the questions on these answers, from JSON files.

items = SelfItems.load("full")              # or "small", for the embedded vocabulary, or a file
items.listed()                              # each item: what is asked, and which properties of its answer are
items.hypothetical(item, "vowel")           # the question on the answer, which holds the item's whole question

Tasks are of three kinds. A `pair` has two options, asked in both orders; a `list` a set of words that is not in the
question; of both the answer is read exactly. The answer to an `open` one is what replies that were sampled have most
often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mechint.base.files import JSON
from mechint.chat.conversations import Conversation, Message
from mechint.evals.closed import Closed
from mechint.evals.packaged_texts import read_texts
from mechint.evals.properties import KEYED, PLACES, PROPERTIES, values_of
from mechint.prompts.fields import as_object, as_text, as_texts, check_distinct, filled_text, malformed, table

KINDS = ("pair", "list", "open")
OBJECT, HYPOTHETICAL = "object", "hypothetical"
ANSWERS = (" yes", " no")


@dataclass(frozen=True)
class SelfItem:
    """A question and the options of its answer, none where it is open; items of one `unit` differ in their order."""

    name: str
    task: str
    kind: str
    unit: str
    number: int
    question: str
    prefix: str
    options: tuple[str, ...]
    properties: tuple[str, ...]

    @property
    def tags(self) -> dict[str, JSON]:
        """What an oracle is told of the item."""
        return {"kind": "self-prediction", "task": self.task, "item": self.name, "unit": self.unit} | {
            "options": list(self.options)
        }

    def conversation(self) -> Conversation:
        """Return the question by itself."""
        return _chat(f"{self.name}_object", self.question, self.prefix, self.tags | {"role": OBJECT})

    def closed(self) -> Closed:
        """Return the question with the options that its answer is read among."""
        return Closed(self.conversation(), {option: f" {option}" for option in self.options})


@dataclass(frozen=True)
class Property:
    """How it is asked which value a property of the answer has: by keying, "plain" where the answer names it."""

    questions: Mapping[str, str]
    prefix: str

    def keying(self, item: SelfItem) -> str:
        """Return the keying of an item: of two, each is that of every other unit."""
        names = list(self.questions)
        return names[item.number % len(names)]


@dataclass(frozen=True)
class SelfItems:
    """All items of a file by task, and how properties are asked. Raises UsageError for a file that is malformed."""

    name: str
    hypothesis: str
    properties: Mapping[str, Property]
    items: tuple[SelfItem, ...]

    @classmethod
    def load(cls, name_or_path: str | Path) -> SelfItems:
        """Return the packaged items "full" or "small", or those of a `.json` file; raises UsageError."""
        return cls.from_dict(read_texts(name_or_path, "self_questions", "items"), str(name_or_path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "items") -> SelfItems:
        """Return the items that a JSON object describes; raises UsageError, naming the place."""
        top = as_object(data, where, ("name", "note", "hypothetical", "properties", "tasks"))
        hypothesis = filled_text(top["hypothetical"], f"{where}, hypothetical")
        if "{object}" not in hypothesis or "{ask}" not in hypothesis:
            raise malformed(f"{where}, hypothetical", "a text without {object} or {ask}")
        properties = table(top["properties"], f"{where}, properties", _property)
        if unknown := [name for name in properties if name not in PROPERTIES]:
            raise malformed(f"{where}, properties", f"unknown ones {unknown}, not of {', '.join(PROPERTIES)}")
        tasks = as_object(top["tasks"], f"{where}, tasks")
        items = tuple(item for name, task in tasks.items() for item in _items(name, task, f"{where}, {name}"))
        if undefined := sorted({name for item in items for name in item.properties} - set(properties)):
            raise malformed(f"{where}, tasks", f"properties without a question: {undefined}")
        check_distinct([item.question for item in items], where)
        return cls(as_text(top["name"], f"{where}, name"), hypothesis, properties, items)

    def hypothetical(self, item: SelfItem, name: str) -> Closed:
        """Return the question on a property of the answer, which holds the item's question to the letter."""
        wording = self.properties[name]
        keying = wording.keying(item)
        text = self.hypothesis.replace("{object}", item.question).replace("{ask}", wording.questions[keying])
        tags = item.tags | {"role": HYPOTHETICAL, "property": name, "keying": keying}
        return Closed(_chat(f"{item.name}_{name}", text, wording.prefix, tags), _texts(item, name, keying))


def _texts(item: SelfItem, name: str, keying: str) -> dict[str, str]:
    """Return what would be said for each value of a property."""
    if name in KEYED:
        return dict(zip(KEYED[name], ANSWERS if keying == "affirmed" else reversed(ANSWERS), strict=True))
    if name == "option":
        return {value: f" {option}" for value, option in zip(PLACES, item.options, strict=True)}
    return {value: f" {value}" for value in values_of(name, item.options)}


def _chat(label: str, text: str, prefix: str, tags: dict[str, JSON]) -> Conversation:
    reply = [Message("assistant", prefix, continue_msg=True)] if prefix else []
    return Conversation(label, (Message("user", text), *reply), extra=tags)


def _property(data: JSON, where: str) -> Property:
    entry = as_object(data, where)
    prefix = filled_text(entry.get("prefix"), f"{where}, prefix")
    questions = {key: filled_text(text, f"{where}, {key}") for key, text in entry.items() if key != "prefix"}
    name = where.rpartition(", ")[2]
    expected = ("affirmed", "negated") if name in KEYED else ("plain",)
    if tuple(questions) != expected:
        raise malformed(where, f"questions {', '.join(questions) or 'none'} instead of {', '.join(expected)}")
    return Property(questions, prefix)


def _items(task: str, data: JSON, where: str) -> Iterator[SelfItem]:
    entry = as_object(data, where, ("kind", "prefix", "properties", "questions", "options"))
    kind, prefix = as_text(entry["kind"], f"{where}, kind"), as_text(entry["prefix"], f"{where}, prefix")
    if kind not in KINDS:
        raise malformed(where, f"the kind {kind!r}, not one of {', '.join(KINDS)}")
    properties = as_texts(entry["properties"], f"{where}, properties")
    questions = as_texts(entry["questions"], f"{where}, questions")
    if kind == "pair":
        yield from _pairs(
            entry["options"], SelfItem("", task, kind, "", 0, "", prefix, (), properties), questions, where
        )
        return
    options = as_texts(entry["options"], f"{where}, options") if kind == "list" else ()
    if silly := [name for name in properties if not options and name in ("option", "word", "letters")]:
        raise malformed(where, f"properties {silly} of answers to open questions")
    for number, text in enumerate(questions):
        unit = f"{task}-{number:02d}"
        yield SelfItem(unit, task, kind, unit, number, text, prefix, options, properties)


def _pairs(data: JSON, pattern: SelfItem, questions: Sequence[str], where: str) -> Iterator[SelfItem]:
    """Yield both orders of each pair, in the words of each question in turn."""
    if not isinstance(data, list) or not data:
        raise malformed(where, "no list of pairs")
    for number, entry in enumerate(data):
        pair = as_texts(entry, f"{where}, options {number}")
        if len(pair) != 2:
            raise malformed(f"{where}, options {number}", f"{len(pair)} words that are no pair")
        unit = f"{pattern.task}-{number:02d}"
        for order, options in enumerate((pair, pair[::-1])):
            text = questions[number % len(questions)].replace("{first}", options[0]).replace("{second}", options[1])
            yield replace(pattern, name=f"{unit}-{order}", unit=unit, number=number, question=text, options=options)
