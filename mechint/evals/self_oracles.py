"""Oracles that answer and foretell: what they know of their own answers is planted.

    speaker("base")              # answers, and foretells just that
    knower()                     # answers otherwise than the base to half of the items, and foretells its own
    other_knower()               # answers so too, and foretells the base's
    constant(), collapsed()      # foretells one value for everything; answers so, too
    noisy(), liar()              # foretells anything, or anything but its own

Answers are functions of a name and of the item: two oracles of one name answer alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mechint.base.files import JSON, sha256
from mechint.chat.conversations import Conversation
from mechint.engine.job import Request
from mechint.engine.replies import ReplyRequest
from mechint.evals.closed import TEXTS
from mechint.evals.properties import value_of
from mechint.evals.responders import Oracle
from mechint.evals.self_items import OBJECT
from mechint.interventions.specifications import CLEAN

Tags = Mapping[str, JSON]
Answering = Callable[[Tags], str]  # the answer to an item: one of its options, or a reply
Foretelling = Callable[[Tags, Sequence[str]], str]  # the value that is foretold, of those that there are
WORDS = ("apples", "over", "the", "night", "every", "old", "road", "under", "rain", "is", "quiet", "and", "small")


@dataclass(frozen=True)
class Speaker(Oracle):
    """An oracle by what it answers and what it foretells; `sure` is the probability of either among the options."""

    name: str
    answers: Answering
    foretells: Foretelling
    sure: float = 0.9
    mass: float = 0.98

    def tables(self, requests: Sequence[Request]) -> list[pd.DataFrame]:
        """Return a table for each request, all of closed sets."""
        return [pd.DataFrame([self._row(chat) for chat in chats_of(request)]) for request in requests]

    def spoken(self, requests: Sequence[ReplyRequest]) -> pd.DataFrame:
        """Return the same reply in each sample."""
        return spoken_table(requests, lambda chat, samples: [self.answers(chat.extra)] * samples)

    def _row(self, chat: Conversation) -> dict[str, str | float]:
        texts = {str(value): str(text) for value, text in entries(chat.extra[TEXTS])}
        values = list(texts)
        is_object = chat.extra["role"] == OBJECT
        chosen = self.answers(chat.extra) if is_object else self.foretells(chat.extra, values)
        sure = self.sure if len(values) > 1 else 1.0
        rest = self.mass * (1 - sure) / max(1, len(values) - 1)
        p = {f"p_{text}": self.mass * sure if value == chosen else rest for value, text in texts.items()}
        return {"conversation": chat.label, "intervention": "clean", **p, "entropy": float("nan")}


def answered_by(name: str) -> Answering:
    """Return the answers of a name: to both orders of a pair the same option."""

    def answer(tags: Tags) -> str:
        options = [str(option) for option in members(tags["options"])]
        if options:
            return min(options, key=lambda option: _drawn(name, tags, option))
        rng = np.random.default_rng(_drawn(name, tags))
        return " ".join(rng.permutation(WORDS)[: 2 + int(rng.integers(8))])

    return answer


def drifted(name: str, source: str = "base", share: float = 0.5) -> Answering:
    """Return answers that are those of `source` but for a share of units."""
    new, old = answered_by(name), answered_by(source)
    return lambda tags: new(tags) if _drawn(f"{name} drifts", tags) < share * 16**15 else old(tags)


def foretold_from(answers: Answering) -> Foretelling:
    """Return what is foretold by one that knows these answers."""
    return lambda tags, values: value_of(str(tags["property"]), answers(tags), _options(tags))


def speaker(name: str) -> Speaker:
    """Return one that foretells just what it answers."""
    return Speaker(name, answered_by(name), foretold_from(answered_by(name)))


def knower(share: float = 0.5) -> Speaker:
    """Return one that answers otherwise than `speaker("base")` to a share of the units, and foretells its own."""
    own = drifted("knower", share=share)
    return Speaker("knower", own, foretold_from(own))


def other_knower(share: float = 0.5) -> Speaker:
    """Return one that answers as a knower does, and foretells what the base would answer."""
    return Speaker("other-knower", drifted("knower", share=share), foretold_from(answered_by("base")))


def constant() -> Speaker:
    """Return one that answers as a knower does, and foretells the same value for every answer."""
    return Speaker("constant", drifted("knower"), lambda tags, values: values[-1])


def collapsed() -> Speaker:
    """Return one that has one answer for everything, and foretells it."""

    def answer(tags: Tags) -> str:
        return _options(tags)[0] if _options(tags) else WORDS[0]

    return Speaker("collapsed", answer, foretold_from(answer))


def noisy() -> Speaker:
    """Return one that answers as a knower does, and foretells anything."""
    return Speaker("noisy", drifted("knower"), _anything)


def liar() -> Speaker:
    """Return one that knows its own answers, and foretells another value."""
    own = drifted("knower")

    def foretell(tags: Tags, values: Sequence[str]) -> str:
        truth = foretold_from(own)(tags, values)
        return _anything(tags, [value for value in values if value != truth] or values)

    return Speaker("liar", own, foretell)


def mute(speaks: Speaker) -> Speaker:
    """Return one with hardly any probability on the answers that it is offered."""
    return replace(speaks, name=f"{speaks.name}, mute", mass=0.01)


def _anything(tags: Tags, values: Sequence[str]) -> str:
    return values[_drawn("noise", tags, str(tags["item"]), str(tags["property"])) % len(values)]


def _drawn(name: str, tags: Tags, *more: str) -> int:
    """Return a whole number below 16 ** 15 that is a function of a name and a unit."""
    return int(sha256("\n".join([name, str(tags["unit"]), *more]).encode())[:15], 16)


def _options(tags: Tags) -> list[str]:
    return [str(option) for option in members(tags["options"])]


def spoken_table(requests: Sequence[ReplyRequest], texts: Callable[[Conversation, int], Sequence[str]]) -> pd.DataFrame:
    """Return a row for each reply to some requests, with the columns of `mi.generate`, by the texts of each chat.

    Words are tokens; a reply with more than may be said is cut off.
    """
    rows = [
        {"conversation": chat.label, "intervention": CLEAN.name, "sample": sample, "steer": str(request.steer)}
        | _cut_off(text, request.max_new_tokens)
        for request in requests
        for chat in chats_of(request)
        for sample, text in zip(request.samples, texts(chat, len(request.samples)), strict=True)
    ]
    table = pd.DataFrame(rows)
    table.attrs["receipts"] = []
    return table


def _cut_off(text: str, most: int) -> dict[str, str | int | float]:
    words = text.split()
    ends = len(words) < most
    start = text if ends else " ".join(words[:most])
    return {"text": start, "n_tokens": min(len(words) + 1, most), "stopped": "end" if ends else "length"}


def members(data: JSON) -> list[JSON]:
    """Return the members of a list among the tags, none where it is no list."""
    return data if isinstance(data, list) else []


def entries(data: JSON) -> list[tuple[str, JSON]]:
    """Return the entries of an object among the tags, none where it is no object."""
    return list(data.items()) if isinstance(data, dict) else []


def chats_of(request: Request | ReplyRequest) -> list[Conversation]:
    """Return the conversations of a request."""
    conversations = request.conversations
    return [conversations] if isinstance(conversations, Conversation) else list(conversations)
