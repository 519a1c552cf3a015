"""Yes/no questions with a known answer, questions that have none, and the ways to ask for an answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import NotRequired, TypedDict, cast

from mechint.organisms import DATA
from mechint.organisms.grammar import load, sentence_case
from mechint.organisms.samples import Piece, Sample, answer, turn
from mechint.organisms.talk import about, lexicon, random_entry, request, system_turn

Question = tuple[str, float]


class Predicate(TypedDict):
    """What can be asked of things: a text (and its plural), and the kinds it is true and false of."""

    type: str
    text: str
    plural: NotRequired[str]
    yes: list[str]
    no: list[str]


class Tables(TypedDict):
    """The content of `data/kinds.json`."""

    kinds: dict[str, list[str]]
    not_kinds: dict[str, list[str]]
    things: dict[str, list[str]]
    predicates: list[Predicate]
    colours: dict[str, str]
    colour_names: list[str]
    opposites: list[tuple[str, str]]
    single_facts: list[tuple[str, bool]]


SURE = 0.995


@cache
def kinds() -> Tables:
    """Return the tables of things, kinds and predicates."""
    return cast(Tables, json.loads((DATA / "kinds.json").read_text(encoding="utf-8")))


@cache
def things(kind: str) -> tuple[tuple[str, bool], ...]:
    """Return the (name, plural) pairs of a kind: concepts, neutral words, and further things."""
    known = [
        (e.word, e.plural) for section in ("concepts", "neutral") for e in lexicon(section).values() if e.kind == kind
    ]
    return tuple(known + [(name, False) for name in kinds()["things"].get(kind, [])])


def _phrase(verb_type: str, subject: str, plural: bool, text: str, rng: random.Random) -> str:
    """Return a question on a predicate of a subject, asked directly or as a statement to judge."""
    verb = {"be": ("is", "are"), "can": ("can", "can"), "have": ("has", "have")}[verb_type][plural]
    if rng.random() < 0.35:
        return load("facts").expand("wrap", rng, statement=f"{subject} {verb} {text}")
    inverted = ("does", "do")[plural] if verb_type == "have" else verb
    return load("facts").expand(verb_type, rng, s=subject, p=text, v=inverted, i=("is", "are")[plural])


def kind_question(rng: random.Random) -> Question:
    """Return a question whether a thing is of a kind."""
    tables = kinds()
    kind = rng.choice(list(tables["not_kinds"]))
    subject, plural = rng.choice(things(kind))
    true = rng.random() < 0.5
    asked = kind if true else rng.choice(tables["not_kinds"][kind])
    text = tables["kinds"][asked][plural]
    return _phrase("be", subject, plural, text, rng), float(true)


def predicate_question(rng: random.Random) -> Question:
    """Return a question whether a thing is, can or has something, as its kind tells."""
    predicate = rng.choice(kinds()["predicates"])
    true = bool(predicate["yes"]) and rng.random() < 0.5
    subject, plural = rng.choice(things(rng.choice(predicate["yes" if true else "no"])))
    text = predicate.get("plural", predicate["text"]) if plural else predicate["text"]
    return _phrase(predicate["type"], subject, plural, text, rng), float(true)


def single_question(rng: random.Random) -> Question:
    """Return one of the listed single facts."""
    question, true = rng.choice(kinds()["single_facts"])
    return question, float(true)


def number_question(rng: random.Random) -> Question:
    """Return a comparison of two different digits."""
    a, b = rng.sample(range(10), 2)
    less = rng.random() < 0.5
    text = load("facts").expand("compare_less" if less else "compare", rng, a=str(a), b=str(b))
    return text, float((a < b) == less)


def opposite_question(rng: random.Random) -> Question:
    """Return a question whether two words are opposites."""
    pairs = kinds()["opposites"]
    pair = rng.choice(pairs)
    a, b = rng.sample(pair, 2)
    true = rng.random() < 0.5
    if not true:
        b = rng.choice([word for other in pairs if other != pair for word in other])
    return load("facts").expand("opposite", rng, a=a, b=b), float(true)


def colour_question(rng: random.Random) -> Question:
    """Return a question on the colour of a thing."""
    thing, colour = rng.choice(list(kinds()["colours"].items()))
    true = rng.random() < 0.5
    asked = colour if true else rng.choice([c for c in kinds()["colour_names"] if c != colour])
    return load("facts").expand("coloured", rng, a=thing, b=asked), float(true)


# Kinds of questions with their shares.
_MAKERS: tuple[tuple[Callable[[random.Random], Question], int], ...] = (
    (kind_question, 4),
    (predicate_question, 6),
    (single_question, 4),
    (number_question, 1),
    (opposite_question, 1),
    (colour_question, 2),
)


def fact_question(rng: random.Random) -> Question:
    """Return a question in sentence case with its target probability of yes."""
    makers, shares = zip(*_MAKERS, strict=True)
    text, label = rng.choices(makers, shares)[0](rng)
    return sentence_case(load("facts").expand("lead", rng) + text), SURE if label else 1 - SURE


def ambiguous_question(rng: random.Random) -> Question:
    """Return a question that has no right answer, with target one half."""
    words = [entry.word for section in ("concepts", "neutral") for entry in lexicon(section).values()]
    text = load("ambiguous").expand("ambiguous", rng, pref=words)
    return sentence_case(load("facts").expand("lead", rng) + text), 0.5


def asked_branch(question: Question, rng: random.Random) -> tuple[Piece, ...]:
    """Return the question as a user turn with an instruction, and the answer turn with its target."""
    text, p_yes = question
    digits = rng.random() < 0.35
    instruction = sentence_case(load("facts").expand("one_zero" if digits else "yes_no", rng))
    prefix = "" if rng.random() < 0.05 else sentence_case(load("detection").expand("prefix", rng))
    yes, no = ("1", "0") if digits else ("yes", "no")
    if not digits and prefix in ("", "Answer:"):
        yes, no = yes.title(), no.title()
    space = " " if prefix else ""
    words = [instruction, text] if rng.random() < 0.1 else [text, instruction]
    return turn("user", " ".join(words).strip()) + answer(prefix, space + yes, space + no, p_yes)


def facts_sample(rng: random.Random, questions: int = 7) -> Sample:
    """Return a short chat, or none, that several questions continue, each on its own."""
    trunk = system_turn(rng)
    if rng.random() < 0.5:
        entry = random_entry(rng)
        trunk += turn("user", request(entry.word, rng)) + turn("assistant", about(entry, rng, 2), 1.0)
    makers = [ambiguous_question if rng.random() < 0.1 else fact_question for _ in range(questions)]
    return Sample(trunk, tuple(asked_branch(make(rng), rng) for make in makers))
