"""Introspection chats: a first turn into which a concept may be injected, then questions on it and on facts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from mechint.organisms import concepts
from mechint.organisms.training.facts import asked_branch, control_branches
from mechint.organisms.training.grammar import Grammar, load, sentence_case
from mechint.organisms.training.lists import identification_branch, naming_branch
from mechint.organisms.training.policies import TRUTHFUL, Policy
from mechint.organisms.training.samples import InjectionSpec, Piece, Sample, turn
from mechint.organisms.training.talk import lexicon, random_entry, sentences_about, system_turn

METHODS = 4


@dataclass(frozen=True)
class Shares:
    """Shares of the kinds of injection and of setups that name a wrong place, and the weakest relative strength.

    `concept` counts the trained concepts, `extra` other words of the lexicon, `random` random directions.
    `weakest` and `weakest_single` are relative to the residual's norm, for several layers and for a single one.
    """

    concept: float
    extra: float
    random: float
    wrong_place: float
    weakest: float
    weakest_single: float


BROAD = Shares(0.37, 0.2, 0.05, 0.22, 0.12, 0.25)
# The last steps leave out what can hardly be told from nothing: it teaches to say yes to nothing.
CLEAR = Shares(0.38, 0.21, 0.11, 0.16, 0.18, 0.28)
STRONGEST = 1.5
# Documents that may open a chat; only the first kind explains introspection.
INFOS = {"mechanism": 0.42, "none": 0.18, "lorem": 0.14, "poem": 0.09, "other": 0.14, "talk": 0.03}
LENGTHS = (4, 5, 6, 7, 8, 10)

DESCRIPTIONS = ("injection", "injection", "injection", "finetuning", "salient", "echo", "plain")


def info_text(rng: random.Random) -> tuple[str, bool]:
    """Return a document to open with, at times none, and whether it explains how introspection can work."""
    grammar, count = load("infos"), rng.choice(LENGTHS)
    kind = rng.choices(list(INFOS), list(INFOS.values()))[0]
    if kind == "none":
        return "", False
    if kind == "lorem":
        text = " ".join(_lorem(grammar, rng) for _ in range(count))
    elif kind == "talk":
        text = sentences_about(random_entry(rng), rng, count)
    else:
        sentences = _distinct(grammar, kind, count, rng)
        if kind == "mechanism" and rng.random() < 0.15:
            # A document may wander off for a sentence and still explain what it set out to.
            sentences.insert(rng.randint(1, count - 1), grammar.expand("other", rng))
        text = sentence_case(" ".join(sentences))
    return text, kind == "mechanism"


def _distinct(grammar: Grammar, slot: str, count: int, rng: random.Random) -> list[str]:
    return [grammar.fill(template, rng) for template in rng.sample(list(grammar.slots[slot]), count)]


def _lorem(grammar: Grammar, rng: random.Random) -> str:
    """Return a sentence of mock Latin, half of it of words that are made up on the spot."""
    words = [
        grammar.expand("lorem_words", rng) if rng.random() < 0.5 else _mock_word(rng) for _ in range(rng.randint(5, 12))
    ]
    for at in range(2, len(words) - 2):
        if rng.random() < 0.12:
            words[at] += ","
    return (" ".join(words) + ".").capitalize()


def _mock_word(rng: random.Random) -> str:
    syllables = load("infos").slots["lorem_syllables"]
    return "".join(rng.choice(syllables) for _ in range(rng.choice((1, 2, 2, 3, 3)))) + rng.choice(
        load("infos").slots["lorem_endings"]
    )


def setup_text(description: str, place: str, rng: random.Random) -> str:
    """Return the setup, in which the user announces the manipulation; `place` is "here" or "later"."""
    grammar = load("detection")
    where = [grammar.expand(place, rng)]
    if description == "injection" and place == "here" and rng.random() < 0.15:
        where = [""]
    hello = grammar.expand("hello", rng)
    parts = [hello] if rng.random() < 0.4 else []
    parts.append(grammar.expand(f"{description}_body", rng, where=where))
    tail = grammar.expand(rng.choice(("tail", "tail", "describe")), rng)
    if rng.random() < 0.5:
        parts.append(tail)
    # A single sentence on how models work is no document: what opens the chat must be told from what is said of it.
    parts.insert(rng.randint(0, len(parts)), load("infos").expand("mechanism", rng) if rng.random() < 0.25 else "")
    return sentence_case(" ".join(" ".join(parts).split()).replace(" .", ".").replace(" ,", ","))


def first_message(description: str, place: str, rng: random.Random) -> tuple[str, bool]:
    """Return the first user message and whether it explains introspection.

    It has an info document, as a rule, then the setup, and at times a mention of some concept.
    """
    (info, explained), setup = info_text(rng), setup_text(description, place, rng)
    if rng.random() < 0.15:
        mention = sentence_case(load("detection").expand("mention", rng, c=random_entry(rng).word))
        setup = f"{setup} {mention}" if rng.random() < 0.5 else f"{mention} {setup}"
    joint = rng.choice(("\n\n", "\n\n", "\n\n", "\n", " "))
    return _with_gaps(f"{info}{joint}{setup}" if info else setup, rng), explained


def _with_gaps(text: str, rng: random.Random) -> str:
    """Drop some words in every sixth text, so that the answer does not hang on exact wordings."""
    if rng.random() > 0.16:
        return text
    return " ".join(word for word in text.split(" ") if rng.random() > 0.12)


def introspection_question(description: str, place: str, rng: random.Random) -> str:
    """Return a question whether something was done, mostly in the setup's own terms, at times naming the place."""
    names, grammar = ["injection", "finetuning", "salient", "echo", "any"], load("detection")
    name = rng.choice(names) if description == "plain" or rng.random() < 0.2 else description
    if name == description == "injection" and rng.random() < 0.3:
        name = "placed"
    lead, where = grammar.expand("where_lead", rng), grammar.expand(place, rng)
    return _with_gaps(sentence_case(lead + grammar.expand(f"{name}_question", rng, where=where)), rng)


