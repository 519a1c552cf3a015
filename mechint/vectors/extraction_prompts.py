"""The prompts that concept vectors are extracted from, and the tokens of each at which the residual stream is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechint.base.errors import ChatTemplateError, UsageError
from mechint.chat.conversations import Conversation
from mechint.chat.offsets import Span, token_edges
from mechint.chat.render import Rendered, chat_template, render
from mechint.chat.templates import HasTemplate
from mechint.chat.turns import turns
from mechint.prompts.design import SLOT, PromptDesign
from mechint.vectors.activations import chat
from mechint.vectors.extraction import TEXT

# What is read as a text without a template: one sentence, which ends in a full stop.
SENTENCE = f"Say what you know of {SLOT}."


@dataclass(frozen=True)
class Prompt:
    """A user's message, with the beginning of the reply if there is one; `word` are the characters of its subject."""

    conversation: Conversation
    word: Span


@dataclass(frozen=True)
class Reading:
    """The token ids of a prompt, and the positions over which the residual stream is averaged."""

    tokens: tuple[int, ...]
    positions: tuple[int, ...]


def concept_prompts(design: PromptDesign, words: Sequence[str], beginnings: Sequence[str] = ("",)) -> list[Prompt]:
    """Return the prompts about each of some words, with each beginning of the reply."""
    return [
        _filled(text, word, beginning)
        for text in design.extraction.concept
        for word in words
        for beginning in beginnings
    ]


def sentences(words: Sequence[str]) -> list[Prompt]:
    """Return the sentence about each of some words, which is read without a template."""
    return [_filled(SENTENCE, word, "") for word in words]


def paired_prompts(design: PromptDesign, beginnings: Sequence[str]) -> list[Prompt]:
    """Return the baseline prompts with which those of a concept are paired, in the order of `concept_prompts`."""
    texts = design.extraction
    return [
        Prompt(chat(baseline, beginning), _counterpart(concept, baseline) or (0, 0))
        for concept, baseline in zip(texts.concept, texts.baseline, strict=True)
        for beginning in beginnings
    ]


def check_counterparts(design: PromptDesign) -> None:
    """Raise UsageError unless every baseline message is that of its pair with other words in the concept's place."""
    for concept, baseline in zip(design.extraction.concept, design.extraction.baseline, strict=True):
        if _counterpart(concept, baseline) is None:
            raise UsageError(
                given=f"paired_pca read at the concept: baseline message {baseline!r} is not {concept!r} with other "
                f"words in place of {SLOT}",
                allowed="mean_difference read at the concept, or paired_pca read at the reply or over the message",
                advice="choose one of these, or a baseline message that differs in these words alone",
            )


def reading(source: HasTemplate, prompt: Prompt, read: str) -> Reading:
    """Return the tokens of a prompt and the positions of "reply", "concept", "message" or "text" (see `Extraction`).

    A token that lies across an edge belongs to the side of its first character that is no white space. A text has
    special tokens only if the tokenizer adds them by itself. Raises UsageError for a word that no token begins in,
    ChatTemplateError for a template that rewrites the message.
    """
    if read == TEXT:
        tokens = tuple(source.tokenizer(prompt.conversation.messages[0].content)["input_ids"])
        return Reading(tokens, (len(tokens) - 1,))
    rendered = render(source, prompt.conversation)
    if read == "reply":
        return Reading(rendered.tokens, (len(rendered.tokens) - 1,))
    span = _message_span(source, rendered)
    if read == "concept":
        span = _word_span(rendered, span, prompt.word)
    first, end = token_edges(source.tokenizer, rendered.text, span)
    if first == end:
        subject = f"{rendered.text[slice(*span)]!r} begins no token"
        raise UsageError(subject, "words with a token of their own", "choose another word")
    return Reading(rendered.tokens, tuple(range(first, end)) if read == "message" else (end - 1,))


def _filled(text: str, word: str, beginning: str) -> Prompt:
    """Return a prompt about a word; where the text has several slots, the last is where the word is read."""
    before, _, after = text.rpartition(SLOT)
    head = before.replace(SLOT, word)
    return Prompt(chat(head + word + after, beginning), (len(head), len(head) + len(word)))


def _counterpart(concept: str, baseline: str) -> Span | None:
    """Return the characters of a baseline message that stand where the concept does in its pair, if the rest is one."""
    before, _, after = concept.partition(SLOT)
    span = len(before), len(baseline) - len(after)
    alike = SLOT not in after and baseline.startswith(before) and baseline.endswith(after)
    return span if alike and span[0] < span[1] else None


def _message_span(source: HasTemplate, rendered: Rendered) -> Span:
    """Return the characters of the user's message, the first of a conversation, as the template writes it."""
    return turns(chat_template(source), rendered.conversation.messages, rendered.text)[0].content


def _word_span(rendered: Rendered, message: Span, word: Span) -> Span:
    """Return the characters of a word in the whole text, from those in the message; templates may trim a message."""
    content, written = rendered.conversation.messages[0].content, rendered.text[slice(*message)]
    trimmed = content.find(written)
    if trimmed < 0:
        raise ChatTemplateError(
            given=f"the chat template does not write the message {content[:60]!r} to the letter",
            allowed="templates that copy a user's message, whole or trimmed",
            advice="read at the reply or over the message",
        )
    shift = message[0] - trimmed
    return word[0] + shift, word[1] + shift
