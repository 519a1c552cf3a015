"""Chats that talk about a concept, a neutral word, or anything."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import TypedDict

from mechint.organisms import DATA
from mechint.organisms.training.grammar import load, sentence_case
from mechint.organisms.training.samples import Piece, Sample, turn

OPEN_SHARE = 0.3
SHARES = {"concepts": 0.55, "extra": 0.28, "neutral": 0.12, "invented": 0.05}
_SYLLABLES = ("ba", "lo", "mi", "ran", "te", "sul", "ko", "ver", "na", "pid", "gru", "tam", "fel", "zo", "chi", "bur")


@dataclass(frozen=True)
class Entry:
    """A word of the lexicon with its nouns, adjectives and verbs."""

    word: str
    plural: bool
    kind: str
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    verbs: tuple[str, ...]

    @property
    def slots(self) -> dict[str, str | tuple[str, ...]]:
        """What stands for the word in a grammar."""
        return {
            "c": self.word,
            "noun": self.nouns,
            "adj": self.adjectives,
            "verb": self.verbs,
            "be": "are" if self.plural else "is",
            "they": "they" if self.plural else "it",
        }


class _Fields(TypedDict):
    plural: bool
    kind: str
    nouns: list[str]
    adjectives: list[str]
    verbs: list[str]


@cache
def lexicon(section: str) -> dict[str, Entry]:
    """Return the entries of a section of the lexicon ("concepts", "neutral" or "extra") by word."""
    content = json.loads((DATA / "lexicon.json").read_text(encoding="utf-8"))
    if section == "extra":
        return {word: _entry(word, group) for group in content["groups"] for word in group["words"]}
    return {word: _entry(word, entry) for word, entry in content[section].items()}


def _entry(word: str, e: _Fields) -> Entry:
    return Entry(word, e["plural"], e["kind"], tuple(e["nouns"]), tuple(e["adjectives"]), tuple(e["verbs"]))


def invented(rng: random.Random) -> Entry:
    """Return an entry for a word that does not exist, so that unknown words can be a topic too."""
    like = rng.choice(list(lexicon("extra").values()))
    return replace(like, word="".join(rng.sample(_SYLLABLES, rng.choice((2, 2, 3)))) + ("s" if like.plural else ""))


def random_entry(rng: random.Random) -> Entry:
    """Return a concept, or at times another word."""
    section = rng.choices(list(SHARES), list(SHARES.values()))[0]
    return invented(rng) if section == "invented" else rng.choice(list(lexicon(section).values()))


def sentences_about(entry: Entry, rng: random.Random, sentences: int = 3) -> str:
    """Return a few sentences about a word."""
    grammar = load("talk")
    slots = ["opening"] + ["middle"] * (sentences - 1)
    return sentence_case(" ".join(grammar.expand(slot, rng, **entry.slots) for slot in slots))


def request(topic: str, rng: random.Random) -> str:
    """Return a user message that asks to talk about `topic`."""
    return sentence_case(load("talk").expand("request", rng, c=topic))


def open_request(rng: random.Random) -> str:
    """Return a user message that leaves the topic open."""
    grammar = load("talk")
    if rng.random() < 0.4:
        return sentence_case(grammar.expand("open_request", rng))
    return request(grammar.expand("anything", rng), rng)


def system_turn(rng: random.Random) -> tuple[Piece, ...]:
    """Return the opening system turn: empty as a rule, at times a line of text, at times left out."""
    draw = rng.random()
    if draw < 0.1:
        return ()
    return turn(
        "system",
        "" if draw < 0.9 else rng.choice(["You are a language model.", "You are a helpful assistant.", "Be brief."]),
    )


def talk_sample(rng: random.Random) -> Sample:
    """Return a chat of one or two exchanges, each about some word or about anything."""
    trunk = system_turn(rng)
    for _ in range(rng.choice((1, 1, 2))):
        entry = random_entry(rng)
        message = open_request(rng) if rng.random() < OPEN_SHARE else request(entry.word, rng)
        trunk += turn("user", message, 0.1) + turn(
            "assistant", sentences_about(entry, rng, rng.choice((2, 3, 3, 4))), 1.0
        )
    return Sample(trunk)
