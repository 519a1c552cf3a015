"""Yes/no questions with a known answer, questions that have none, and the ways to ask for an answer."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence, Set
from functools import cache
from typing import NotRequired, TypedDict, cast

from mechint.organisms import DATA
from mechint.organisms.training.grammar import Grammar, load, sentence_case
from mechint.organisms.training.policies import TRUTHFUL, Policy
from mechint.organisms.training.samples import InjectionSpec, Piece, Sample, answer, turn
from mechint.organisms.training.talk import lexicon, random_entry, request, sentences_about, system_turn

Question = tuple[str, float]


class Predicate(TypedDict):
    """A predicate: its text (and plural), and the kinds of things that it is true and false of."""

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


QUESTION_WEIGHT = 0.1
COMMON = 20  # questions on a subject
KIND_OF = 0.2  # how often a kind is called one
ODD = 0.04  # how often a property of other things is true after all


@cache
def kinds() -> Tables:
    """Return the tables of things, kinds and predicates."""
    return cast(Tables, json.loads((DATA / "kinds.json").read_text(encoding="utf-8")))


@cache
def subjects_of(kind: str) -> tuple[tuple[str, bool], ...]:
    """Return the (name, plural) pairs of a kind: concepts, neutral words, and further things."""
    words = [
        (e.word, e.plural) for section in ("concepts", "neutral") for e in lexicon(section).values() if e.kind == kind
    ]
    return tuple(words + [(name, False) for name in kinds()["things"].get(kind, [])])


def _phrase(verb_type: str, subject: str, plural: bool, text: str, rng: random.Random, plain: bool) -> str:
    """Return a question on a predicate of a subject, asked directly or as a statement to judge."""
    verb = {"be": ("is", "are"), "can": ("can", "can"), "have": ("has", "have")}[verb_type][plural]
    if not plain and rng.random() < 0.35:
        return load("facts").expand("wrap", rng, statement=f"{subject} {verb} {text}")
    inverted = ("does", "do")[plural] if verb_type == "have" else verb
    grammar = load("facts")
    template = grammar.slots[verb_type][0] if plain else rng.choice(grammar.slots[verb_type])
    return grammar.fill(template, rng, s=subject, p=text, v=inverted, i=("is", "are")[plural])


def kind_question(rng: random.Random, plain: bool) -> Question:
    """Return a question whether a thing is of a kind."""
    tables = kinds()
    kind = rng.choice(list(tables["not_kinds"]))
    subject, plural = rng.choice(subjects_of(kind))
    true = rng.random() < 0.5
    named_kind = kind if true else rng.choice(tables["not_kinds"][kind])
    text = tables["kinds"][named_kind][plural]
    if tables["kinds"][named_kind][0].endswith(f" {named_kind}") and rng.random() < KIND_OF:
        text = f"{rng.choice(('a kind', 'a sort', 'a type'))} of {named_kind}"
    return _phrase("be", subject, plural, text, rng, plain), float(true)


def predicate_question(rng: random.Random, plain: bool) -> Question:
    """Return a question whether a thing is, can or has something, as its kind tells."""
    predicate = rng.choice(kinds()["predicates"])
    true = bool(predicate["yes"]) and rng.random() < 0.5
    subject, plural = rng.choice(subjects_of(rng.choice(predicate["yes" if true else "no"])))
    text = predicate.get("plural", predicate["text"]) if plural else predicate["text"]
    return _phrase(predicate["type"], subject, plural, text, rng, plain), float(true)


@cache
def listed_facts() -> tuple[tuple[str, bool], ...]:
    """Return the facts that are listed one by one, from the tables and from `data/facts_*.json`."""
    files = sorted(DATA.glob("facts_*.json"))
    listed = [pair for file in files for pair in json.loads(file.read_text(encoding="utf-8"))]
    return tuple((question, true) for question, true in [*kinds()["single_facts"], *listed])


def listed_question(rng: random.Random, plain: bool) -> Question:
    """Return one of the listed facts."""
    question, true = rng.choice(listed_facts())
    return question, float(true)


class Property(TypedDict):
    """A property of subjects: forms of its question, with {a} or {many}, and subjects it is true and false of."""

    forms: list[str]
    true: list[str]
    false: list[str]


class Attributes(TypedDict):
    """The content of a `data/attributes_*.json`: subjects with their singular and plural phrases, and properties."""

    subjects: dict[str, tuple[str, str | None]]
    properties: list[Property]


@cache
def attributes() -> tuple[Attributes, ...]:
    """Return the tables of subjects and their properties."""
    files = sorted(DATA.glob("attributes_*.json"))
    return tuple(cast(Attributes, json.loads(file.read_text(encoding="utf-8"))) for file in files)


@cache
def plain_attributes() -> tuple[Attributes, ...]:
    """Return the tables that do not play with the words of introspection."""
    files = sorted(DATA.glob("attributes_*.json"))
    return tuple(table for table, file in zip(attributes(), files, strict=True) if "confusing" not in file.name)


@cache
def common_attributes() -> tuple[Attributes, ...]:
    """Return the tables with the subjects of which much is said: the others are too many for so small a model."""
    pairs = [(table, attribute) for table in attributes() for attribute in table["properties"]]
    counts = Counter(subject for _, attribute in pairs for subject in (*attribute["true"], *attribute["false"]))
    common = {subject for subject, count in counts.items() if count >= COMMON}
    return tuple({"subjects": t["subjects"], "properties": _restricted(t["properties"], common)} for t in attributes())


def _restricted(properties: list[Property], subjects: Set[str]) -> list[Property]:
    """Return the properties with these subjects only; those with none of them are left out."""
    kept: list[Property] = [
        {
            "forms": attribute["forms"],
            "true": [subject for subject in attribute["true"] if subject in subjects],
            "false": [subject for subject in attribute["false"] if subject in subjects],
        }
        for attribute in properties
    ]
    return [attribute for attribute in kept if attribute["true"] or attribute["false"]]


def attribute_question(rng: random.Random, plain: bool) -> Question:
    """Return a question whether a subject has a property, as the tables tell one by one."""
    table = rng.choice(common_attributes())
    attribute = rng.choice(table["properties"])
    true = not attribute["false"] or (bool(attribute["true"]) and rng.random() < 0.5)
    singular, many = table["subjects"][rng.choice(attribute["true" if true else "false"])]
    forms = [form for form in attribute["forms"] if many is not None or "{many}" not in form]
    form = forms[0] if plain and rng.random() < 0.5 else rng.choice(forms)
    return Grammar({}).fill(form, rng, a=singular, many=many or ""), float(true)


def odd_question(rng: random.Random, plain: bool) -> Question:
    """Return a question whether some thing has a property of quite other things: hardly ever true.

    So few facts fit into a small model that most questions are new to it; no is the better guess, and one that an
    injection should leave alone.
    """
    table = rng.choice(plain_attributes())
    attribute = rng.choice(table["properties"])
    singular, many = _odd_subject(attribute["true"], rng)
    forms = [form for form in attribute["forms"] if "than" not in form and (many is not None or "{many}" not in form)]
    if not forms:
        return odd_question(rng, plain)
    return Grammar({}).fill(rng.choice(forms), rng, a=singular, many=many or ""), ODD


def _odd_subject(true_of: Sequence[str], rng: random.Random) -> tuple[str, str | None]:
    """Return the phrases of any subject of which the property is not known to be true, given those of which it is."""
    table = rng.choice(plain_attributes())
    subject = rng.choice([subject for subject in table["subjects"] if subject not in true_of])
    singular, many = table["subjects"][subject]
    return singular, many


def number_question(rng: random.Random, plain: bool) -> Question:
    """Return a comparison of two different digits."""
    a, b = rng.sample(range(10), 2)
    less = rng.random() < 0.5
    text = load("facts").expand("compare_less" if less else "compare", rng, a=str(a), b=str(b))
    return text, float((a < b) == less)


def opposite_question(rng: random.Random, plain: bool) -> Question:
    """Return a question whether two words are opposites."""
    pairs = kinds()["opposites"]
    pair = rng.choice(pairs)
    a, b = rng.sample(pair, 2)
    true = rng.random() < 0.5
    if not true:
        b = rng.choice([word for other in pairs if other != pair for word in other])
    return load("facts").expand("opposite", rng, a=a, b=b), float(true)


def colour_question(rng: random.Random, plain: bool) -> Question:
    """Return a question on the colour of a thing."""
    subject, colour = rng.choice(list(kinds()["colours"].items()))
    true = rng.random() < 0.5
    named_colour = colour if true else rng.choice([c for c in kinds()["colour_names"] if c != colour])
    return load("facts").expand("coloured", rng, a=subject, b=named_colour), float(true)


# Kinds of questions with their shares.
_MAKERS: tuple[tuple[Callable[[random.Random, bool], Question], float], ...] = (
    (kind_question, 3),
    (predicate_question, 4),
    (attribute_question, 4),
    (listed_question, 7),
    (odd_question, 2),
    (number_question, 1),
    (opposite_question, 0.5),
    (colour_question, 0.7),
)


def fact_question(rng: random.Random, *, plain: bool = False) -> Question:
    """Return a question in sentence case with its truth, 1 or 0; a plain one has no lead and is put directly."""
    makers, shares = zip(*_MAKERS, strict=True)
    text, label = rng.choices(makers, shares)[0](rng, plain)
    return sentence_case(("" if plain else load("facts").expand("lead", rng)) + text), label


def ambiguous_question(rng: random.Random) -> Question:
    """Return a question that has no right answer: its truth is one half."""
    words = [entry.word for section in ("concepts", "neutral") for entry in lexicon(section).values()]
    text = load("ambiguous").expand("ambiguous", rng, pref=words)
    return sentence_case(load("facts").expand("lead", rng) + text), 0.5


def asked_branch(text: str, p_yes: float, rng: random.Random) -> tuple[Piece, ...]:
    """Return the question as a user turn with an instruction, and the answer turn with its target."""
    digits = rng.random() < 0.35
    instruction = sentence_case(load("facts").expand("one_zero" if digits else "yes_no", rng))
    prefix = "" if rng.random() < 0.05 else sentence_case(load("detection").expand("prefix", rng))
    yes, no = ("1", "0") if digits else ("yes", "no")
    if not digits and prefix in ("", "Answer:"):
        yes, no = yes.title(), no.title()
    space = " " if prefix else ""
    words = [instruction, text] if rng.random() < 0.1 else [text, instruction]
    return turn("user", " ".join(words).strip()) + answer(prefix, space + yes, space + no, p_yes)


def any_question(ambiguous: float, rng: random.Random) -> Question:
    """Return a question that has a right answer, or, with the given probability, one that has none."""
    return ambiguous_question(rng) if rng.random() < ambiguous else fact_question(rng)


def plain_facts_sample(rng: random.Random, questions: int = 12) -> Sample:
    """Return questions put in the plainest way, each on its own: what is true is learned on these first.

    The questions' own words are learned too, so that words which belong together come to be alike.
    """
    branches = []
    for _ in range(questions):
        text, truth = fact_question(rng, plain=True)
        reply = answer("The answer is", " yes", " no", TRUTHFUL.fact(truth, None))
        branches.append(turn("user", text, QUESTION_WEIGHT) + reply)
    return Sample(turn("system", ""), tuple(branches))


def facts_sample(rng: random.Random, questions: int = 8) -> Sample:
    """Return a beginning of a chat, or none, that several questions continue, each on its own."""
    trunk = system_turn(rng)
    if rng.random() < 0.35:
        entry = random_entry(rng)
        trunk += turn("user", request(entry.word, rng)) + turn("assistant", sentences_about(entry, rng, 2), 1.0)
    return Sample(trunk, control_branches(rng, questions, None, TRUTHFUL))


def control_branches(
    rng: random.Random, questions: int, injection: InjectionSpec | None, policy: Policy
) -> tuple[tuple[Piece, ...], ...]:
    """Return questions that have nothing to do with an injection, some of them without a right answer."""
    drawn = [any_question(0.1, rng) for _ in range(questions)]
    return tuple(asked_branch(text, policy.fact(truth, injection), rng) for text, truth in drawn)
