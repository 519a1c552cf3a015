"""Oracles of self-calibration: how often they give each answer, and what they report of it, is planted.

    reporter()                   # reports what it does
    other_reporter()             # reports what another does, reporter("base")
    constant(), noisy(), liar()  # reports the same of all, anything, or the contrary
    collapsed()                  # gives one answer alone, and reports just that
    wordless()                   # writes no list at all, and knows in forced choices

Distributions are functions of a name and of the request, normal log odds softened to probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mechint.base.files import sha256
from mechint.chat.conversations import Conversation
from mechint.engine.job import Request
from mechint.engine.replies import ReplyRequest
from mechint.evals.closed import TEXTS
from mechint.evals.distribution_sets import OBJECT, REPORT
from mechint.evals.responders import Oracle
from mechint.evals.self_oracles import Tags, chats_of, entries, members, spoken_table

Shares = Mapping[str, float]
Distributing = Callable[[Tags], Shares]
OPEN = ("apple", "river", "stone", "window", "music", "garden")  # answers to open requests
_SPREAD = 1.5  # of log odds, nats


@dataclass(frozen=True)
class Reporter(Oracle):
    """An oracle by what it does and what it reports; `heading` is text before its lists, and `line` one of them."""

    name: str
    does: Distributing
    reports: Distributing
    heading: str = ""
    line: str = "{answer}: {share:.1f}%"
    mass: float = 0.98

    def tables(self, requests: Sequence[Request]) -> list[pd.DataFrame]:
        """Return a table for each request, all of closed sets."""
        return [pd.DataFrame([self._row(chat) for chat in chats_of(request)]) for request in requests]

    def spoken(self, requests: Sequence[ReplyRequest]) -> pd.DataFrame:
        """Return lists to questions on it, and answers to open requests that come as often as they are to."""
        return spoken_table(requests, self._texts)

    def _texts(self, chat: Conversation, samples: int) -> list[str]:
        if chat.extra["role"] == REPORT:
            shares = self.reports(chat.extra)
            ordered = sorted(shares, key=lambda answer: -shares[answer])
            lines = [self.line.format(answer=answer, share=100 * shares[answer]) for answer in ordered]
            return ["\n".join([self.heading, *lines] if self.heading else lines)] * samples
        shares = self.does(chat.extra)
        # As often as is to be, to the nearest whole number: no chance in what is planted.
        ends = np.round(np.cumsum(list(shares.values())) * samples).astype(int)
        counts = np.diff(ends, prepend=0)
        return [answer for answer, count in zip(shares, counts, strict=True) for _ in range(count)]

    def _row(self, chat: Conversation) -> dict[str, str | float]:
        texts = [str(text) for _, text in entries(chat.extra[TEXTS])]
        shares = self.does(chat.extra) if chat.extra["role"] == OBJECT else self.reports(chat.extra)
        weights = np.array([shares.get(text.strip(), 0.0) for text in texts]) + 1e-9
        p = self.mass * weights / weights.sum()
        columns = {f"p_{text}": float(value) for text, value in zip(texts, p, strict=True)}
        return {"conversation": chat.label, "intervention": "clean", **columns, "entropy": float("nan")}


def shares_of(name: str) -> Distributing:
    """Return the distributions of a name."""

    def shares(tags: Tags) -> Shares:
        answers = [str(option) for option in members(tags["options"])] or list(OPEN)
        drawn = int(sha256(f"{name}\n{tags['prompt']}".encode())[:15], 16)
        weights = np.exp(np.random.default_rng(drawn).normal(0, _SPREAD, len(answers)))
        return dict(zip(answers, (weights / weights.sum()).tolist(), strict=True))

    return shares


def reporter(name: str = "reporter") -> Reporter:
    """Return one that reports what it does."""
    return Reporter(name, shares_of(name), shares_of(name))


def other_reporter() -> Reporter:
    """Return one that does as a reporter does, and reports what the base does."""
    return Reporter("other-reporter", shares_of("reporter"), shares_of("base"))


def constant() -> Reporter:
    """Return one that reports all answers to be as common."""
    return Reporter("constant", shares_of("reporter"), lambda tags: dict.fromkeys(shares_of("")(tags), 1.0))


def noisy() -> Reporter:
    """Return one that reports anything."""
    return Reporter("noisy", shares_of("reporter"), shares_of("noise"))


def liar() -> Reporter:
    """Return one that reports of its commonest answer what is true of its rarest, and so on."""
    shares = shares_of("reporter")

    def contrary(tags: Tags) -> Shares:
        own = shares(tags)
        ordered = sorted(own, key=lambda answer: own[answer])
        return dict(zip(ordered, sorted(own.values(), reverse=True), strict=True))

    return Reporter("liar", shares, contrary)


def collapsed() -> Reporter:
    """Return one that gives one answer alone, and reports that, and another with nothing."""

    def single(tags: Tags) -> Shares:
        answers = list(shares_of("")(tags))
        return {answer: float(answer == answers[0]) for answer in answers}

    return Reporter("collapsed", single, single)


def wordless() -> Reporter:
    """Return one whose lists cannot be read."""
    return replace(reporter(), name="wordless", line="{answer}, I would say")
