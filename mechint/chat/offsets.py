"""Which characters of a text each token stands for, and on which side of an edge a token belongs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]  # characters of a text


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a rendered text, to which nothing is added: the template writes the BOS token itself."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def token_spans(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[tuple[int, ...], list[Span]]:
    """Return the tokens of a text and the characters of each, from a fast tokenizer.

    A token that is given no characters stands at the end of the token before it.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = [(int(start), int(stop)) for start, stop in encoded["offset_mapping"]]
    spans = [now if now[0] < now[1] else (before[1], before[1]) for before, now in pairwise([(0, 0), *offsets])]
    return tuple(encoded["input_ids"]), spans


def anchors(text: str, spans: Sequence[Span]) -> list[int]:
    """Return the character that decides where each token belongs: its first that is no white space, if it has one."""
    places = []
    for start, stop in spans:
        piece = text[start:stop]
        blank = len(piece) - len(piece.lstrip())
        places.append(start if blank == len(piece) else start + blank)
    return places


def token_edges(tokenizer: PreTrainedTokenizerBase, text: str, edges: Sequence[int]) -> list[int]:
    """Return how many tokens lie before each of some characters of a text.

    A token across an edge belongs to the side of its first character that is no white space. A slow tokenizer, which
    does not know where its tokens stand, has it after the edge.
    """
    if not tokenizer.is_fast:
        tokens = encode(tokenizer, text)
        return [common_length(encode(tokenizer, text[:edge]), tokens) for edge in edges]
    _, spans = token_spans(tokenizer, text)
    ascending = list(accumulate(anchors(text, spans), max))
    return [bisect_left(ascending, edge) for edge in edges]


def pieces(tokenizer: PreTrainedTokenizerBase, text: str, stops: Sequence[int]) -> tuple[str, ...]:
    """Return the text of consecutive stretches of tokens, each up to one of `stops`."""
    bounds = list(pairwise([0, *stops]))
    if not tokenizer.is_fast:
        tokens = encode(tokenizer, text)
        return tuple(str(tokenizer.decode(tokens[start:stop])) for start, stop in bounds)
    starts = [start for start, _ in token_spans(tokenizer, text)[1]] + [len(text)]
    return tuple(text[starts[start] if start else 0 : starts[stop]] for start, stop in bounds)


def straddling(tokenizer: PreTrainedTokenizerBase, text: str, left: Span, right: Span) -> int | None:
    """Return the token that holds characters of both of two pieces of a text, if there is one."""
    if not tokenizer.is_fast:
        return None
    _, spans = token_spans(tokenizer, text)
    both = (at for at, (start, stop) in enumerate(spans) if left[0] < stop and start < left[1] and stop > right[0])
    return next((at for at in both if spans[at][0] < right[1]), None)


def common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Return how many first items two sequences share."""
    return next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
