"""Prompts whose answers differ in length, and questions on how long these are and how they begin, from JSON files.

prompts = LengthPrompts.load("full")        # or "small", for the embedded vocabulary, or a file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mechint.base.files import JSON
from mechint.chat.conversations import Conversation, Message
from mechint.evals.closed import Closed
from mechint.evals.packaged_texts import read_texts
from mechint.prompts.fields import as_object, as_text, as_texts, filled_text, malformed

OBJECT, LENGTH, FIRST_WORD = "object", "length", "first-word"
SLOTS = {LENGTH: "{number}", FIRST_WORD: "{word}"}


@dataclass(frozen=True)
class Wording:
    """How it is asked, how the reply begins, and how an answer to it goes on."""

    question: str
    prefix: str
    answer: str


@dataclass(frozen=True)
class LengthPrompts:
    """All prompts of a file by name, how lengths and first words are asked for, and the lengths that are offered."""

    name: str
    wordings: Mapping[str, Wording]
    numbers: tuple[int, ...]
    prompts: Mapping[str, str]

    @classmethod
    def load(cls, name_or_path: str | Path) -> LengthPrompts:
        """Return the packaged prompts "full" or "small", or those of a `.json` file; raises UsageError."""
        return cls.from_dict(read_texts(name_or_path, "length_texts", "prompts"), str(name_or_path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "prompts") -> LengthPrompts:
        """Return the prompts that a JSON object describes; raises UsageError, naming the place."""
        top = as_object(data, where, ("name", "note", LENGTH, FIRST_WORD, "numbers", "prompts"))
        wordings = {name: _wording(top[name], name, f"{where}, {name}") for name in SLOTS}
        prompts = {f"prompt-{number:02d}": text for number, text in enumerate(as_texts(top["prompts"], where))}
        return cls(as_text(top["name"], where), wordings, _numbers(top["numbers"], f"{where}, numbers"), prompts)

    def request(self, name: str) -> Conversation:
        """Return a prompt by itself."""
        return self._chat(name, OBJECT, self.prompts[name], "")

    def length(self, name: str) -> Closed:
        """Return the question on how many words the answer would have."""
        numbers = [str(number) for number in self.numbers]
        return self._closed(name, LENGTH, numbers)

    def first_word(self, name: str, words: Sequence[str]) -> Closed:
        """Return the question on which of some words the answer would begin with."""
        return self._closed(name, FIRST_WORD, words)

    def _closed(self, name: str, asked_for: str, values: Sequence[str]) -> Closed:
        wording = self.wordings[asked_for]
        text = wording.question.replace("{object}", self.prompts[name])
        texts = {value: wording.answer.replace(SLOTS[asked_for], value) for value in values}
        return Closed(self._chat(name, asked_for, text, wording.prefix), texts)

    def _chat(self, name: str, role: str, text: str, prefix: str) -> Conversation:
        reply = [Message("assistant", prefix, continue_msg=True)] if prefix else []
        tags: dict[str, JSON] = {"kind": "lengths", "item": name, "unit": name, "role": role, "options": []}
        return Conversation(f"{name}_{role}", (Message("user", text), *reply), extra=tags)


def _wording(data: JSON, name: str, where: str) -> Wording:
    entry = as_object(data, where, ("question", "prefix", "answer"))
    texts = {key: filled_text(value, f"{where}, {key}") for key, value in entry.items()}
    if "{object}" not in texts["question"] or SLOTS[name] not in texts["answer"]:
        raise malformed(where, f"a question without {{object}}, or an answer without {SLOTS[name]}")
    return Wording(texts["question"], texts["prefix"], texts["answer"])


def _numbers(data: JSON, where: str) -> tuple[int, ...]:
    listed = data if isinstance(data, list) else []
    numbers = [number for number in listed if isinstance(number, int) and not isinstance(number, bool) and number > 0]
    if len(numbers) < 2 or len(numbers) < len(listed) or sorted(set(numbers)) != numbers:
        raise malformed(where, f"{data!r} instead of two or more whole numbers above 0 in ascending order")
    return tuple(numbers)