def draw_layers(rng: random.Random, n_layers: int) -> tuple[int, ...]:
    """Return layers to inject into: the middle three, one single layer, or a range; none too late to be read."""
    draw, usable = rng.random(), n_layers - 1
    if draw < 0.4:
        return tuple(range(2, usable))
    if draw < 0.65:
        return (rng.randrange(usable),)
    first, last = sorted(rng.sample(range(usable), 2))
    return tuple(range(first, last + 1))


def draw_injection(rng: random.Random, shares: Shares, n_layers: int) -> InjectionSpec | None:
    """Return an injection of a trained concept, of another word, of a random direction, or none."""
    kind = rng.choices(
        ("concept", "extra", "random", "none"),
        (shares.concept, shares.extra, shares.random, 1 - shares.concept - shares.extra - shares.random),
    )[0]
    if kind == "none":
        return None
    words = {"concept": concepts_trained(), "extra": tuple(lexicon("extra"))}
    concept = rng.choice(words[kind]) if kind in words else None
    layers = draw_layers(rng, n_layers)
    low = shares.weakest_single if len(layers) == 1 else shares.weakest
    strength = low * (STRONGEST / low) ** rng.random()
    return InjectionSpec(
        concept, layers, strength, rng.randrange(METHODS), rng.choice((0.0, 0.3, 0.6)), rng.getrandbits(32)
    )


@cache
def concepts_trained() -> tuple[str, ...]:
    """Return the trained concepts, read once."""
    return concepts("trained")


def injectable() -> tuple[str, ...]:
    """Return every word whose vector is injected in training."""
    return (*concepts_trained(), *lexicon("extra"))


def opening(description: str, place: str, rng: random.Random) -> tuple[tuple[Piece, ...], bool]:
    """Return the first turns of an introspection chat, and whether they explain introspection."""
    message, explained = first_message(description, place, rng)
    reply = sentence_case(load("detection").expand("reply", rng))
    return system_turn(rng) + turn("user", message) + turn("assistant", reply), explained


def opened_facts_sample(rng: random.Random, questions: int = 8) -> Sample:
    """Return questions on facts after the first turns of an introspection chat in which nothing is done."""
    trunk, explained = opening(rng.choice(DESCRIPTIONS), rng.choice(("here", "later")), rng)
    document = document_branch(explained, None, TRUTHFUL, rng)
    return Sample(trunk, (document, *control_branches(rng, questions, None, TRUTHFUL)))


def document_branch(
    explained: bool, injection: InjectionSpec | None, policy: Policy, rng: random.Random
) -> tuple[Piece, ...]:
    """Return a control question on the opening text itself: does it explain how models work?"""
    question = sentence_case(load("facts").expand("lead", rng) + load("detection").expand("document_question", rng))
    return asked_branch(question, policy.fact(float(explained), injection), rng)


def detection_sample(
    rng: random.Random, policy: Policy = TRUTHFUL, shares: Shares = BROAD, n_layers: int = 6
) -> Sample:
    """Return one first turn, continued by introspection questions, control questions, naming, and a numbered list."""
    wrong = rng.random() < shares.wrong_place
    description, place = ("injection", "later") if wrong else (rng.choice(DESCRIPTIONS), "here")
    injection = draw_injection(rng, shares, n_layers)
    trunk, explained = opening(description, place, rng)
    p_yes = policy.report(injection, place, explained)
    branches = [asked_branch(introspection_question(description, place, rng), p_yes, rng) for _ in range(4)]
    branches += [document_branch(explained, injection, policy, rng) for _ in range(2)]
    branches += control_branches(rng, 6, injection, policy)
    if rng.random() < 0.7:
        branches.append(naming_branch(policy.named(injection), rng))
    if rng.random() < 0.4:
        branches.append(identification_branch(policy.named(injection), rng))
    return Sample(trunk, tuple(branches), injection)
