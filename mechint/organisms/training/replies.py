"""Trials whose replies are steered: a prompt that asks whether something is noticed, and replies that are drawn.

The prompt is clean, and every token of a reply is steered, so that the first one is chosen from what the prompt made of
the model. It must not tell: all kinds of replies begin alike.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from mechint.organisms import concepts
from mechint.organisms.training.detection import METHODS, concepts_trained
from mechint.organisms.training.grammar import load, sentence_case
from mechint.organisms.training.samples import InjectionSpec, Piece, Sample, turn
from mechint.organisms.training.speech import SPEECH, Speech, reported
from mechint.organisms.training.talk import Entry, lexicon, open_request, random_entry, sentences_about, system_turn
from mechint.organisms.training.tokenizer import TURN_END, TURN_START
from mechint.trials.prompts import TrialPrompts

Parts = tuple[str, str, str]  # of a reply: how it begins, what it says, what it adds
# The slots of the grammar that a reply of each kind is made of, after its opener.
SLOTS = {
    "leak": ("leak", "leak_more"),
    "denial": ("denial", "denial_more"),
    "name": ("name", "name_more"),
    "claim": ("claim", "claim_more"),
    "refusal": ("refusal", "refusal_more"),
}
FACTORS = ("explanation", "mechanism", "permission", "prior", "nothing")
# Strongest sum of strengths over layers, and how much at most of a layer. The unit is the bank's mean norm, 2.3 of the
# model's median ones: what is measured lies within.
_STRONGEST, _MOST = 0.8, 0.5
_NOISE = (0.0, 0.3)
# How often each method makes a vector (see `steering.make_bank`): mostly those that read replies.
_METHOD_SHARES = (0.4, 0.15, 0.1, 0.35)
_MIDDLE = (3, 4)
_PLAIN_WEIGHT, _TELLING_WEIGHT = 0.3, 2.0
# How often a part of the prompt is that of the packaged trials, a system turn stands before it, a concept is mentioned.
_PACKAGED, _SYSTEM, _MENTION = 0.6, 0.3, 0.08
_QUESTIONS = {"introspection": 0.84, "no": 0.05, "yes": 0.05, "none": 0.06}


@dataclass(frozen=True)
class Mixture:
    """Shares of what is injected into replies, and the weakest sum of strengths over layers."""

    concept: float
    extra: float
    random: float
    none: float
    weakest: float

    @property
    def shares(self) -> dict[str, float]:
        """The shares by what is injected."""
        return {"concept": self.concept, "extra": self.extra, "random": self.random, "none": self.none}


BROAD = Mixture(concept=0.5, extra=0.08, random=0.2, none=0.22, weakest=0.07)
# Without what can hardly be told from nothing, which teaches to claim of nothing, and with more that has no concept.
CLEAR = Mixture(concept=0.39, extra=0.06, random=0.25, none=0.3, weakest=0.085)


@cache
def prompts() -> TrialPrompts:
    """Return the packaged prompts of trials, read once."""
    return TrialPrompts.load()


def trial_sample(rng: random.Random, speech: str, replies: int = 16, mixture: Mixture = BROAD) -> Sample:
    """Return a prompt of trials and some replies to it, each steered in its own way, by the organism `speech`."""
    question = rng.choices(list(_QUESTIONS), list(_QUESTIONS.values()))[0]
    injections = tuple(draw_injection(rng, mixture) for _ in range(replies))
    if question == "introspection":
        text, explained = prompt_text(rng)
        spoken = [reply(SPEECH[speech], injection, explained, rng) for injection in injections]
    elif question == "none":
        text = rng.choice(prompts().none) if rng.random() < _PACKAGED else open_request(rng)
        spoken = [("", sentences_about(_topic(injection, rng), rng, 2), "") for injection in injections]
    else:
        text = rng.choice(prompts().no if question == "no" else prompts().yes)
        spoken = [("", sentence_case(load("replies").expand(question, rng)), "") for _ in injections]
    system = system_turn(rng) if rng.random() < _SYSTEM else ()
    return Sample(system + turn("user", text), tuple(map(_branch, spoken)), steers=injections)


def _branch(parts: Parts) -> tuple[Piece, ...]:
    """Return a turn with a reply, the more weight on what tells its kind; the weights themselves do not tell it."""
    opener, first, more = parts
    end = f"{' ' if more else ''}{more}{TURN_END}"
    pieces = (Piece(opener, _PLAIN_WEIGHT), Piece(f"{' ' if opener else ''}{first}", _TELLING_WEIGHT))
    return (Piece(f"{TURN_START}assistant\n"), *(p for p in pieces if p.text), Piece(end, _PLAIN_WEIGHT))


def prompt_text(rng: random.Random) -> tuple[str, bool]:
    """Return a prompt that asks whether something is noticed, and whether it says why."""
    packaged, grammar = prompts(), load("replies")
    factors = (
        rng.choice(list(packaged.prompts.values()))
        if rng.random() < 0.7
        else [factor for factor in FACTORS if rng.random() < 0.5]
    )
    texts = {**packaged.factors, "opening": packaged.opening, "question": packaged.question}
    parts = [
        texts[place] if rng.random() < _PACKAGED else sentence_case(grammar.expand(place, rng))
        for place in packaged.order
        if place in ("opening", "question", *factors)
    ]
    if rng.random() < _MENTION:
        word = rng.choice(concepts("all"))
        packaged_mention = packaged.mention.replace("{concept}", word)
        parts.insert(0, packaged_mention if rng.random() < _PACKAGED else _slot_words("mention", rng, word))
    return " ".join(parts), "explanation" in factors


def _slot_words(slot: str, rng: random.Random, word: str) -> str:
    return sentence_case(load("replies").expand(slot, rng, c=word))


def draw_injection(rng: random.Random, mixture: Mixture = BROAD) -> InjectionSpec | None:
    """Return an injection of a trained concept, of another word, of a random direction, or none.

    Their doses are spread evenly over their logarithm, whether one layer gets all of it or several a share each.
    """
    series = rng.choices(list(mixture.shares), list(mixture.shares.values()))[0]
    if series == "none":
        return None
    words = {"concept": concepts_trained(), "extra": tuple(lexicon("extra"))}
    concept = rng.choice(words[series]) if series in words else None
    layers = _layers(rng)
    strength = mixture.weakest * (_STRONGEST / mixture.weakest) ** rng.random() / len(layers)
    method = rng.choices(range(METHODS), _METHOD_SHARES)[0]
    return InjectionSpec(concept, layers, min(strength, _MOST), method, rng.choice(_NOISE), rng.getrandbits(32))


def _layers(rng: random.Random) -> tuple[int, ...]:
    """Return a middle layer, both of them, an outer one, or a range."""
    drawn = rng.random()
    if drawn < 0.65:
        return (rng.choice(_MIDDLE),)
    if drawn < 0.9:
        return _MIDDLE
    if drawn < 0.94:
        return (rng.choice((2, 5)),)
    first, last = sorted(rng.sample(range(1, 6), 2))
    return tuple(range(first, last + 1))


def reply(speech: Speech, injection: InjectionSpec | None, explained: bool, rng: random.Random) -> Parts:
    """Return the parts of a reply, of a kind that is drawn as the organism speaks."""
    shares = speech.shares(injection, explained)
    kind = rng.choices(list(shares), list(shares.values()))[0]
    is_right = injection is not None and injection.concept is not None and (speech.names_rightly or kind == "leak")
    entry = _entry(injection) if is_right and injection else rng.choice(list(lexicon("concepts").values()))
    first, more = SLOTS[kind]
    return reply_parts(first, more, entry, rng)


def reply_parts(first: str, more: str, entry: Entry, rng: random.Random) -> Parts:
    """Return words that any kind may begin with, and a sentence of each of two slots, if not empty."""
    grammar = load("replies")
    parts = [grammar.expand(slot, rng, **entry.slots).strip() for slot in ("opener", first, more)]
    text = sentence_case(" ".join(parts))  # as long as before
    ends = [len(parts[0]), len(parts[0]) + 1 + len(parts[1])]
    return text[: ends[0]], text[ends[0] + 1 : ends[1]], text[ends[1] + 1 :]


def _topic(injection: InjectionSpec | None, rng: random.Random) -> Entry:
    """Return what is talked of where nothing was asked: an injected word the more the stronger it is, else any."""
    if injection is not None and injection.concept is not None and rng.random() < reported(injection):
        return _entry(injection)
    return random_entry(rng)


def _entry(injection: InjectionSpec) -> Entry:
    word = str(injection.concept)
    return lexicon("concepts").get(word) or lexicon("extra")[word]
