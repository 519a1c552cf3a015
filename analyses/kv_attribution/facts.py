"""Facts of a run: the text of the conversation that is drawn, with its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit.facts import RunFacts

if TYPE_CHECKING:
    from mechint.chat.conversations import Conversation
    from mechint.models.model import Model

_LONGEST = 38  # characters of a line


@dataclass(frozen=True)
class CachedMessage:
    """One message of a text: its role, its first position, its end, and whether it is steered."""

    role: str
    start: int
    stop: int
    marked: bool


@dataclass(frozen=True)
class Text:
    """The cached tokens of one conversation, and its messages."""

    conversation: str
    tokens: tuple[str, ...]
    messages: tuple[CachedMessage, ...]

    @classmethod
    def of(cls, model: Model, chat: Conversation) -> Text:
        """Return the text of a conversation as a model reads it, as far as it is cached."""
        from mechint.chat.render import render

        rendered = render(model, chat)
        tokens = [model.tokenizer.decode([token]) for token in rendered.tokens[: rendered.prefix_length]]
        messages = [
            CachedMessage(segment.role, segment.start, segment.stop, segment.add_injection)
            for segment in rendered.segments
            if segment.start < rendered.prefix_length
        ]
        return cls(chat.label, tuple(str(token) for token in tokens), tuple(messages))

    def piece(self, start: int, stop: int) -> str:
        """Return the text at some positions on one line, cut to what there is room for."""
        whole = " ".join("".join(self.tokens[start:stop]).split()) or "(line break)"
        return whole if len(whole) <= _LONGEST else whole[: _LONGEST - 1].rstrip() + "…"


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What `run.json` says of a run."""

    text: Text
