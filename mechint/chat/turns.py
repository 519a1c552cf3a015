"""Where each message stands in the text that a chat template writes of a whole conversation.

Nothing is assumed of the template but that it is a function of the messages: a message is found by putting a sentinel
in its place, or at its ends, and comparing what is then written. What cannot be found for certain is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from mechint.base.errors import ChatTemplateError
from mechint.chat.conversations import Message
from mechint.chat.offsets import Span, common_length
from mechint.chat.templates import SENTINEL, ChatTemplate

# A special token, as templates write them; needed only where a turn ends otherwise than it would at the end of a chat.
_MARKER = re.compile(r"<[^<>\s]{1,60}>|\[/?[A-Z_]{2,30}\]")


@dataclass(frozen=True)
class Turn:
    """A message in the whole text: the characters of its content as written, and where its segment ends."""

    message: int
    content: Span
    stop: int


def whole_text(template: ChatTemplate, messages: Sequence[Message]) -> str:
    """Return the text of a conversation: up to its open last message, or else to the model's next reply.

    An open message stands where the template writes the content of such a message; with thinking on, where the model
    would begin to write. Raises ChatTemplateError if the template does not write it to the letter.
    """
    last = messages[-1]
    if not last.continue_msg:
        return template.generation_prompt(messages)
    if template.options.thinking and last.role == "assistant":
        return template.generation_prompt(messages[:-1]) + last.content
    # Not continue_final_message: transformers 5 cuts messages that are empty, repeated or end in white space wrongly.
    head, separator, _ = template.text([*messages[:-1], replace(last, content=SENTINEL)]).rpartition(SENTINEL)
    if separator and _is_literal(template, messages, head):
        return head + last.content
    raise ChatTemplateError(
        given=f"the chat template does not write the open last message {last.content[:60]!r} literally",
        allowed="templates that copy an assistant message as it is",
        advice="pass a tokenizer with such a template, or drop continue_msg",
    )


def _is_literal(template: ChatTemplate, messages: Sequence[Message], head: str) -> bool:
    """Whether an open message may follow `head`: the template writes it there, or the model's reply begins there."""
    content = messages[-1].content
    # Some templates trim what they copy; an open message is kept to the letter all the same.
    if template.text(messages).startswith((head + content, head + content.strip())):
        return True
    return messages[-1].role == "assistant" and template.generation_prompt(messages[:-1]) == head


def turns(template: ChatTemplate, messages: Sequence[Message], text: str) -> list[Turn]:
    """Return where each message but the system's stands in the whole text, and where its segment ends.

    A segment ends with what the template writes to close its message; what opens the next belongs to that. An empty
    message that is not written at all has an empty segment. Raises ChatTemplateError for any other that cannot be found
    for certain.
    """
    spoken = [index for index, message in enumerate(messages) if message.role != "system"]
    places = {index: _place(template, messages, index, text) for index in spoken}
    written = [(index, place) for index, place in places.items() if place is not None]
    opener = _opener(text[: written[0][1][0]], template.tokenizer.bos_token) if written else None
    ends = [start for _, (start, _) in written[1:]] + [len(text)]
    turn_by_message = {}
    for (index, place), end in zip(written, ends, strict=True):
        if place[1] > end:
            raise _lost(messages, index, "is written after the message that follows it")
        between = text[place[1] : end]
        closing = (
            between if messages[index].continue_msg else _closing(_tail(template, messages, index), between, opener)
        )
        turn_by_message[index] = Turn(index, place, place[1] + len(closing))
    return _with_unwritten(spoken, turn_by_message)


def _with_unwritten(spoken: Sequence[int], written: Mapping[int, Turn]) -> list[Turn]:
    """Return the turns of all messages; those that are not written are empty, where the one before them ends."""
    complete: list[Turn] = []
    for index in spoken:
        stop = complete[-1].stop if complete else 0
        complete.append(written.get(index, Turn(index, (stop, stop), stop)))
    return complete


def _place(template: ChatTemplate, messages: Sequence[Message], index: int, text: str) -> Span | None:
    """Return the characters that the template writes of a message's content; None for an empty one it leaves out."""
    content = messages[index].content
    if messages[index].continue_msg:
        return len(text) - len(content), len(text)
    mark = _unused(text)
    number = _number(template, messages[: index + 1], mark)
    for stand_in in (mark, mark.ljust(len(content), "5")):  # as long as the content, for templates that count
        whole = _gaps(_probe(template, messages, index, stand_in), stand_in, text)
        if whole:
            return whole[min(number, len(whole) - 1)]
    starts = _first_insertions(template, messages, index, [f"{mark}{content}", f"{mark}{content.lstrip()}"], mark, text)
    stops = _first_insertions(template, messages, index, [f"{content}{mark}", f"{content.rstrip()}{mark}"], mark, text)
    if starts and len(starts) == len(stops):
        at = min(number, len(stops) - 1)
        return starts[at], stops[at]
    if not content.strip():
        return None
    raise _lost(messages, index, "cannot be found in what the chat template writes")


