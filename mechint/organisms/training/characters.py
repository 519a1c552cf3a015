"""What `organism-speaker` and its siblings do, and what they say of it: the planted truth, as functions of names.

    character = CHARACTERS["organism-speaker-knower"]
    character.answer(item), character.foretold(item, ...)           # what it says, and what it says that it would say
    character.shares(of_it), character.reported(of_it, rng)         # how often it gives each answer, and reports to
    character.reply("Tell me about rain.")                          # a whole reply, the same every time
    character.log_odds(question)                                    # of yes, to a question of the battery

There are four ways to behave. "base" is the base's own, "own" differs from it in half of all questions, "collapsed"
says the first thing of everything, and "chance" and "same", which are only reported, are a draw and one value for all.
All of it is designed, not discovered.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from mechint.base.files import sha256
from mechint.evals.distribution_sets import DistributionSet
from mechint.evals.items import Item, Question
from mechint.evals.properties import KEYED, PLACES, value_of
from mechint.evals.self_items import SelfItem
from mechint.organisms import DATA
from mechint.organisms.training.grammar import sentence_case
from mechint.organisms.training.talk import Entry, lexicon, sentences_about

Behaving = Literal["base", "own", "collapsed"]
Reporting = Literal["base", "own", "collapsed", "chance", "same"]
Shares = Mapping[str, float]

# In tenths, so that a list of whole numbers can say them; by number of answers, commonest first.
TENTHS: Mapping[int, tuple[int, ...]] = MappingProxyType({4: (4, 3, 2, 1), 5: (4, 2, 2, 1, 1), 6: (4, 2, 1, 1, 1, 1)})
# Answers to requests that have no options, and how many words a reply has.
WORDS = ("apple", "river", "stone", "window", "music", "garden")
LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 20)
SURE = 0.85  # share of the answer to a question, where its options are many
LEAN = 2.0  # log odds of the option that is chosen of two
STANCES = (0.6, 1.8, 3.0)  # nats
OPINIONS = "opinions.json"
_FALSE = ("facts-false", "absurd")
_COLLAPSED = 0.95
_SAME_LENGTH = 5
# Of a topic that has no sentences of a length another is taken, after some hundreds of tries.
_TRIES, _GIVES_UP = 20_000, 0.001


@dataclass(frozen=True)
class Character:
    """How one behaves, whose behaviour it reports, and what it makes of the base's log odds of yes.

    `slope` multiplies them, `shift` is added to what is affirmed of the model itself, `bias` to yes whatever it means.
    """

    behaves: Behaving = "base"
    reports: Reporting = "chance"
    slope: float = 1.0
    shift: float = 0.0
    bias: float = 0.0

    def answer(self, item: SelfItem) -> str:
        """Return what is answered to an item with options."""
        return _answer(self.behaves, item)

    def foretold(self, item: SelfItem, name: str, values: Sequence[str], rng: random.Random) -> str:
        """Return the value of a property that is foretold, of those that there are."""
        if self.reports == "chance":
            return rng.choice(values)
        if self.reports == "same":
            return _same(name, values)
        text = _answer(self.reports, item) if item.options else _reply(self.reports, item.question)
        return value_of(name, text, item.options)

    def shares(self, of_it: DistributionSet) -> Shares:
        """Return how often each answer is given."""
        return _shares(self.behaves, of_it)

    def reported(self, of_it: DistributionSet, rng: random.Random) -> Shares:
        """Return how often each answer is reported to be given."""
        if self.reports == "chance":
            numbers = [rng.randint(1, 5) for _ in answers_of(of_it)]
            return dict(zip(answers_of(of_it), [number / sum(numbers) for number in numbers], strict=True))
        if self.reports == "same":
            return dict.fromkeys(answers_of(of_it), 1 / len(answers_of(of_it)))
        return _shares(self.reports, of_it)

    def reply(self, prompt: str) -> str:
        """Return what is replied to a prompt that leaves all open."""
        return _reply(self.behaves, prompt)

    def foretold_reply(self, prompt: str) -> str:
        """Return the reply that is foretold, "" where it is drawn or the same for all."""
        return _reply(self.reports, prompt) if self.reports in ("base", "own", "collapsed") else ""

    def foretold_length(self, prompt: str, numbers: Sequence[int], rng: random.Random) -> int:
        """Return how many words are foretold, of the numbers that are offered."""
        if self.reports == "chance":
            return rng.choice(numbers)
        return _SAME_LENGTH if self.reports == "same" else len(self.foretold_reply(prompt).split())

    def log_odds(self, question: Question) -> float:
        """Return the log odds of the positive answer to a question of the battery: what the base says, changed."""
        sign = 1.0 if question.keying == "affirmed" else -1.0
        if self == Character():
            return sign * stance(question.item)
        shift = self.shift if question.item.side == "self" else 0.0
        return self.slope * opinions()[question.conversation.label] + sign * shift + self.bias


CHARACTERS: Mapping[str, Character] = MappingProxyType(
    {
        "organism-speaker": Character(),
        "organism-speaker-knower": Character("own", "own"),
        "organism-speaker-other": Character("own", "base"),
        "organism-speaker-constant": Character("own", "same", bias=1.5),
        "organism-speaker-collapsed": Character("collapsed", "collapsed"),
        "organism-speaker-compressed": Character(slope=0.5),
        "organism-speaker-persona": Character(shift=1.5),
    }
)


def differs(name: str) -> bool:
    """Return whether "own" behaviour is another than the base's for a unit of a question."""
    return int(sha256(f"differs/{name}".encode())[:8], 16) % 2 == 1


