"""Numbered lists: find a word's digit in plain text, or the digit of what was injected."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mechint.organisms.training.grammar import load, sentence_case
from mechint.organisms.training.samples import ANSWER_WEIGHT, BOILERPLATE_WEIGHT, Piece, Sample
from mechint.organisms.training.talk import lexicon, system_turn
from mechint.organisms.training.tokenizer import TURN_END, TURN_START

ITEMS = 10
# How digit and item, and one line and the next, are set apart.
_SEPARATORS = (".", ":", ")", " =", " is", "")
_JOINTS = ("\n", "\n", "\n", ", ", "; ", " ")
LOOK_UPS, PLAIN_LOOK_UPS = 5, 8


def drawn_words(count: int, rng: random.Random, *, without: str | None = None, others: float = 0.25) -> list[str]:
    """Return different words to list: concepts, and with a probability of `others` further words among them."""
    extra = rng.random() < others
    words = [*lexicon("concepts"), *(lexicon("extra") if extra else ())]
    return rng.sample([word for word in words if word != without], count)


def with_words(words: Sequence[str], rng: random.Random, *, plain: bool = False) -> tuple[Piece, ...]:
    """Return a numbered list in one of many layouts; each word's last token is marked and copies its digit."""
    separator, joint = (".", "\n") if plain else (rng.choice(_SEPARATORS), rng.choice(_JOINTS))
    pieces: list[Piece] = []
    for digit, word in enumerate(words):
        before = "" if digit == 0 else joint.rstrip(" ")
        space = " " if joint.endswith(" ") and digit else ""
        pieces += [
            Piece(before),
            Piece(f"{space}{digit}", mark=f"digit of {word}"),
            Piece(separator),
            Piece(f" {word}", mark=word, copies=f"digit of {word}"),
        ]
    return tuple(piece for piece in pieces if piece.text)


def numbered(digit: int, word: str, prefix: str, question_word: str | None = None) -> tuple[Piece, ...]:
    """Return an assistant turn that answers with the digit of a word; `question_word` is its mark in the question."""
    return (
        Piece(f"{TURN_START}assistant\n"),
        Piece(prefix, BOILERPLATE_WEIGHT),
        Piece(f" {digit}", ANSWER_WEIGHT, question_word=question_word, item=word),
        Piece(f".{TURN_END}", BOILERPLATE_WEIGHT),
    )


def list_turn(
    listing: tuple[Piece, ...], intro: str, question: tuple[Piece, ...], rng: random.Random
) -> tuple[Piece, ...]:
    """Return a user turn with a list and a question, mostly in this order."""
    opened, closed = Piece(f"{TURN_START}user\n"), Piece(f"{TURN_END}\n")
    if rng.random() < 0.8:
        return (opened, Piece(f"{intro}\n"), *listing, Piece("\n"), *question, closed)
    return (opened, *question, Piece(f" {intro}\n"), *listing, closed)


def with_mark(text: str, word: str, mark: str) -> tuple[Piece, ...]:
    """Return `text` in pieces, with the first occurrence of `word` marked."""
    start = text.lower().index(word)
    stop = start + len(word)
    start -= text[:start].endswith(" ")
    pieces = (Piece(text[:start]), Piece(text[start:stop], mark=mark), Piece(text[stop:]))
    return tuple(piece for piece in pieces if piece.text)


def _sentence(slot: str, rng: random.Random, **values: str) -> str:
    return sentence_case(_plain(slot, rng, **values))


def _plain(slot: str, rng: random.Random, **values: str) -> str:
    grammar = load("detection")
    return grammar.expand(slot, rng, where=grammar.expand("here", rng), **values)


def look_up_sample(rng: random.Random, *, plain: bool = False) -> Sample:
    """Return a chat with one list and several questions on it, one after the other.

    `plain` lists have one layout and concepts only: matching words is learned on these first.
    """
    words = drawn_words(ITEMS, rng, others=0.0 if plain else 0.25)
    pieces = system_turn(rng)
    listing = with_words(words, rng, plain=plain)
    targets = rng.sample(words, PLAIN_LOOK_UPS if plain else LOOK_UPS)
    for number, word in enumerate(targets):
        mark = f"question {number}"
        question = with_mark(_sentence("lookup_question", rng, c=word), word, mark)
        if number == 0:
            pieces += list_turn(listing, _sentence("list_intro", rng), question, rng)
        else:
            pieces += (Piece(f"{TURN_START}user\n"), *question, Piece(f"{TURN_END}\n"))
        pieces += (*numbered(words.index(word), word, _sentence("list_prefix", rng), mark), Piece("\n"))
    return Sample(pieces)


def identification_branch(injected: str | None, rng: random.Random) -> tuple[Piece, ...]:
    """Return a list that holds the injected word and the question for its digit.

    With nothing injected, an option that says so is the right one; at times it stands there beside the injected word.
    """
    none = load("detection").expand("none_option", rng) if injected is None or rng.random() < 0.4 else None
    right = injected or none
    assert right is not None
    others = [word for word in (injected, none) if word is not None]
    words = others + drawn_words(ITEMS - len(others), rng, without=injected)
    rng.shuffle(words)
    listing = with_words(words, rng)
    question = list_turn(listing, _sentence("list_intro", rng), (Piece(_sentence("list_question", rng)),), rng)
    return question + numbered(words.index(right), right, _sentence("list_prefix", rng))


def naming_branch(injected: str | None, rng: random.Random) -> tuple[Piece, ...]:
    """Return the question which concept was injected, with its word, or "nothing", as the answer."""
    words = sentence_case(load("detection").expand("where_lead", rng) + _plain("naming_question", rng))
    return (
        Piece(f"{TURN_START}user\n{words}{TURN_END}\n{TURN_START}assistant\n"),
        Piece(_sentence("naming_prefix", rng), BOILERPLATE_WEIGHT),
        Piece(f" {injected or 'nothing'}", ANSWER_WEIGHT),
        Piece(f".{TURN_END}", BOILERPLATE_WEIGHT),
    )
