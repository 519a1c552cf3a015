"""Chat templates in the style of published ones, and what becomes of the standard conversation in each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.errors import ChatTemplateError
from mechint.chat.conversations import Conversation, Message
from mechint.chat.render import Rendered, render
from mechint.chat.templates import TemplateOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FOLDER = Path(__file__).resolve().parent.parent / "tests" / "templates"
STANDARD = Conversation(
    "standard",
    (
        Message("user", "Tell me about cats.", add_injection=True),
        Message("assistant", "{ }", add_injection=True),
        Message("user", "Do you detect a thought?"),
        Message("assistant", "The answer is", continue_msg=True),
    ),
    " yes",
    " no",
)


@dataclass(frozen=True)
class Outcome:
    """A conversation in a chat template: its rendering, or the reason for its refusal."""

    template: str
    thinking: bool
    rendered: Rendered | None
    refused: str = ""

    @property
    def complete(self) -> bool:
        """Whether every message stands in its own segment, and the text ends with the open one."""
        if self.rendered is None:
            return False
        spoken = [piece for segment, piece in zip(self.rendered.segments, self.rendered.pieces, strict=True)]
        messages = self.rendered.conversation.messages
        held = zip(messages, spoken, strict=True)
        return all(message.content.lower() in piece.lower() for message, piece in held)


def sources() -> dict[str, str]:
    """Return the text of each template by its name, which is that of the family it is in the style of."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("*.jinja"))}


def check(
    tokenizer: PreTrainedTokenizerBase, name: str, source: str, thinking: bool, chat: Conversation = STANDARD
) -> Outcome:
    """Return the rendering or refusal of a conversation; the tokenizer is left with the template `source`."""
    tokenizer.chat_template = source
    try:
        return Outcome(name, thinking, render(tokenizer, chat, TemplateOptions(thinking=thinking)))
    except ChatTemplateError as error:
        return Outcome(name, thinking, None, error.given)
