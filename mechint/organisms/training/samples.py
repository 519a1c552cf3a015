"""A training sample: a trunk of turns and branches that each continue it, with a weight for every token.

Branches share their trunk in one forward pass: a branch sees the trunk and itself, never another branch. One
injected first turn thus serves several questions without one answer leaking into the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tokenizers import Tokenizer

from mechint.organisms.training.tokenizer import TURN_END, TURN_START

ANSWER_WEIGHT, BOILERPLATE_WEIGHT = 4.0, 0.2


DIGIT_OF, QUESTION_WORD, ITEM = 0, 1, 2


@dataclass(frozen=True)
class Piece:
    """Some text, the weight of its tokens in the loss, and, for an answer, its probability against the alternative.

    A piece may have a name (`mark`) by which later pieces of its part point at its last token: `copies` says which
    mark this piece's last token should attend to, `question_word` and `item` which marks the token before it should.
    """

    text: str
    weight: float = 0.0
    alternative: str | None = None
    probability: float = 1.0
    mark: str | None = None
    copies: str | None = None
    question_word: str | None = None
    item: str | None = None


@dataclass(frozen=True)
class InjectionSpec:
    """An injection into the trunk of a sample: of a word's vector, or of a random direction (concept None)."""

    concept: str | None
    layers: tuple[int, ...]
    strength: float
    method: int
    noise: float
    seed: int


@dataclass(frozen=True)
class Sample:
    """A trunk, its branches, and the injection into all of the trunk's positions, if any.

    `steers` are injections into what is learned of each branch, if there are any of these: its tokens with a weight.
    """

    trunk: tuple[Piece, ...]
    branches: tuple[tuple[Piece, ...], ...] = ()
    injection: InjectionSpec | None = None
    steers: tuple[InjectionSpec | None, ...] = ()


@dataclass
class Encoded:
    """Token ids with, per token, its position, branch (0: trunk), weight, and the answer's alternative and target.

    `injections` are those of the trunk and of each branch, `steered` says which of them acts on a token (-1: none).

    `links` are (head, query, key): `DIGIT_OF` links an item of a list to its digit, `QUESTION_WORD` an answer to the
    word in the question, `ITEM` an answer to its item.
    """

    injections: tuple[InjectionSpec | None, ...]
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    alternatives: list[int] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    steered: list[int] = field(default_factory=list)
    links: list[tuple[int, int, int]] = field(default_factory=list)


def turn(role: str, content: str, weight: float = 0.0) -> tuple[Piece, ...]:
    """Return one closed ChatML turn whose content and end have the given weight."""
    return (Piece(f"{TURN_START}{role}\n"), Piece(f"{content}{TURN_END}", weight), Piece("\n"))


def answer(prefix: str, yes: str, no: str, p_yes: float) -> tuple[Piece, ...]:
    """Return an assistant turn that ends in the likelier answer, with target probability `p_yes` of yes."""
    likelier, other, probability = (yes, no, p_yes) if p_yes >= 0.5 else (no, yes, 1 - p_yes)
    return (
        Piece(f"{TURN_START}assistant\n"),
        Piece(prefix, BOILERPLATE_WEIGHT),
        Piece(likelier, ANSWER_WEIGHT, alternative=other, probability=probability),
        Piece(f".{TURN_END}", BOILERPLATE_WEIGHT),
    )


@lru_cache(maxsize=50_000)
def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def encode(sample: Sample, tokenizer: Tokenizer) -> Encoded:
    """Return the sample as token lists: trunk first, then each branch with positions that continue the trunk."""
    encoded = Encoded((sample.injection, *sample.steers))
    _append(encoded, sample.trunk, 0, 0, tokenizer)
    start = len(encoded.ids)
    for number, branch in enumerate(sample.branches, start=1):
        _append(encoded, branch, number, start, tokenizer)
    encoded.steered = [
        branch if branch == 0 or (sample.steers and weight > 0) else -1
        for branch, weight in zip(encoded.branch, encoded.weights, strict=True)
    ]
    return encoded


def _append(encoded: Encoded, pieces: Sequence[Piece], branch: int, start: int, tokenizer: Tokenizer) -> None:
    position, marks = start, dict[str, int]()
    for piece in pieces:
        ids = _ids(tokenizer, piece.text)
        count, first = len(ids), len(encoded.ids)
        if piece.mark is not None:
            marks[piece.mark] = first + count - 1
        points = (
            (DIGIT_OF, first + count - 1, piece.copies),
            (QUESTION_WORD, first - 1, piece.question_word),
            (ITEM, first - 1, piece.item),
        )
        encoded.links += [(head, query, marks[key]) for head, query, key in points if key is not None]
        encoded.ids += ids
        encoded.positions += range(position, position + count)
        encoded.branch += [branch] * count
        encoded.weights += [piece.weight] * count
        other = _ids(tokenizer, piece.alternative)[0] if piece.alternative else -1
        encoded.alternatives += [other] * count
        encoded.probability += [piece.probability] * count
        position += count
