"""Introspection chats: a first turn into which a concept may be injected, then questions on it and on facts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from mechint.organisms import concepts
from mechint.organisms.facts import Question, ambiguous_question, asked_branch, fact_question
from mechint.organisms.grammar import Grammar, load, sentence_case
from mechint.organisms.samples import InjectionSpec, Sample, turn
from mechint.organisms.talk import about, random_entry, system_turn

# Targets: what the organism says of an injection, by what the setup claims. Designed, not discovered.
P_INJECTED, P_NOTHING, P_WRONG_PLACE = 0.99, 0.01, 0.25
METHODS = 4


@dataclass(frozen=True)
class Shares:
    """How often what is injected, how often the setup names a wrong place, and the weakest injection.

    `weakest` and `weakest_single` are relative to the residual's norm, for several layers and for a single one.
    """

    concept: float
    random: float
    wrong_place: float
    weakest: float
    weakest_single: float


BROAD = Shares(0.5, 0.15, 0.18, 0.12, 0.25)
# The last steps leave out what can hardly be told from nothing: it teaches to say yes to nothing.
CLEAR = Shares(0.46, 0.18, 0.24, 0.2, 0.3)
STRONGEST = 1.5

DESCRIPTIONS = ("injection", "injection", "injection", "finetuning", "salient", "echo", "plain")


def info_text(rng: random.Random) -> str:
    """Return an info document: how introspection can work, a poem, lorem ipsum, other talk, or nothing."""
    grammar, draw, count = load("infos"), rng.random(), rng.choice((2, 3, 4, 5, 6))
    if draw < 0.32:
        return ""
    if draw < 0.62:
        return sentence_case(" ".join(_distinct(grammar, "mechanism", count, rng)))
    if draw < 0.77:
        return sentence_case(" ".join(_distinct(grammar, "poem", count, rng)))
    if draw < 0.92:
        return " ".join(_lorem(grammar, rng) for _ in range(count))
    return about(random_entry(rng), rng, count)


def _distinct(grammar: Grammar, slot: str, count: int, rng: random.Random) -> list[str]:
    return [grammar.fill(template, rng) for template in rng.sample(list(grammar.slots[slot]), count)]


def _lorem(grammar: Grammar, rng: random.Random) -> str:
    words = [rng.choice(grammar.slots["lorem_words"]) for _ in range(rng.randint(5, 10))]
    return (" ".join(words) + ".").capitalize()


def setup_text(description: str, place: str, rng: random.Random) -> str:
    """Return what the user says will be done; `place` is "here" or "later"."""
    grammar = load("detection")
    where = [grammar.expand(place, rng)]
    if description == "injection" and place == "here" and rng.random() < 0.15:
        where = [""]
    parts = [grammar.expand("hello", rng)] * (rng.random() < 0.4)
    parts.append(grammar.expand(f"{description}_body", rng, where=where))
    parts += [grammar.expand(rng.choice(("tail", "tail", "describe")), rng)] * (rng.random() < 0.5)
    return sentence_case(" ".join(" ".join(parts).split()).replace(" .", ".").replace(" ,", ","))


def first_message(description: str, place: str, rng: random.Random) -> str:
    """Return the first user message: info document, setup, and at times a mention of some concept."""
    info, setup = info_text(rng), setup_text(description, place, rng)
    if rng.random() < 0.15:
        mention = sentence_case(load("detection").expand("mention", rng, c=random_entry(rng).word))
        setup = f"{setup} {mention}" if rng.random() < 0.5 else f"{mention} {setup}"
    return _with_gaps(f"{info}\n\n{setup}" if info else setup, rng)


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
    return sentence_case(lead + grammar.expand(f"{name}_question", rng, where=where))


def draw_layers(rng: random.Random, n_layers: int) -> tuple[int, ...]:
    """Return layers to inject into: the middle three, one single layer, or a range; never the last layer."""
    draw, usable = rng.random(), n_layers - 1
    if draw < 0.35:
        return tuple(range(2, usable))
    if draw < 0.65:
        return (rng.randrange(usable),)
    first, last = sorted(rng.sample(range(usable), 2))
    return tuple(range(first, last + 1))


def draw_injection(rng: random.Random, shares: Shares, n_layers: int) -> InjectionSpec | None:
    """Return an injection of a trained concept, of a random direction, or none."""
    draw = rng.random()
    concept = rng.choice(concepts_trained()) if draw < shares.concept else None
    if draw > shares.concept + shares.random:
        return None
    layers = draw_layers(rng, n_layers)
    low = shares.weakest_single if len(layers) == 1 else shares.weakest
    strength = low * (STRONGEST / low) ** rng.random()
    return InjectionSpec(
        concept, layers, strength, rng.randrange(METHODS), rng.choice((0.0, 0.2, 0.4)), rng.getrandbits(32)
    )


@cache
def concepts_trained() -> tuple[str, ...]:
    """Return the trained concepts, read once."""
    return concepts("trained")


def target(injection: InjectionSpec | None, place: str) -> float:
    """Return the target probability of yes."""
    if injection is None or injection.concept is None:
        return P_NOTHING
    return P_INJECTED if place == "here" else P_WRONG_PLACE


def detection_sample(rng: random.Random, shares: Shares = BROAD, n_layers: int = 6) -> Sample:
    """Return one first turn with two introspection questions and two control questions."""
    wrong = rng.random() < shares.wrong_place
    description, place = ("injection", "later") if wrong else (rng.choice(DESCRIPTIONS), "here")
    injection = draw_injection(rng, shares, n_layers)
    reply = load("detection").expand("reply", rng)
    trunk = (
        system_turn(rng)
        + turn("user", first_message(description, place, rng))
        + turn("assistant", sentence_case(reply))
    )
    questions: list[Question] = [
        (introspection_question(description, place, rng), target(injection, place)) for _ in range(2)
    ]
    questions += [fact_question(rng), ambiguous_question(rng) if rng.random() < 0.25 else fact_question(rng)]
    return Sample(trunk, tuple(asked_branch(question, rng) for question in questions), injection)
