"""Rendering a conversation with a chat template to tokens and the spans of its segments.

A segment is one non-system message with whatever the template puts before it since the previous segment. Spans come
from comparing token sequences: those of the first k messages must be a prefix of those of the first k+1.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechint.chat import Conversation, Message
from mechint.errors import ChatTemplateError, ChatTemplateWarning
from mechint.signatures import checked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Put in place of a text to find out where a template writes it; letters only, so that no template changes it.
_SENTINEL = "mechintSentinelQuxZorp"

# The tokens of first messages, closed.
Known = dict[tuple[Message, ...], list[int]]


@dataclass(frozen=True)
class Segment:
    """Token positions `start:stop` of one message; `message` is None for what comes after the last."""

    message: int | None
    role: str
    start: int
    stop: int
    add_injection: bool


@dataclass(frozen=True)
class Rendered:
    """A conversation as token ids, with its text and its segments in order (they cover every position once)."""

    conversation: Conversation
    text: str
    tokens: tuple[int, ...]
    segments: tuple[Segment, ...]

    @property
    def label(self) -> str:
        """The conversation's label."""
        return self.conversation.label

    @property
    def prefix_length(self) -> int:
        """Number of positions up to the end of the last marked segment: what a prefill fills (0 if none)."""
        return max((s.stop for s in self.segments if s.add_injection), default=0)

    def token_tensor(self) -> Int[Tensor, "1 pos"]:
        """The token ids as a batch of one."""
        return torch.tensor([self.tokens], dtype=torch.long)

    def continued(self, tokens: Sequence[int], text: str) -> Rendered:
        """Return the conversation with tokens of the model's answer after it, which are never steered."""
        start = len(self.tokens)
        segment = Segment(None, "assistant", start, start + len(tokens), False)
        return replace(self, text=self.text + text, tokens=(*self.tokens, *tokens), segments=(*self.segments, segment))

    @cached_property
    def marked_bits(self) -> int:
        """The positions of marked segments, as bits of a number."""
        return sum((1 << s.stop) - (1 << s.start) for s in self.segments if s.add_injection)

    def marked(self) -> Bool[Tensor, " pos"]:
        """True at every position of a marked segment."""
        mask = torch.zeros(len(self.tokens), dtype=torch.bool)
        for segment in self.segments:
            mask[segment.start : segment.stop] = segment.add_injection
        return mask


