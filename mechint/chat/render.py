"""Rendering a conversation with a chat template to tokens and the spans of its segments.

A segment is one non-system message with whatever the template puts before it since the previous segment, in the
rendering of the whole conversation. Where the tokens of the first k messages begin those of the first k+1, they say
where a segment ends; many templates write the last turn unlike earlier ones, and there `turns` finds the messages.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechint.base import html
from mechint.base.errors import ChatTemplateError, ChatTemplateWarning
from mechint.base.signatures import checked
from mechint.chat.conversations import Conversation, Message
from mechint.chat.offsets import encode, pieces, straddling, token_edges
from mechint.chat.templates import SENTINEL, ChatTemplate, HasTemplate, TemplateOptions
from mechint.chat.turns import rewritten, turns, whole_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_QUESTION = "58209173640152"  # a user's message that no template writes by itself


_EDGES = {True: "▌ ", False: "  "}  # of the lines of marked segments, and of others


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
    """A conversation as token ids, with its text and its segments in order (they cover every position once).

    `options` are those that the chat template was given, `notes` say what may surprise in what it writes, and `pieces`
    are the segments' texts. Printed, or shown in a notebook, it is its text with the marked segments marked.
    """

    conversation: Conversation
    text: str
    tokens: tuple[int, ...]
    segments: tuple[Segment, ...]
    options: TemplateOptions = field(default_factory=TemplateOptions)
    notes: tuple[str, ...] = ()
    pieces: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        lines = [f"{self.label}: {len(self.tokens)} tokens, of which {self.prefix_length} are filled", *self.notes]
        for segment, piece in zip(self.segments, self.pieces, strict=True):
            edge = _EDGES[segment.add_injection]
            lines += [f"{edge}[{_described(segment)}]", *(f"{edge}{line}" for line in piece.split("\n"))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        turns = (
            html.turn(segment.role, piece, steered=segment.add_injection, note=f"tokens {segment.start}:{segment.stop}")
            for segment, piece in zip(self.segments, self.pieces, strict=True)
        )
        return html.heading(self.label, [f"{len(self.tokens)} tokens", *self.notes]) + "".join(turns)

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
        return replace(
            self,
            text=self.text + text,
            tokens=(*self.tokens, *tokens),
            segments=(*self.segments, segment),
            pieces=(*self.pieces, text),
        )

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


def render_all(
    source: HasTemplate | PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    options: TemplateOptions | None = None,
) -> tuple[Rendered, ...]:
    """Return the rendering of each conversation; first turns that several share are tokenized once."""
    template, prefix_tokens = chat_template(source, options), PrefixTokens()
    return tuple(_rendered(template, conversation, prefix_tokens) for conversation in conversations)


@checked
def render(
    source: HasTemplate | PreTrainedTokenizerBase, conversation: Conversation, options: TemplateOptions | None = None
) -> Rendered:
    """Return the tokens and segments of `conversation`, ready to be read at its last position.

    `source` is a model or a tokenizer, `options` those of its chat template (None: the model's own, `model.template`).
    The last message stays open if it says continue_msg; otherwise the template's generation prompt is appended (after
    a closed assistant message too: it is then the next answer that is read). For a template without a system role an
    empty system message is left out, and any other put at the head of the first user message, with a warning.
    Printed, the result shows its marked text.

    Raises ChatTemplateError if there is no template, if it fails, if it does not write an open message literally, if a
    message cannot be found in what it writes, or if the BOS token comes out doubled.
    """
    return _rendered(chat_template(source, options), conversation, PrefixTokens())


def chat_template(
    source: HasTemplate | PreTrainedTokenizerBase, options: TemplateOptions | None = None
) -> ChatTemplate:
    """Return the chat template of a model or tokenizer under `options`; None: under the model's own."""
    if isinstance(source, HasTemplate):
        return ChatTemplate(source.tokenizer, source.template if options is None else options)
    return ChatTemplate(source, options or TemplateOptions())


class PrefixTokens(dict[tuple[Message, ...], list[int]]):
    """The tokens of first messages, closed, for one chat template."""

    def of(self, template: ChatTemplate, first: Sequence[Message]) -> list[int]:
        """Return the tokens of first messages, written once."""
        key = tuple(first)
        if key not in self:
            self[key] = encode(template.tokenizer, template.text(first))
        return self[key]


def _rendered(template: ChatTemplate, conversation: Conversation, prefix_tokens: PrefixTokens) -> Rendered:
    messages = _fit_system(template, conversation.messages)
    text = whole_text(template, messages)
    tokens = encode(template.tokenizer, text)
    _check_bos(template.tokenizer, tokens)
    stops = _stops_by_prefix(template, messages, tokens, prefix_tokens)
    notes = _not_literal(messages, text)
    if stops is None:
        stops, changed = _stops_by_turns(template, messages, text, tokens)
        notes = [*changed, *notes]
    segments = _segments(messages, stops, len(tokens), offset=len(conversation.messages) - len(messages))
    _check_written(conversation, segments)
    segment_texts = pieces(template.tokenizer, text, [segment.stop for segment in segments])
    notes = [*template.facts(), *notes]
    return Rendered(conversation, text, tuple(tokens), segments, template.options, tuple(notes), segment_texts)


