"""Requests with several possible answers, and the questions on how often each would be given, from JSON files.

sets = DistributionSets.load("full")        # or "small", for the embedded vocabulary, or a file
sets.report(sets.sets[0])                   # how often would you give each answer? a list is to be written
sets.choices(sets.sets[0])                  # which of two would you give more often? every pair in both orders
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from mechint.base.files import JSON
from mechint.chat.conversations import Conversation, Message
from mechint.evals.closed import Closed
from mechint.evals.packaged_texts import read_texts
from mechint.prompts.fields import as_object, as_text, as_texts, check_distinct, filled_text, malformed, table

OBJECT, REPORT, CHOICE = "object", "report", "choice"
SEPARATOR = " / "  # of both answers of a pair, in labels


@dataclass(frozen=True)
class DistributionSet:
    """A request, how its reply begins, and the options of the answer, none where it is open."""

    name: str
    question: str
    prefix: str
    options: tuple[str, ...]

    @property
    def tags(self) -> dict[str, JSON]:
        """What an oracle is told of the request."""
        return {"kind": "calibration", "prompt": self.name, "unit": self.name, "options": list(self.options)}


@dataclass(frozen=True)
class Wording:
    """How it is asked how often answers are given, and how the reply begins."""

    question: str
    prefix: str


@dataclass(frozen=True)
class DistributionSets:
    """All requests of a file, and how reports are asked for; `system` stands before each of all conversations."""

    name: str
    wordings: Mapping[str, Wording]
    sets: tuple[DistributionSet, ...]
    system: str = ""

    @classmethod
    def load(cls, name_or_path: str | Path) -> DistributionSets:
        """Return the packaged sets "full" or "small", or those of a `.json` file; raises UsageError."""
        return cls.from_dict(read_texts(name_or_path, "calibration_sets", "sets"), str(name_or_path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "sets") -> DistributionSets:
        """Return the sets that a JSON object describes; raises UsageError, naming the place."""
        top = as_object(data, where, ("name", "note", REPORT, CHOICE, "sets"))
        wordings = {name: _wording(top[name], f"{where}, {name}") for name in (REPORT, CHOICE)}
        slots = {REPORT: ("{object}",), CHOICE: ("{object}", "{first}", "{second}")}
        for name, needed in slots.items():
            if missing := [slot for slot in needed if slot not in wordings[name].question]:
                raise malformed(f"{where}, {name}", f"a question without {', '.join(missing)}")
        sets = tuple(table(top["sets"], f"{where}, sets", _set).values())
        check_distinct([of_it.question for of_it in sets], where)
        return cls(as_text(top["name"], f"{where}, name"), wordings, sets)

    def request(self, of_it: DistributionSet) -> Conversation:
        """Return the request by itself."""
        return self._chat(f"{of_it.name}_object", of_it.question, of_it.prefix, of_it.tags | {"role": OBJECT})

    def closed(self, of_it: DistributionSet) -> Closed:
        """Return the request with the options that its answer is read among."""
        return Closed(self.request(of_it), {option: f" {option}" for option in of_it.options})

    def report(self, of_it: DistributionSet) -> Conversation:
        """Return the question on how often each answer would be given, to which a list is to be written."""
        wording = self.wordings[REPORT]
        text = wording.question.replace("{object}", of_it.question)
        return self._chat(f"{of_it.name}_report", text, wording.prefix, of_it.tags | {"role": REPORT})

    def choices(self, of_it: DistributionSet) -> dict[tuple[str, str], Closed]:
        """Return the question on which of two options would be given more often, for every pair in both orders."""
        wording, questions = self.wordings[CHOICE], {}
        for first, second in permutations(of_it.options, 2):
            text = wording.question.replace("{object}", of_it.question)
            text = text.replace("{first}", first).replace("{second}", second)
            tags: dict[str, JSON] = of_it.tags | {"role": CHOICE, "first": first, "second": second}
            chat = self._chat(f"{of_it.name}_{first}{SEPARATOR}{second}", text, wording.prefix, tags)
            questions[first, second] = Closed(chat, {option: f" {option}" for option in (first, second)})
        return questions

    def _chat(self, label: str, text: str, prefix: str, tags: dict[str, JSON]) -> Conversation:
        system = [Message("system", self.system)] if self.system else []
        reply = [Message("assistant", prefix, continue_msg=True)] if prefix else []
        return Conversation(label, (*system, Message("user", text), *reply), extra=tags)


def _wording(data: JSON, where: str) -> Wording:
    entry = as_object(data, where, ("question", "prefix"))
    return Wording(filled_text(entry["question"], f"{where}, question"), as_text(entry["prefix"], f"{where}, prefix"))


def _set(data: JSON, where: str) -> DistributionSet:
    entry = as_object(data, where, ("question", "prefix", "options"))
    options = as_texts(entry["options"], f"{where}, options") if entry["options"] else ()
    if len(options) == 1:
        raise malformed(f"{where}, options", "a single option: there is no distribution of it")
    question = filled_text(entry["question"], f"{where}, question")
    return DistributionSet(where.rpartition(", ")[2], question, as_text(entry["prefix"], f"{where}, prefix"), options)