def render_all(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> tuple[Rendered, ...]:
    """Return what `render` makes of each conversation; first turns that several share are tokenized once."""
    known: Known = {}
    return tuple(render(tokenizer, conversation, known) for conversation in conversations)


@checked
def render(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, known: Known | None = None) -> Rendered:
    """Return the tokens and segments of `conversation`, ready to be read at its last position.

    The last message stays open if it says continue_msg; otherwise the template's generation prompt is appended (after
    a closed assistant message too: it is then the next answer that is read). For a template without a system role an
    empty system message is left out, and any other put at the head of the first user message, with a warning.
    `known` remembers the tokens of first messages between calls with the same tokenizer.

    Raises ChatTemplateError if there is no template, if it breaks the prefix property, if it does not write
    an open message literally, or if the BOS token comes out doubled.
    """
    messages = _fit_system(tokenizer, conversation.messages)
    offset = len(conversation.messages) - len(messages)
    text = _full_text(tokenizer, messages)
    known = {} if known is None else known
    tokens = _encode(tokenizer, text)
    _check_bos(tokenizer, tokens)
    segments: list[Segment] = []
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        start = segments[-1].stop if segments else 0
        is_open = message.continue_msg
        stop = len(tokens) if is_open else _prefix_stop(tokenizer, messages, index, tokens, known)
        segments.append(Segment(index + offset, message.role, start, stop, message.add_injection))
    if segments[-1].stop < len(tokens):
        segments.append(Segment(None, "assistant", segments[-1].stop, len(tokens), False))
    return Rendered(conversation, text, tuple(tokens), tuple(segments))


def _prefix_stop(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    index: int,
    tokens: Sequence[int],
    known: Known,
) -> int:
    """Length of the first index+1 messages in tokens, which must begin the whole sequence."""
    first = tuple(messages[: index + 1])
    if first not in known:
        known[first] = _encode(tokenizer, _template(tokenizer, first))
    part = known[first]
    if list(tokens[: len(part)]) != part:
        at = next((i for i, (a, b) in enumerate(zip(part, tokens, strict=False)) if a != b), len(tokens))
        raise ChatTemplateError(
            given=f"message {index} ({messages[index].role}): the chat template renders the first {index + 1} messages "
            f"differently once more messages follow; they differ at token {at}: "
            f"{tokenizer.decode(part[at : at + 8])!r} becomes {tokenizer.decode(list(tokens[at : at + 8]))!r}",
            allowed="templates in which the first k messages are a token prefix of the first k+1",
            advice="use a template that leaves earlier turns as they are (tokenizer.chat_template = ...)",
        )
    return len(part)


def _full_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    last = messages[-1]
    if not last.continue_msg:
        return _template(tokenizer, messages, add_generation_prompt=True)
    # Not continue_final_message: transformers 5 cuts messages that are empty, repeated or end in white space wrongly.
    probe = _template(tokenizer, [*messages[:-1], replace(last, content=_SENTINEL)])
    head, found, _ = probe.rpartition(_SENTINEL)
    closed = _template(tokenizer, messages)
    # Some templates trim what they copy; an open message is kept to the letter all the same.
    if not found or not closed.startswith((head + last.content, head + last.content.strip())):
        raise ChatTemplateError(
            given=f"the chat template does not write the open last message {last.content[:60]!r} literally",
            allowed="templates that copy an assistant message as it is",
            advice="pass a tokenizer with such a template, or drop continue_msg",
        )
    return head + last.content


def _template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], add_generation_prompt: bool = False
) -> str:
    from jinja2.exceptions import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise ChatTemplateError(
            given="the tokenizer has no chat template",
            allowed="chat models, whose tokenizer carries one",
            advice="load the instruction-tuned checkpoint, or set tokenizer.chat_template",
        )
    chat = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=add_generation_prompt, return_dict=False
        )
    except TemplateError as error:
        raise ChatTemplateError(
            given=f"the chat template refuses the roles {[m.role for m in messages]}: {error}",
            allowed="the roles and the order of roles that the model's template knows",
            advice="change the conversation's roles, or the template",
        ) from error
    return str(text)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # The template writes the BOS token itself; special tokens added here would double it.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_bos(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and len(tokens) > 1 and tokens[0] == bos and tokens[1] == bos:
        raise ChatTemplateError(
            given=f"the rendered conversation begins with two BOS tokens ({tokenizer.bos_token!r})",
            allowed="one BOS token at most",
            advice="remove the BOS token from the template or from the system message",
        )


def _fit_system(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Sequence[Message]:
    """Leave out or move a system message that the template has no place for."""
    if messages[0].role != "system" or _knows_system(tokenizer, messages[0].content == ""):
        return messages
    system, first, *rest = messages
    if not system.content.strip():
        return (first, *rest)
    warnings.warn(
        "the chat template has no system role: the system message now stands at the head of the first message",
        ChatTemplateWarning,
        stacklevel=3,
    )
    return (replace(first, content=f"{system.content}\n\n{first.content}"), *rest)


def _knows_system(tokenizer: PreTrainedTokenizerBase, empty: bool) -> bool:
    """Whether a system message is written once, first, and left alone by later turns (probed with sentinels)."""
    content = "" if empty else _SENTINEL
    chat = [Message("system", content), Message("user", "one"), Message("assistant", "two"), Message("user", "three")]
    try:
        short, long = _template(tokenizer, chat[:2]), _template(tokenizer, chat)
    except ChatTemplateError:
        return False
    return long.startswith(short) and (empty or short.count(_SENTINEL) == 1)
