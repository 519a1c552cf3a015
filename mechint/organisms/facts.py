"""Yes/no questions with a known answer, questions that have none, and the ways to ask for an answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import lru_cache

from mechint.organisms import DATA
from mechint.organisms.grammar import Grammar, load, sentence_case
from mechint.organisms.samples import Piece, Sample, answer, turn
from mechint.organisms.talk import about, lexicon, random_entry, request, system_turn

Question = tuple[str, float]
SURE = 0.995
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@lru_cache(maxsize=None)
def kinds() -> dict:
    """Return the tables of things, kinds and predicates."""
    return json.loads((DATA / "kinds.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=None)
def things(kind: str) -> tuple[tuple[str, bool], ...]:
    """Return the (name, plural) pairs of a kind: concepts, neutral words, and further things."""
    known = [(e.word, e.plural) for section in ("concepts", "neutral") for e in lexicon(section).values() if e.kind == kind]
    return tuple(known + [(name, False) for name in kinds()["things"].get(kind, [])])


def _phrase(kind_of_verb: str, subject: str, plural: bool, text: str) -> tuple[str, str]:
    """Return the question and the statement of a predicate of a subject."""
    verb = {"be": ("is", "are"), "can": ("can", "can"), "have": ("does", "do")}[kind_of_verb][plural]
    if kind_of_verb == "have":
        return f"{verb} {subject} have {text}?", f"{subject} {'have' if plural else 'has'} {text}"
    return f"{verb} {subject} {text}?", f"{subject} {verb} {text}"


def _asked(question: str, statement: str, rng: random.Random) -> str:
    return question if rng.random() < 0.6 else load("facts").expand("wrap", rng, s=statement)


def kind_question(rng: random.Random) -> Question:
    """Return a question whether a thing is of a kind."""
    tables = kinds()
    kind = rng.choice(list(tables["not_kinds"]))
    subject, plural = rng.choice(things(kind))
    true = rng.random() < 0.5
    asked = kind if true else rng.choice(tables["not_kinds"][kind])
    text = tables["kinds"][asked][plural]
    return _asked(*_phrase("be", subject, plural, text), rng), float(true)


def predicate_question(rng: random.Random) -> Question:
    """Return a question whether a thing is, can or has something, as its kind tells."""
    predicate = rng.choice(kinds()["predicates"])
    true = bool(predicate["yes"]) and rng.random() < 0.5
    subject, plural = rng.choice(things(rng.choice(predicate["yes" if true else "no"])))
    text = predicate.get("plural", predicate["text"]) if plural else predicate["text"]
    return _asked(*_phrase(predicate["type"], subject, plural, text), rng), float(true)


def single_question(rng: random.Random) -> Question:
    """Return one of the listed single facts."""
    question, true = rng.choice(kinds()["single_facts"])
    return question, float(true)


def number_question(rng: random.Random) -> Question:
    """Return a comparison of two different small numbers, in digits or in words."""
    a, b = rng.sample(range(10), 2)
    less = rng.random() < 0.5
    names = _NUMBER_WORDS if rng.random() < 0.4 else [str(digit) for digit in range(10)]
    text = load("facts").expand("compare_less" if less else "compare", rng, a=names[a], b=names[b])
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


_MAKERS: tuple[Callable[[random.Random], Question], ...] = (
    kind_question, kind_question, predicate_question, predicate_question, predicate_question, predicate_question,
    single_question, single_question, single_question, number_question, opposite_question, colour_question,
)  # fmt: skip


def fact_question(rng: random.Random) -> Question:
    """Return a question in sentence case with its target probability of yes."""
    text, label = rng.choice(_MAKERS)(rng)
    return sentence_case(load("facts").expand("lead", rng) + text), SURE if label else 1 - SURE


def ambiguous_question(rng: random.Random) -> Question:
    """Return a question that has no right answer, with target one half."""
    words = [entry.word for section in ("concepts", "neutral") for entry in lexicon(section).values()]
    text = Grammar({k: v for k, v in kinds().items() if isinstance(v, list)}).expand("ambiguous", rng, pref=words)
    return sentence_case(load("facts").expand("lead", rng) + text), 0.5


def asked_branch(question: Question, rng: random.Random) -> tuple[Piece, ...]:
    """Return the question as a user turn with an instruction, and the answer turn with its target."""
    text, p_yes = question
    digits = rng.random() < 0.35
    instruction = sentence_case(load("facts").expand("one_zero" if digits else "yes_no", rng))
    prefix = "" if rng.random() < 0.05 else sentence_case(load("detection").expand("prefix", rng))
    yes, no = ("1", "0") if digits else ("yes", "no")
    if not digits and (prefix == "" or prefix == "Answer:"):
        yes, no = yes.title(), no.title()
    space = " " if prefix else ""
    words = [instruction, text] if rng.random() < 0.1 else [text, instruction]
    return turn("user", " ".join(words).strip()) + answer(prefix, space + yes, space + no, p_yes)


def facts_sample(rng: random.Random, questions: int = 5) -> Sample:
    """Return a short chat, or none, that several questions continue, each on its own."""
    trunk = system_turn(rng)
    if rng.random() < 0.5:
        entry = random_entry(rng)
        trunk += turn("user", request(entry.word, rng)) + turn("assistant", about(entry, rng, 2), 1.0)
    makers = [ambiguous_question if rng.random() < 0.1 else fact_question for _ in range(questions)]
    return Sample(trunk, tuple(asked_branch(make(rng), rng) for make in makers))
