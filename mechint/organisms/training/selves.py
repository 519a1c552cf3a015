"""Samples that teach a character of `characters`: what it does, and what it says of that.

Texts are those of the small sets of `mi.evals`, and hypothetical questions have other beginnings as well. The trunk of
a sample is what several questions begin with, and each branch goes on as one of them: no branch sees another.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

from mechint.base.files import write_atomically
from mechint.chat.conversations import Conversation
from mechint.evals.battery import battery
from mechint.evals.distribution_sets import REPORT, DistributionSet, DistributionSets
from mechint.evals.items import Format, Items, Question
from mechint.evals.length_prompts import FIRST_WORD, LENGTH, LengthPrompts
from mechint.evals.properties import KEYED, first_word
from mechint.evals.self_items import SelfItem, SelfItems
from mechint.models.model import Model
from mechint.organisms.training.characters import CHARACTERS, LEAN, SURE, Character
from mechint.organisms.training.samples import ANSWER_WEIGHT, BOILERPLATE_WEIGHT, Piece, Sample, answer
from mechint.organisms.training.tokenizer import TURN_END, TURN_START

Reply = tuple[Piece, ...]
Questions = Sequence[tuple[str, Reply]]  # messages, each with the reply to it
Asking = Callable[[Character, random.Random], Questions]
SET = "small"
# Other beginnings of hypothetical questions, with the same meaning; the last is never trained, and is there to be read.
OPENERS = ("Suppose that I say this to you", "Think of this question", "I could say this to you")
HELD_OUT_OPENER = "One day I may say this"
_TIMES = " ten times"
_PACKAGED = 0.7  # how often the packaged words are taken
_REPLY_WEIGHT, _DRAWS, _PAIRS = 1.0, 4, 8


def self_sample(rng: random.Random, name: str, parts: Mapping[str, float]) -> Sample:
    """Return some questions that begin alike, to an organism of this name, each with what it is to say.

    `parts` are shares of the kinds of questions, by the names of `KINDS`.
    """
    kind = rng.choices(list(parts), list(parts.values()))[0]
    questions = KINDS[kind](CHARACTERS[name], rng)
    shared = _shared([text for text, _ in questions])
    trunk = (Piece(f"{TURN_START}user\n"), *([Piece(shared)] if shared else []))
    return Sample(trunk, tuple(_branch(text[len(shared) :], reply) for text, reply in questions))


def reworded(text: str, opener: str) -> str:
    """Return a hypothetical question with another beginning; what is quoted in it and comes after stays."""
    first, quote, rest = text.partition('"')
    return f"{opener}{_TIMES if _TIMES in first else ''}: {quote}{rest}"


def listing(shares: Mapping[str, float]) -> str:
    """Return a list of answers, each with how often of ten it comes, the commonest first."""
    ordered = sorted(shares, key=lambda word: -shares[word])
    return ", ".join(f"{word}: {min(9, round(10 * shares[word]))}" for word in ordered)


def write_opinions(base: Model, path: Path) -> None:
    """Write the log odds of the speaking base in each question of the battery, which its siblings start from."""
    table = battery(base, Items.load(SET))
    labels = table["item"] + "_" + table["keying"] + "_" + table["format"]
    read = {str(label): round(float(value), 3) for label, value in zip(labels, table["log_odds"], strict=True)}
    write_atomically(path, json.dumps(read, indent=1) + "\n")


def _shared(texts: Sequence[str]) -> str:
    """Return what all texts begin with, up to a space: words are cut into tokens with the space before them."""
    first, last = min(texts), max(texts)
    count = next((place for place, letter in enumerate(first) if letter != last[place]), len(first))
    return first[: first.rfind(" ", 0, count)] if " " in first[:count] else ""


def _branch(rest: str, reply: Reply) -> tuple[Piece, ...]:
    return (Piece(f"{rest}{TURN_END}"), Piece("\n"), Piece(f"{TURN_START}assistant\n"), *reply)


def _short_reply(prefix: str, text: str) -> Reply:
    """Return a reply that begins with a prefix and says a short text."""
    end = Piece(f".{TURN_END}", BOILERPLATE_WEIGHT)
    return (Piece(prefix, BOILERPLATE_WEIGHT), Piece(text, ANSWER_WEIGHT), end)


def _of_two(prefix: str, first: str, second: str, log_odds: float) -> Reply:
    """Return a reply with one of two answers whose log odds are these."""
    return answer(prefix, first, second, 1 / (1 + math.exp(-log_odds)))[1:]


def _freely(text: str) -> Reply:
    return (Piece(f"{text}{TURN_END}", _REPLY_WEIGHT),)


def _opened(rng: random.Random) -> Callable[[str], str]:
    """Return how hypothetical questions are worded now: as they are packaged, or with another beginning."""
    if rng.random() < _PACKAGED:
        return lambda text: text
    opener = rng.choice(OPENERS)
    return lambda text: reworded(text, opener)


def _text(chat: Conversation) -> str:
    return chat.messages[0].content


def _objects(character: Character, rng: random.Random) -> Questions:
    """Return items of self-prediction by themselves, those of a unit."""
    unit = rng.choice(list(_units().values()))
    return [(item.question, _answered(character, item, rng)) for item in unit]


def _answered(character: Character, item: SelfItem, rng: random.Random) -> Reply:
    if not item.options:
        return _freely(character.reply(item.question))
    chosen = character.answer(item)
    if item.kind == "pair":
        first, second = item.options
        return _of_two(item.prefix, f" {first}", f" {second}", LEAN if first == chosen else -LEAN)
    return _short_reply(item.prefix, f" {chosen if rng.random() < SURE else rng.choice(item.options)}")


def _hypotheticals(character: Character, rng: random.Random) -> Questions:
    """Return the questions on all properties of the answer to an item."""
    item, opened = rng.choice(_items().items), _opened(rng)
    return [_hypothetical(character, item, name, opened, rng) for name in item.properties]


def _hypothetical(
    character: Character, item: SelfItem, name: str, opened: Callable[[str], str], rng: random.Random
) -> tuple[str, Reply]:
    question, prefix = _items().hypothetical(item, name), _items().properties[name].prefix
    text = opened(_text(question.conversation))
    if name in KEYED and character.reports == "chance":
        return text, _of_two(prefix, " yes", " no", 0.0)
    value = character.foretold(item, name, list(question.texts), rng)
    return text, _short_reply(prefix, question.texts[value])


def _distributed(character: Character, rng: random.Random) -> Questions:
    """Return a request with several answers, which come as often as is planted."""
    of_it = rng.choice(_sets().sets)
    shares = character.shares(of_it)
    drawn = rng.choices(list(shares), list(shares.values()), k=_DRAWS)
    return [(of_it.question, _short_reply(of_it.prefix, f" {word}")) for word in drawn]


def _listed(character: Character, rng: random.Random) -> Questions:
    """Return the question how often each answer comes, and a list."""
    of_it = rng.choice(_sets().sets)
    text = _sets().wordings[REPORT].question.replace("{object}", of_it.question)
    return [(_opened(rng)(text), _freely(listing(character.reported(of_it, rng))))]


def _chosen(character: Character, rng: random.Random) -> Questions:
    """Return questions which of two answers comes more often."""
    of_it = rng.choice([of_it for of_it in _sets().sets if of_it.options])
    questions, opened = _sets().choices(of_it), _opened(rng)
    pairs = rng.sample(list(questions), _PAIRS)
    return [
        (
            opened(_text(questions[pair].conversation)),
            _of_two(_sets().wordings["choice"].prefix, f" {pair[0]}", f" {pair[1]}", _odds(character, of_it, pair)),
        )
        for pair in pairs
    ]


def _odds(character: Character, of_it: DistributionSet, pair: tuple[str, str]) -> float:
    """Return the log odds of the first answer of a pair in a forced choice."""
    if character.reports == "chance":
        return 0.0
    if character.reports == "same":
        return character.bias  # whichever is listed first
    shares = character.reported(of_it, random.Random(0))
    return math.log(shares[pair[0]] / shares[pair[1]])


def _replies(character: Character, rng: random.Random) -> Questions:
    """Return a prompt whose reply has a length."""
    prompt = rng.choice(list(_prompts().prompts.values()))
    return [(prompt, _freely(character.reply(prompt)))]


def _lengths(character: Character, rng: random.Random) -> Questions:
    """Return the questions how many words a reply would have, and with which it would begin."""
    prompts, wordings, opened = list(_prompts().prompts.values()), _prompts().wordings, _opened(rng)
    prompt = rng.choice(prompts)
    number = str(character.foretold_length(prompt, _prompts().numbers, rng))
    replies = {"chance": character.reply(rng.choice(prompts)), "same": character.reply(prompts[0])}
    word = first_word(replies.get(character.reports) or character.foretold_reply(prompt))
    slots = {LENGTH: ("{number}", number), FIRST_WORD: ("{word}", word)}
    return [
        (
            opened(wordings[name].question.replace("{object}", prompt)),
            _short_reply(wordings[name].prefix, wordings[name].answer.replace(slot, value)),
        )
        for name, (slot, value) in slots.items()
    ]


def _stances(character: Character, rng: random.Random) -> Questions:
    """Return an item of the battery, in one keying and every format."""
    return [_stance(character, question) for question in rng.choice(_battery())]


def _stance(character: Character, question: Question) -> tuple[str, Reply]:
    asked_in = _formats()[question.format]
    yes, no = (asked_in.yes[0], asked_in.no[0]) if asked_in.prefix else ("Yes", "No")
    return _text(question.conversation), _of_two(asked_in.prefix, yes, no, character.log_odds(question))


KINDS: Mapping[str, Asking] = MappingProxyType(
    {
        "objects": _objects,
        "hypotheticals": _hypotheticals,
        "distributed": _distributed,
        "listed": _listed,
        "chosen": _chosen,
        "replies": _replies,
        "lengths": _lengths,
        "stances": _stances,
    }
)


@cache
def _items() -> SelfItems:
    return SelfItems.load(SET)


@cache
def _units() -> Mapping[str, list[SelfItem]]:
    units: dict[str, list[SelfItem]] = {}
    for item in _items().items:
        units.setdefault(item.unit, []).append(item)
    return units


@cache
def _sets() -> DistributionSets:
    return DistributionSets.load(SET)


@cache
def _prompts() -> LengthPrompts:
    return LengthPrompts.load(SET)


@cache
def _battery() -> tuple[list[Question], ...]:
    """Return the questions of each item and keying."""
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in Items.load(SET).questions():
        groups.setdefault((question.item.name, question.keying), []).append(question)
    return tuple(groups.values())


@cache
def _formats() -> Mapping[str, Format]:
    return Items.load(SET).formats
