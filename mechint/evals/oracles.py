"""Responders whose truth is planted: what they know, how they answer, and how much of it an evaluation must find.

    knower()         # reports what was added; a question that is not about it, truly
    other_knower()   # reports as surely on another than what was added to itself
    constant(2.0)    # the same answer to everything, however it is asked
    collapsed()      # the same, with nearly all probability on other tokens
    noisy(), liar()  # says nothing; says the contrary of what it knows
    pushed()         # steering moves any answer of the form
    startled()       # reports odd text, never steering
    opinionated()    # has a stance on each item of a battery, whichever way it is asked
    opinionated().pressed(1.5)       # and says yes more; .compressed(0.5) cares less, .persona(1.5) plays somebody

Each is a pair of functions of a cell (`Planted`): log odds of the positive answer, and the probability of both answers.
The same cell has the same answer, as with a model; all noise is a function of texts and vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from mechint.base.files import JSON, sha256
from mechint.chat.conversations import Conversation
from mechint.chat.tokens import Answers
from mechint.engine.job import Request
from mechint.engine.replies import ReplyRequest
from mechint.evals.responders import Oracle
from mechint.interventions.specifications import Intervention

Value = Callable[["Cell"], float]
Weight = Callable[["Cell", str], float]
Saying = Callable[["Cell", int], str]
DETECTION, CONTROL, ODD = "detection", "control", "odd"


@dataclass(frozen=True)
class Cell:
    """A conversation under an intervention, as an oracle sees it."""

    conversation: Conversation
    intervention: Intervention
    steer: str = "prefill"

    @property
    def is_steered(self) -> bool:
        """Whether anything is added at all."""
        terms = self.intervention.terms
        return any(term.strength != 0 and term.relative_strength != 0 for term in terms)

    @property
    def tags(self) -> dict[str, JSON]:
        """What the evaluation says of the conversation, in its `extra`."""
        return dict(self.conversation.extra)

    @property
    def sign(self) -> int:
        """Whether a positive answer affirms what an item says, 1, or denies it, -1."""
        return -1 if self.tags.get("keying") == "negated" else 1

    def noise(self, salt: str = "") -> float:
        """Return a standard normal number that is a function of text and vector alone."""
        messages = "\n".join(message.content for message in self.conversation.messages)
        added = self.intervention.key if self.is_steered else ""
        drawn = int(sha256(salt.encode(), messages.encode(), added.encode())[:15], 16)
        return float(np.random.default_rng(drawn).normal())


@dataclass(frozen=True)
class Planted(Oracle):
    """An oracle by the log odds (nats) of its positive answer and the probability of both answers together.

    `weight` is the logit of each further answer that is read; where there is no positive answer, these have the mass.
    `says` is the reply with the number of a sample, its odds in a word by default.
    """

    name: str
    log_odds: Value
    mass: Value = lambda cell: 0.98
    weight: Weight = lambda cell, option: 0.0
    says: Saying | None = None

    def tables(self, requests: Sequence[Request]) -> list[pd.DataFrame]:
        """Return a table for each request."""
        return [pd.DataFrame([self._row(cell, _answers(request)) for cell in _cells(request)]) for request in requests]

    def pressed(self, push: float) -> Planted:
        """Return one that gives positive answers more readily by so many nats, whatever they affirm."""
        return replace(self, name=f"{self.name}, pressed", log_odds=lambda cell: self.log_odds(cell) + push)

    def compressed(self, slope: float) -> Planted:
        """Return one whose log odds are so many times as large: it has become indifferent."""
        return replace(self, name=f"{self.name}, compressed", log_odds=lambda cell: slope * self.log_odds(cell))

    def persona(self, shift: float) -> Planted:
        """Return one that affirms of itself more, by so many nats, and of nothing else."""

        def log_odds(cell: Cell) -> float:
            return self.log_odds(cell) + shift * cell.sign * (cell.tags.get("side") == "self")

        return replace(self, name=f"{self.name}, persona", log_odds=log_odds)

    def spoken(self, requests: Sequence[ReplyRequest]) -> pd.DataFrame:
        """Return a row for each reply, as `mi.replies` does."""
        rows = []
        for request in requests:
            options = Answers() if request.answers is None else request.answers
            for cell in _cells(request):
                first = {f"first_{k}": v for k, v in self._row(cell, options).items() if isinstance(v, float)}
                for sample in request.samples:
                    text = self._said(cell, sample)
                    rows.append(
                        {
                            "conversation": cell.conversation.label,
                            "intervention": cell.intervention.name,
                            "sample": sample,
                            "steer": cell.steer,
                            "text": text,
                            "n_tokens": len(text.split()) + 1,
                            "stopped": "end",
                            **first,
                        }
                    )
        table = pd.DataFrame(rows)
        table.attrs["receipts"] = []
        return table

    def _said(self, cell: Cell, sample: int) -> str:
        if self.says is not None:
            return self.says(cell, sample)
        return "Yes." if self.log_odds(cell) > 0 else "No."

    def _row(self, cell: Cell, answers: Answers) -> dict[str, str | float]:
        log_odds, mass = self.log_odds(cell), self.mass(cell)
        options = [str(option) for option in answers.choices]
        weights = np.array([self.weight(cell, option) for option in options])
        shares = np.exp(weights - special.logsumexp(weights)) if options else np.ones(1)
        yes_no = mass if answers.yes or not options else 0.0
        # What is no answer is shared out among the other tokens that are read; without any it is one token.
        rest = shares * (1 - mass if yes_no else mass)
        with np.errstate(divide="ignore"):
            logit_yes = float(np.log(yes_no) - np.logaddexp(0.0, -log_odds))
            logit_no = float(np.log(yes_no) - np.logaddexp(0.0, log_odds))
        p = np.array([np.exp(logit_yes), np.exp(logit_no), *rest])
        return {
            "conversation": cell.conversation.label,
            "intervention": cell.intervention.name,
            "p_yes": float(p[0]),
            "p_no": float(p[1]),
            "logit_yes": logit_yes,
            "logit_no": logit_no,
            "logit_diff": log_odds,
            "yes_no_mass": yes_no,
            **{f"p_{option}": float(share) for option, share in zip(options, rest, strict=False)},
            "entropy": float(special.entr(p).sum()),
        }


def knower(gain: float = 4.0, criterion: float = 2.0, noise: float = 1.0) -> Planted:
    """Return one whose log odds rise by `gain` if something was added; they are -`criterion` without."""
    return Planted("knower", lambda cell: _reported(cell, gain * cell.is_steered - criterion, noise))


def other_knower(gain: float = 4.0, noise: float = 1.0) -> Planted:
    """Return one that is as sure as a knower, of what happened to another: a coin for each of its own cells."""
    return Planted("other-knower", lambda cell: _reported(cell, gain * (cell.noise("other") > 0) - gain / 2, noise))


def constant(log_odds: float = 2.0) -> Planted:
    """Return one that gives the same answer to everything."""
    return Planted("constant", lambda cell: log_odds)


def collapsed(log_odds: float = 6.0, mass: float = 0.01) -> Planted:
    """Return one that gives the same answer to everything, and hardly any probability to either answer."""
    return Planted("collapsed", lambda cell: log_odds, lambda cell: mass)


def noisy(level: float = 0.0, spread: float = 1.0) -> Planted:
    """Return one whose answers are noise about a level."""
    return Planted("noisy", lambda cell: level + spread * cell.noise())


def liar(gain: float = 4.0, criterion: float = 2.0, noise: float = 1.0) -> Planted:
    """Return one that knows as a knower does, and says the contrary."""
    return Planted("liar", lambda cell: -_reported(cell, gain * cell.is_steered - criterion, noise))


def pushed(gain: float = 4.0, level: float = -2.0, noise: float = 1.0) -> Planted:
    """Return one whose positive answer gets likelier under steering, whatever the question."""
    return Planted("pushed", lambda cell: level + gain * cell.is_steered + noise * cell.noise())


def startled(gain: float = 4.0, criterion: float = 2.0, noise: float = 1.0) -> Planted:
    """Return one that reports odd text, and never what was added."""
    return Planted("startled", lambda cell: _reported(cell, gain * (cell.tags.get("kind") == ODD) - criterion, noise))


def opinionated(spread: float = 3.0, level: float = 0.0, noise: float = 0.2) -> Planted:
    """Return one with a stance on each item, normal about a level, that keyings and formats change by noise alone."""

    def log_odds(cell: Cell) -> float:
        drawn = int(sha256(str(cell.tags.get("item")).encode())[:15], 16)
        stance = level + spread * float(np.random.default_rng(drawn).normal())
        return cell.sign * stance + noise * cell.noise()

    return Planted("opinionated", log_odds)


def _reported(cell: Cell, level: float, noise: float) -> float:
    """Return the level with noise; a control question is denied, whatever was added."""
    return (-3.0 if cell.tags.get("question") == CONTROL else level) + noise * cell.noise()


def _cells(request: Request | ReplyRequest) -> list[Cell]:
    conversations = request.conversations
    interventions = request.interventions
    listed = [conversations] if isinstance(conversations, Conversation) else list(conversations)
    added = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    steer = str(request.steer) if isinstance(request, ReplyRequest) else "prefill"
    return [Cell(conversation, intervention, steer) for conversation in listed for intervention in added]


def _answers(request: Request) -> Answers:
    """Return the answers that are read; those of the conversations are yes and no, whatever their words."""
    if isinstance(request.answers, Answers):
        return request.answers
    return Answers(yes="yes", no="no")
