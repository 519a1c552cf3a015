"""The questions that models are asked about a reply, in words of this project: `questions.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from mechint.base.errors import UsageError
from mechint.base.files import read_json, sha256
from mechint.chat.conversations import Conversation, Message
from mechint.prompts.fields import as_object, field_names, filled_text, filled_texts
from mechint.trials.verdicts import Item

ASKED: tuple[str, ...] = ("coherent", "refused", "claims", "claim_first")
_LONGEST = 6000  # characters of a reply that a judge reads
_SLOTS = ("{prompt}", "{reply}", "{question}")


@dataclass(frozen=True)
class Questions:
    """The wording: `frame` holds prompt, reply and question; `questions` are answered by yes or no; `json` all at once.

    `naming` has an open question, and how its answer begins.
    """

    system: str
    frame: str
    yes_no: str
    prefix: str
    questions: Mapping[str, str]
    naming: Mapping[str, str]
    json: str

    @classmethod
    def load(cls, path: str | Path | None = None) -> Questions:
        """Return the packaged questions, or those of a file of the same format; raises UsageError."""
        source = Path(path) if path else Path(str(resources.files("mechint.trials.judges").joinpath("questions.json")))
        top = as_object(read_json(source), str(source), field_names(cls))
        texts = {
            key: filled_text(top[key], f"{source}, {key}") for key in ("system", "frame", "yes_no", "prefix", "json")
        }
        if not all(texts["frame"].count(slot) == 1 for slot in _SLOTS):
            raise UsageError(f"{source}, frame", f"{', '.join(_SLOTS)}, each once", "correct the frame")
        questions = filled_texts(top["questions"], f"{source}, questions", ASKED)
        naming = filled_texts(top["naming"], f"{source}, naming", ("question", "prefix"))
        return cls(questions=MappingProxyType(questions), naming=MappingProxyType(naming), **texts)

    @property
    def key(self) -> str:
        """Hash of the wording."""
        return sha256(
            repr((self.system, self.frame, self.yes_no, self.prefix, self.json)).encode(),
            repr(sorted(self.questions.items())).encode(),
            repr(sorted(self.naming.items())).encode(),
        )

    def framed(self, item: Item, question: str) -> str:
        """Return what a judge reads: prompt, reply and a question; the texts may hold any brackets."""
        before, rest = self.frame.split("{prompt}")
        between, rest = rest.split("{reply}")
        joint, after = rest.split("{question}")
        return f"{before}{item.prompt}{between}{item.reply[:_LONGEST]}{joint}{question}{after}"

    def yes_no_conversation(self, item: Item, name: str) -> Conversation:
        """Return one of the questions about a reply, begun so that yes or no comes next."""
        text = self.framed(item, f"{self.questions[name]} {self.yes_no}")
        return Conversation(f"{item.id}/{name}", self._turns(text, self.prefix), " yes", " no")

    def naming_conversation(self, item: Item) -> Conversation:
        """Return the open question what a reply names, its answer begun."""
        return Conversation(
            f"{item.id}/name", self._turns(self.framed(item, self.naming["question"]), self.naming["prefix"])
        )

    def _turns(self, text: str, prefix: str) -> tuple[Message, ...]:
        return (Message("user", f"{self.system}\n\n{text}"), Message("assistant", prefix, continue_msg=True))


@lru_cache(maxsize=1)
def packaged_questions() -> Questions:
    """Return the packaged questions."""
    return Questions.load()
