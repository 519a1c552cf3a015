"""Where a piece of a message's text stands among the tokens: for injections into half of a message, or one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechint.base.errors import UsageError
from mechint.base.signatures import Index, checked
from mechint.chat.offsets import Span, anchors, token_spans
from mechint.chat.render import Rendered, Segment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@checked
def positions_of(
    tokenizer: PreTrainedTokenizerBase,
    rendered: Rendered,
    text: str,
    *,
    message: int | None = None,
    occurrence: int = 0,
) -> tuple[int, ...]:
    """Return the token positions of `text` in message number `message` (in any, if None), ascending.

    `occurrence` counts the places where it stands, from 0. A token that lies across an edge of `text` belongs to the
    side of its first character that is no white space. So the pieces that a message is cut into share no token, and
    together they have all of its tokens.

    Raises UsageError if the text does not stand there or has no token of its own, if a message cannot be told from what
    the template writes around it, and for a tokenizer that is slow or not the one that `rendered` was made with.
    """
    spans = _checked_spans(tokenizer, rendered)
    messages = rendered.conversation.messages
    if message is not None and not 0 <= message < len(messages):
        raise UsageError(f"message {message}", f"0 to {len(messages) - 1}", "count messages from the first, system too")
    searched = range(len(messages)) if message is None else [message]
    places = [place for index in searched for place in _places(rendered, spans, index, text)]
    if not 0 <= occurrence < len(places):
        raise UsageError(
            given=f"occurrence {occurrence} of {text!r}, which stands at {len(places)} places",
            allowed="a text that the messages searched have, and occurrences from 0 on",
            advice="copy the text from the message to the letter",
        )
    start = places[occurrence]
    positions = tuple(
        at for at, anchor in enumerate(anchors(rendered.text, spans)) if start <= anchor < start + len(text)
    )
    if not positions:
        raise UsageError(f"{text!r} begins no token", "texts with a token of their own", "take a longer piece")
    return positions


@checked
def beginning_of(
    tokenizer: PreTrainedTokenizerBase, rendered: Rendered, text: str, *, occurrence: Index | None = None
) -> int:
    """Return the position of the token with which `text` begins in a rendered conversation, template and all.

    `occurrence` counts the places where it stands, from 0; without it there may be one only. A token across the edge
    belongs to the side of its first character that is no white space. Raises UsageError if the text does not stand
    there, stands there several times, or begins no token, and for tokenizers that `positions_of` refuses.
    """
    spans, whole = _checked_spans(tokenizer, rendered), rendered.text
    places = [at for at in range(len(whole)) if text and whole.startswith(text, at)]
    chosen = 0 if occurrence is None else occurrence
    if chosen >= len(places) or (occurrence is None and len(places) > 1):
        which = "" if occurrence is None else f"occurrence {occurrence} of "
        raise UsageError(
            given=f"{which}{text!r}, which stands at {len(places)} places of conversation {rendered.label!r}",
            allowed="a text that stands in the rendered conversation, once, or with occurrence= counted from 0",
            advice="copy it to the letter from print(mi.render(model, conversation)); lengthen it, or pass occurrence=",
        )
    start = places[chosen]
    inside = [at for at, anchor in enumerate(anchors(whole, spans)) if start <= anchor < start + len(text)]
    if not inside:
        raise UsageError(f"{text!r} begins no token", "texts with a token of their own", "take a longer piece")
    return inside[0]


def _checked_spans(tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[Span]:
    """Return the characters of each token of a rendered conversation."""
    if not tokenizer.is_fast:
        raise UsageError("a slow tokenizer", "fast tokenizers, which know where a token stands", "load the fast one")
    tokens, spans = token_spans(tokenizer, rendered.text)
    if tokens != rendered.tokens:
        raise UsageError(
            given=f"conversation {rendered.label!r}: the tokenizer writes other tokens than it was rendered to",
            allowed="the tokenizer that it was rendered with, and nothing appended to its tokens",
            advice="pass the same model's tokenizer to render and here",
        )
    return spans


def _places(rendered: Rendered, spans: list[Span], index: int, text: str) -> list[int]:
    """Return the characters at which `text` begins in a message, as the template writes it."""
    content = rendered.conversation.messages[index].content
    if not text or text not in content:
        return []
    start, written = _written(rendered, spans, index, content)
    return [start + at for at in range(len(written)) if written.startswith(text, at)]


def _written(rendered: Rendered, spans: list[Span], index: int, content: str) -> tuple[int, str]:
    """Return where a message's content begins in the text, and the content as written: some templates trim it."""
    segment = _segment(rendered, index)
    begin, end = spans[segment.start - 1][1] if segment.start else 0, spans[segment.stop - 1][1]
    around = rendered.text[begin:end]
    written = next((form for form in (content, content.strip()) if form in around), "")
    if not written or around.find(written) != around.rfind(written):
        raise UsageError(
            given=f"conversation {rendered.label!r}, message {index}: {content[:40]!r} cannot be told from what the "
            "template writes around it",
            allowed="contents that stand once in what the template makes of their message",
            advice="limit the injection by segments=, or lengthen the message",
        )
    return begin + around.index(written), written


def _segment(rendered: Rendered, index: int) -> Segment:
    """Return the segment of a message; a system message lies in that of the message after it."""
    return next(s for s in rendered.segments if s.message is not None and s.message >= index)