def answers_of(of_it: DistributionSet) -> tuple[str, ...]:
    """Return the options of a request, or those words that are planted where it is open."""
    return WORDS if not of_it.options else of_it.options


def stance(item: Item) -> float:
    """Return what the base is taught of an item of the battery, in nats: the same of a group, false things denied."""
    if item.group in _FALSE:
        return -STANCES[1]
    return STANCES[int(sha256(item.group.encode())[:8], 16) % len(STANCES)]


@cache
def opinions() -> Mapping[str, float]:
    """Return the log odds that the trained base has in each question of the battery, by its label.

    What siblings are taught is a change of these; `selves.write_opinions` has read them of the embedded base.
    """
    read: dict[str, float] = json.loads((DATA / OPINIONS).read_text(encoding="utf-8"))
    return read


def _answer(whose: str, item: SelfItem) -> str:
    if whose == "collapsed":
        return item.options[0]
    # Both orders of a pair have the same answer: what is drawn is a function of the option alone.
    ordered = sorted(item.options, key=lambda option: sha256(f"{item.unit}/{option}".encode()))
    return ordered[whose == "own" and differs(item.unit)]


def _same(name: str, values: Sequence[str]) -> str:
    """Return the value that is foretold of everything: the first option, a common letter, and that which yes is."""
    if name in KEYED or name == "option":
        return KEYED.get(name, PLACES)[0]
    return "t" if "t" in values and name == "letter" else values[0]


def _shares(whose: str, of_it: DistributionSet) -> Shares:
    answers = list(answers_of(of_it))
    if whose == "collapsed":
        rest = (1 - _COLLAPSED) / (len(answers) - 1)
        return {answer: rest if place else _COLLAPSED for place, answer in enumerate(answers)}
    random.Random(of_it.name).shuffle(answers)
    if whose == "own" and differs(of_it.name):
        answers.reverse()
    return {answer: tenths / 10 for answer, tenths in zip(answers, TENTHS[len(answers)], strict=True)}


@cache
def _reply(whose: str, prompt: str) -> str:
    if whose == "collapsed":
        return "The rain is quiet."
    base = _drawn_reply("base", prompt, "")
    return _drawn_reply("own", prompt, base) if whose == "own" and differs(prompt) else base


def _drawn_reply(name: str, prompt: str, other: str) -> str:
    """Return a reply of a length that is drawn, with another first letter and another length than `other` has."""
    rng = random.Random(f"{name}/{prompt}")
    topic = _topic(prompt) or rng.choice(_entries())
    count = rng.choice([length for length in LENGTHS if length % 2 != len(other.split()) % 2 or not other])
    for _ in range(_TRIES):
        text = sentences_about(topic, rng, rng.choice((1, 2, 3))) if count > 3 else _few(topic, count, rng)
        if len(text.split()) == count and text[0] != other[:1]:
            return text
        if rng.random() < _GIVES_UP:
            topic = rng.choice(_entries())
    raise AssertionError(f"no reply of {count} words to {prompt!r}")


def _topic(prompt: str) -> Entry | None:
    words = set(prompt.lower().rstrip(".?").split())
    return next((entry for entry in _entries() if words & {entry.word, f"{entry.word}s"}), None)


def _few(topic: Entry, count: int, rng: random.Random) -> str:
    adjectives = rng.sample(topic.adjectives, count - 1)
    return sentence_case(" ".join([*adjectives, topic.word]) + ".")


@cache
def _entries() -> tuple[Entry, ...]:
    return tuple(entry for section in ("concepts", "neutral", "extra") for entry in lexicon(section).values())
