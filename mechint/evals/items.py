"""Items of the battery: clauses with their denials in groups, and the formats in which they are asked, from JSON files.

items = Items.load("full")                  # or "small", for the embedded vocabulary, or a file
items.questions()                           # every item, in both keyings and every format
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from mechint.base.errors import UnknownNameError
from mechint.base.files import JSON
from mechint.chat.conversations import Conversation, Message
from mechint.chat.tokens import Answers
from mechint.evals.packaged_texts import read_texts
from mechint.prompts.fields import (
    as_object,
    as_text,
    as_texts,
    check_distinct,
    checked_name,
    filled_text,
    malformed,
    table,
)

SIDES = ("self", "control")
KEYINGS = ("affirmed", "negated")


@dataclass(frozen=True)
class Item:
    """A clause and its denial; which group it is of, and whether that is on the model itself or a control."""

    name: str
    group: str
    side: str
    affirmed: str
    negated: str


@dataclass(frozen=True)
class Format:
    """How an item is asked, how the reply begins ("" for a free one), and spellings of both answers.

    The question has the slot `{clause}`, for the clause of a keying, or `{first}` and `{second}`, for both.
    `refusals` are first tokens of replies that answer neither way.
    """

    question: str
    prefix: str
    yes: tuple[str, ...]
    no: tuple[str, ...]
    refusals: tuple[str, ...]

    @property
    def answers(self) -> Answers:
        """What is read: both answers with their spellings summed, and each refusal."""
        return Answers(yes=self.yes, no=self.no, choices=self.refusals)


@dataclass(frozen=True)
class Question:
    """An item in a keying and a format: a positive answer affirms its clause, or the denial of it."""

    item: Item
    keying: str
    format: str
    conversation: Conversation = field(compare=False)

    def record(self) -> dict[str, str]:
        """Return the columns that describe it."""
        item = self.item
        return {
            "item": item.name,
            "group": item.group,
            "side": item.side,
            "keying": self.keying,
            "format": self.format,
            "conversation": self.conversation.label,
        }


@dataclass(frozen=True)
class Items:
    """All items of a file, and its formats by name. Raises UsageError for a file that is malformed."""

    name: str
    formats: Mapping[str, Format]
    items: tuple[Item, ...]

    @classmethod
    def load(cls, name_or_path: str | Path) -> Items:
        """Return the packaged items "full" or "small", or those of a `.json` file; raises UsageError."""
        return cls.from_dict(read_texts(name_or_path, "batteries", "items"), str(name_or_path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "items") -> Items:
        """Return the items that a JSON object describes; raises UsageError, naming the place."""
        top = as_object(data, where, ("name", "note", "formats", "groups"))
        groups = as_object(top["groups"], f"{where}, groups")
        items = [item for group, entry in groups.items() for item in _group(group, entry, f"{where}, {group}")]
        check_distinct([clause for item in items for clause in (item.affirmed, item.negated)], where)
        formats = table(top["formats"], f"{where}, formats", _format)
        return cls(as_text(top["name"], f"{where}, name"), formats, tuple(items))

    def few(self, per_group: int, *formats: str) -> Items:
        """Return the first items of each group, so many, in some formats (all where none is named).

        Raises UnknownNameError for a format that there is not.
        """
        if unknown := sorted(set(formats) - set(self.formats)):
            raise UnknownNameError(f"formats {unknown}", ", ".join(self.formats), "name these")
        members: dict[str, list[Item]] = {}
        for item in self.items:
            members.setdefault(item.group, []).append(item)
        chosen = {name: self.formats[name] for name in formats or self.formats}
        return replace(self, formats=chosen, items=tuple(i for group in members.values() for i in group[:per_group]))

    def questions(self) -> Iterator[Question]:
        """Yield every item in every format and both keyings."""
        for name, item, keying in product(self.formats, self.items, KEYINGS):
            yield Question(item, keying, name, _conversation(self.formats[name], name, item, keying))


def _conversation(asked_in: Format, name: str, item: Item, keying: str) -> Conversation:
    clauses = (item.affirmed, item.negated) if keying == "affirmed" else (item.negated, item.affirmed)
    text = asked_in.question
    for slot, clause in (("{clause}", clauses[0]), ("{first}", clauses[0]), ("{second}", clauses[1])):
        text = text.replace(slot, clause)
    tags: dict[str, JSON] = {"kind": "battery", "group": item.group, "item": item.name}
    tags |= {"side": item.side, "keying": keying, "format": name}
    reply = [Message("assistant", asked_in.prefix, continue_msg=True)] if asked_in.prefix else []
    label = f"{item.name}_{keying}_{name}"
    return Conversation(label, (Message("user", text), *reply), asked_in.yes[0], asked_in.no[0], tags)


def _group(name: str, data: JSON, where: str) -> list[Item]:
    checked_name(name, where)
    entry = as_object(data, where, ("side", "items"))
    side, members = as_text(entry["side"], f"{where}, side"), entry["items"]
    if side not in SIDES:
        raise malformed(where, f"the side {side!r}, not one of {', '.join(SIDES)}")
    if not isinstance(members, list) or not members:
        raise malformed(where, "no list of items")
    items = []
    for number, member in enumerate(members):
        place = f"{where}, item {number}"
        clauses = as_object(member, place, KEYINGS)
        affirmed = filled_text(clauses["affirmed"], f"{place}, affirmed")
        negated = filled_text(clauses["negated"], f"{place}, negated")
        items.append(Item(f"{name}-{number:02d}", name, side, affirmed, negated))
    return items


def _format(data: JSON, where: str) -> Format:
    entry = as_object(data, where, ("question", "prefix", "yes", "no", "refusals"))
    question = filled_text(entry["question"], f"{where}, question")
    if ("{clause}" in question) == ("{first}" in question and "{second}" in question):
        raise malformed(where, "a question without {clause}, or {first} and {second}, or with both")
    return Format(
        question,
        as_text(entry["prefix"], f"{where}, prefix"),
        as_texts(entry["yes"], f"{where}, yes"),
        as_texts(entry["no"], f"{where}, no"),
        as_texts(entry["refusals"], f"{where}, refusals") if entry["refusals"] else (),
    )