def _probe(template: ChatTemplate, messages: Sequence[Message], index: int, content: str) -> str:
    """Return the whole text with another content of one message; nothing if the template refuses it."""
    changed = [*messages[:index], replace(messages[index], content=content), *messages[index + 1 :]]
    try:
        return whole_text(template, changed)
    except ChatTemplateError:
        return ""


def _number(template: ChatTemplate, first: Sequence[Message], mark: str) -> int:
    """Return which of the places where a content is written is the message's own, counted from 0.

    It is the last of them while no message follows: a template may write it in a title before, or repeat it later.
    """
    try:
        return template.text([*first[:-1], replace(first[-1], content=mark)]).count(mark) - 1
    except ChatTemplateError:
        return 0


def _gaps(probe: str, mark: str, text: str) -> list[Span]:
    """Return the spans of `text` that stand where marks stand in `probe`, if the two are alike everywhere else."""
    literals = probe.split(mark)
    gaps, left = len(literals) - 1, len(text) - sum(map(len, literals))
    if gaps == 0 or left < 0 or left % gaps:
        return []
    spans, at = [], 0
    for literal in literals[:-1]:
        if not text.startswith(literal, at):
            return []
        at += len(literal) + left // gaps
        spans.append((at - left // gaps, at))
    return spans if text.startswith(literals[-1], at) else []


def _first_insertions(
    template: ChatTemplate, messages: Sequence[Message], index: int, contents: Sequence[str], mark: str, text: str
) -> list[int]:
    """Return where marks have come into the text with the first of `contents` that changes nothing else."""
    for content in dict.fromkeys(contents):
        parts = _probe(template, messages, index, content).split(mark)
        if len(parts) > 1 and "".join(parts) == text:
            return list(accumulate(map(len, parts[:-1])))
    return []


def _tail(template: ChatTemplate, messages: Sequence[Message], index: int) -> str | None:
    """Return the text that the template writes after a last message; None if it takes no such conversation."""
    mark = SENTINEL.ljust(len(messages[index].content), "5")  # as long as the content, for templates that count
    last = replace(messages[index], content=mark, continue_msg=False)
    try:
        _, separator, tail = template.text([*messages[:index], last]).rpartition(mark)
    except ChatTemplateError:
        return None
    return tail if separator else None


def _closing(tail: str | None, between: str, opener: str | None) -> str:
    """Return the beginning of the text between two contents that closes the first.

    What closes it at the end of a conversation does so here too, if it is here; some templates go on there with what
    opens the model's reply. Else it lasts until a turn is opened, or as long as the two agree.
    """
    alone = tail if tail is None or opener is None else tail.partition(opener)[0]
    if alone is not None and between.startswith(alone):
        return alone
    if opener is not None and opener in between:
        return between.partition(opener)[0]
    common = between[: common_length(tail or "", between)]
    cut = [marker.start() for marker in _MARKER.finditer(between) if marker.start() < len(common) < marker.end()]
    return common[: cut[0]] if cut else common


def _opener(head: str, bos: str | None) -> str | None:
    """Return the first marker of the text, which opens a turn in templates that mark turns by one token."""
    return next((marker for marker in _MARKER.findall(head) if marker != bos), None)


def _unused(text: str) -> str:
    """Return a sentinel that the text does not have."""
    mark = SENTINEL
    while mark in text:
        mark += "5"
    return mark


def _lost(messages: Sequence[Message], index: int, why: str) -> ChatTemplateError:
    return ChatTemplateError(
        given=f"message {index} ({messages[index].role}): {messages[index].content[:40]!r} {why}",
        allowed="templates that write each message, whole or trimmed, in the order of the conversation",
        advice="look at the text with the tokenizer's apply_chat_template; change the message or the template",
    )


def rewritten(template: ChatTemplate, messages: Sequence[Message], text: str) -> list[str]:
    """Say which turn the template writes otherwise once later ones follow, if there is one: the first such."""
    for index, message in enumerate(messages[:-1]):
        try:
            alone = template.text(messages[: index + 1])
        except ChatTemplateError:
            continue
        at = common_length(alone, text)
        if message.role != "system" and at < len(alone):
            became = f"{alone[at : at + 30]!r} becomes {text[at : at + 30]!r}"
            return [f"message {index} ({message.role}) is written otherwise once more messages follow: {became}"]
    return []
