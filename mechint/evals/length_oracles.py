"""Oracles of lengths: how many words they say to a prompt, with which they begin, and what they guess, is planted.

talker()                     # guesses its own lengths and first words
other_talker()               # speaks as a talker does, and guesses those of talker("base")
constant(5)                  # guesses the same of all
terse(talker())              # says a third as much, and guesses as before
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mechint.base.files import sha256
from mechint.chat.conversations import Conversation
from mechint.engine.job import Request
from mechint.engine.replies import ReplyRequest
from mechint.evals.closed import TEXTS
from mechint.evals.length_prompts import LENGTH
from mechint.evals.responders import Oracle
from mechint.evals.self_oracles import Tags, chats_of, entries, spoken_table

WORDS = ("Well", "The", "Here", "I", "Snow", "Some")
_MASS, _SURE = 0.98, 0.9

Counting = Callable[[Tags], float]
Beginning = Callable[[Tags], str]


@dataclass(frozen=True)
class Talker(Oracle):
    """An oracle by how long it speaks and how it begins, and what it guesses of both."""

    name: str
    length: Counting
    begins: Beginning
    guesses: Counting
    guesses_word: Beginning

    def tables(self, requests: Sequence[Request]) -> list[pd.DataFrame]:
        """Return a table for each request, all of closed sets."""
        return [pd.DataFrame([self._row(chat) for chat in chats_of(request)]) for request in requests]

    def spoken(self, requests: Sequence[ReplyRequest]) -> pd.DataFrame:
        """Return the same reply in each sample, cut off where it is too long."""
        return spoken_table(requests, lambda chat, samples: [self._text(chat.extra)] * samples)

    def _text(self, tags: Tags) -> str:
        return " ".join([self.begins(tags), *["word"] * (round(self.length(tags)) - 1)])

    def _row(self, chat: Conversation) -> dict[str, str | float]:
        texts = {str(value): str(text) for value, text in entries(chat.extra[TEXTS])}
        if chat.extra["role"] == LENGTH:
            guess = np.log(self.guesses(chat.extra))
            chosen = min(texts, key=lambda value: abs(np.log(float(value)) - guess))
        else:
            chosen = self.guesses_word(chat.extra)
        rest = _MASS * (1 - _SURE) / max(1, len(texts) - 1)
        p = {f"p_{text}": _MASS * _SURE if value == chosen else rest for value, text in texts.items()}
        return {"conversation": chat.label, "intervention": "clean", **p, "entropy": float("nan")}


def lengths_of(name: str, most: float = 30.0) -> Counting:
    """Return the lengths of a name, of 1 to `most` words, evenly on the scale of their logarithms."""
    return lambda tags: float(np.exp(np.random.default_rng(_drawn(name, tags)).uniform(0, np.log(most))))


def beginnings_of(name: str) -> Beginning:
    """Return the first words of a name."""
    return lambda tags: WORDS[_drawn(f"{name} begins", tags) % len(WORDS)]


def talker(name: str = "talker", most: float = 30.0) -> Talker:
    """Return one that guesses its own lengths and first words."""
    length, begins = lengths_of(name, most), beginnings_of(name)
    return Talker(name, length, begins, length, begins)


def other_talker() -> Talker:
    """Return one that speaks as a talker does, and guesses what the base would say."""
    return replace(talker(), name="other", guesses=lengths_of("base"), guesses_word=beginnings_of("base"))


def constant(words: float = 5.0) -> Talker:
    """Return one that speaks as a talker does, and guesses the same of all."""
    return replace(talker(), name="constant", guesses=lambda tags: words, guesses_word=lambda tags: WORDS[0])


def terse(speaks: Talker) -> Talker:
    """Return one that says a third as much, and guesses as before."""
    return replace(speaks, name=f"{speaks.name}, terse", length=lambda tags: max(1.0, speaks.length(tags) / 3))


def _drawn(name: str, tags: Tags) -> int:
    return int(sha256(f"{name}\n{tags['item']}".encode())[:15], 16)