def _described(segment: Segment) -> str:
    marked = ", filled under the intervention" if segment.add_injection else ""
    return f"{segment.role}, tokens {segment.start}:{segment.stop}{marked}"


def _segments(messages: Sequence[Message], stops: Mapping[int, int], n_pos: int, offset: int) -> tuple[Segment, ...]:
    """Return the segments that end at `stops`, by message; `offset` is how many messages have been left out."""
    segments: list[Segment] = []
    for index, stop in stops.items():
        start, message = (segments[-1].stop if segments else 0), messages[index]
        segments.append(Segment(index + offset, message.role, start, stop, message.add_injection))
    if segments[-1].stop < n_pos:
        segments.append(Segment(None, "assistant", segments[-1].stop, n_pos, False))
    return tuple(segments)


def _stops_by_prefix(
    template: ChatTemplate, messages: Sequence[Message], tokens: Sequence[int], prefix_tokens: PrefixTokens
) -> dict[int, int] | None:
    """Return where segments end if the tokens of all first messages begin those of the whole, else None."""
    stops = {}
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        try:
            prefix = tokens if message.continue_msg else prefix_tokens.of(template, messages[: index + 1])
        except ChatTemplateError:  # templates that take no conversation which ends there
            return None
        if list(tokens[: len(prefix)]) != list(prefix):
            return None
        stops[index] = len(prefix)
    return stops


def _stops_by_turns(
    template: ChatTemplate, messages: Sequence[Message], text: str, tokens: Sequence[int]
) -> tuple[dict[int, int], list[str]]:
    """Return where segments end by the place of each message in the whole text, and the notes on it."""
    message_turns = turns(template, messages, text)
    for turn, following in pairwise(message_turns):
        shared = straddling(template.tokenizer, text, turn.content, following.content)
        if shared is not None:
            raise ChatTemplateError(
                given=f"message {turn.message} ({messages[turn.message].role}): its last token "
                f"{template.tokenizer.decode([tokens[shared]])!r} is also the first of message {following.message}",
                allowed="messages that have tokens of their own",
                advice="use a template that writes something between messages",
            )
    edges = token_edges(template.tokenizer, text, [turn.stop for turn in message_turns])
    stops = {turn.message: edge for turn, edge in zip(message_turns, edges, strict=True)}
    if messages[message_turns[-1].message].continue_msg:
        stops[message_turns[-1].message] = len(tokens)
    return stops, rewritten(template, messages, text)


def _not_literal(messages: Sequence[Message], text: str) -> list[str]:
    """Say which messages the template does not write to the letter, white space around them aside."""
    return [
        f"message {index} ({message.role}) is not written to the letter: {message.content.strip()[:60]!r}"
        for index, message in enumerate(messages)
        if message.content.strip() not in text
    ]


def _check_written(conversation: Conversation, segments: Sequence[Segment]) -> None:
    """Raise ChatTemplateError for a marked message of which the template writes nothing."""
    for segment in segments:
        if segment.add_injection and segment.start == segment.stop:
            raise ChatTemplateError(
                given=f"message {segment.message} ({segment.role}) is marked add_injection, and the chat template "
                "writes nothing of it",
                allowed="marked messages that are part of what the model reads",
                advice=f"unmark it in conversation {conversation.label!r}, or use another template",
            )


def _check_bos(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> None:
    bos = tokenizer.bos_token_id
    if bos is not None and len(tokens) > 1 and tokens[0] == bos and tokens[1] == bos:
        raise ChatTemplateError(
            given=f"the rendered conversation begins with two BOS tokens ({tokenizer.bos_token!r})",
            allowed="one BOS token at most",
            advice="remove the BOS token from the template or from the system message",
        )


def _fit_system(template: ChatTemplate, messages: Sequence[Message]) -> Sequence[Message]:
    """Leave out or move a system message that the template has no place for."""
    if messages[0].role != "system" or _knows_system(template, messages[0].content == ""):
        return messages
    system, first, *rest = messages
    if not system.content.strip():
        return (first, *rest)
    warnings.warn(
        "the chat template has no system role: the system message now stands at the head of the first message",
        ChatTemplateWarning,
        stacklevel=4,
    )
    return (replace(first, content=f"{system.content}\n\n{first.content}"), *rest)


def _knows_system(template: ChatTemplate, empty: bool) -> bool:
    """Whether a system message is written once, first, and left alone by later turns (probed with sentinels)."""
    try:
        short, long = _with_system(template, "" if empty else SENTINEL)
        if long.startswith(short):
            return empty or short.count(SENTINEL) == 1
        short, long = _with_system(template, SENTINEL)
    except ChatTemplateError:
        return False
    before, again = short.partition(SENTINEL)[0], long.partition(SENTINEL)[0]
    return short.count(SENTINEL) == long.count(SENTINEL) == 1 and before == again and _QUESTION not in before


def _with_system(template: ChatTemplate, content: str) -> tuple[str, str]:
    """Return the text of a short and of a longer chat with a system message."""
    chat = [
        Message("system", content),
        Message("user", _QUESTION),
        Message("assistant", "two"),
        Message("user", "three"),
    ]
    return template.text(chat[:2]), template.text(chat)
