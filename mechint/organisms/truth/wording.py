"""Conversations for evaluation; their wording was written by someone who had not seen the training templates."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from mechint.base.errors import UsageError
from mechint.base.files import read_json
from mechint.chat.conversations import Conversation, Message
from mechint.organisms import DATA

WORDINGS = DATA / "evaluation.json"
ANSWERS = {"yes-no": (" yes", " no"), "one-zero": (" 1", " 0")}
PREFIX = "The answer is"
ITEMS = 10


@dataclass(frozen=True)
class Wording:
    """Texts of each part; the i-th conversation takes the i-th text of every part, round and round."""

    setups: tuple[str, ...]
    wrong_place_setups: tuple[str, ...]
    replies: tuple[str, ...]
    questions: tuple[str, ...]
    wrong_place_questions: tuple[str, ...]
    infos: Mapping[str, tuple[str, ...]]
    instructions: Mapping[str, tuple[str, ...]]
    naming_questions: tuple[str, ...]
    naming_prefixes: tuple[str, ...]
    list_questions: tuple[str, ...]
    controls: Mapping[str, tuple[str, ...]]
    extraction: tuple[str, ...]
    extra_concepts: tuple[str, ...]

    @classmethod
    def load(cls, path: Path = WORDINGS) -> Wording:
        """Return the wordings of a file; raises UsageError unless it has every part and no other."""
        content = read_json(path)
        names = {item.name for item in fields(cls)}
        if not isinstance(content, dict) or set(content) != names:
            raise UsageError(
                given=f"{path} with {', '.join(content) if isinstance(content, dict) else type(content).__name__}",
                allowed=f"an object with {', '.join(sorted(names))}",
                advice=f"take {WORDINGS.name} as a pattern",
            )
        return cls(**{key: _frozen(value) for key, value in cast(dict[str, Any], content).items()})

    def detection(self, info: str, form: str, count: int, *, wrong_place: bool = False) -> list[Conversation]:
        """Return conversations that ask whether something was injected; `info` is "none" or a kind of document."""
        questions = self.wrong_place_questions if wrong_place else self.questions
        place = "wrong" if wrong_place else "right"
        return [
            self._chat(
                f"{place} place, {info}, {form}, {i}",
                i,
                info,
                f"{_at(questions, i)} {_at(self.instructions[form], i)}",
                answers=ANSWERS[form],
                wrong_place=wrong_place,
            )
            for i in range(count)
        ]

    def control(self, group: str, info: str, form: str, count: int) -> list[Conversation]:
        """Return one conversation for each of the first `count` control questions of a group."""
        return [
            self._chat(
                f"control {group}, {info}, {form}, {i}",
                i,
                info,
                f"{question} {_at(self.instructions[form], i)}",
                answers=ANSWERS[form],
            )
            for i, question in enumerate(self.controls[group][:count])
        ]

    def naming(self, info: str, count: int) -> list[Conversation]:
        """Return conversations whose next word is the injected concept."""
        return [
            self._chat(f"naming, {info}, {i}", i, info, _at(self.naming_questions, i), _at(self.naming_prefixes, i))
            for i in range(count)
        ]

    def listing(self, info: str, words: Sequence[str], number: int) -> Conversation:
        """Return a conversation that asks for the digit of the injected concept among ten `words`, in this order."""
        lines = "\n".join(f"{digit}. {word}" for digit, word in enumerate(words))
        return self._chat(f"list, {info}, {number}", number, info, f"{lines}\n{_at(self.list_questions, number)}")

    def _chat(
        self,
        label: str,
        number: int,
        info: str,
        question: str,
        prefix: str = PREFIX,
        *,
        answers: tuple[str, str] = ("", ""),
        wrong_place: bool = False,
    ) -> Conversation:
        setup = _at(self.wrong_place_setups if wrong_place else self.setups, number)
        first = setup if info == "none" else f"{_at(self.infos[info], number)}\n\n{setup}"
        messages = (
            Message("system", ""),
            Message("user", first, add_injection=True),
            Message("assistant", _at(self.replies, number), add_injection=True),
            Message("user", question),
            Message("assistant", prefix, continue_msg=True),
        )
        return Conversation(label, messages, *answers)


def shuffled_list(concept: str, others: Sequence[str], seed: int) -> list[str]:
    """Return ten words in random order, `concept` among them."""
    rng = random.Random(f"{concept}/{seed}")
    words = [concept, *rng.sample([word for word in others if word != concept], ITEMS - 1)]
    rng.shuffle(words)
    return words


def _at(texts: Sequence[str], number: int) -> str:
    return texts[number % len(texts)]


def _frozen(value: Any) -> Any:
    """Return lists as tuples; what kind each field has is said by the class."""
    return {key: tuple(texts) for key, texts in value.items()} if isinstance(value, dict) else tuple(value)
