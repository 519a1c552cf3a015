"""Texts of detection trials: distinct ones, held out from training or not, odd or long, and a control question each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mechint.base.errors import UsageError
from mechint.base.files import JSON
from mechint.chat.conversations import Conversation
from mechint.finetune.consistency import KEY_SLOTS
from mechint.finetune.examples import TextExample, example
from mechint.finetune.pools import Pools, Split
from mechint.finetune.sampling import generator
from mechint.finetune.specification import Recipe

TEXT_FACTORS = ("openers", "replies", "wordings")
OWN, CONTROL = "own", "control"
_TRIES = 50  # times as many examples as texts are drawn, before there are taken to be no more


@dataclass(frozen=True)
class Text:
    """A text of a pool: its two conversations, which share their first turns, and the question of each.

    `unit` names what it is a text of: an odd or long one is of the same unit as the text that it was made from.
    """

    number: int
    pool: str
    unit: str
    source: TextExample
    control: str

    def label(self, question: str) -> str:
        """Return the name of the conversation with a question, by which rows are told apart."""
        return f"{self.pool}-{self.number:03d}-{question}"

    def conversation(self, question: str = OWN) -> Conversation:
        """Return the text with its own question, or with its control question; its yes_token is the positive answer."""
        source = self.source if question == OWN else replace(self.source, question=self.control)
        tags: dict[str, JSON] = {"kind": self.pool, "question": question, "text": self.number}
        return replace(source.conversation(), label=self.label(question), extra=tags)


def distinct_texts(
    recipe: Recipe, count: int, seed: int, pool: str, controls: Sequence[str], split: Split = "held_out"
) -> list[Text]:
    """Return so many texts of which no two are alike; of the split "train" they are examples of training.

    `controls` are banks of keyed questions, one for each text in turn. Raises UsageError where there are fewer texts.
    """
    questions = [text for bank in controls for text in _keyed(recipe.pools, bank)]
    order = generator(seed, "controls", 0, 0).permutation(len(questions))
    held_out = () if split == "train" else TEXT_FACTORS
    drawn: dict[tuple[str, str, str], TextExample] = {}
    for at in range(_TRIES * count):
        step, index = divmod(at, recipe.budget.rows)
        source = example(recipe, seed, step, index, held_out, split if held_out else "held_out")
        drawn.setdefault(source.prompt, source)
        if len(drawn) == count:
            break
    else:
        raise UsageError(
            given=f"{count} distinct texts of {recipe.name!r} ({split}), of which there seem to be {len(drawn)}",
            allowed="as many as its openers, replies and wordings make",
            advice="ask for fewer, or give the pools more",
        )
    return [
        Text(number, pool, f"{pool}-{number:03d}", source, _filled(questions[order[number % len(order)]], source))
        for number, source in enumerate(drawn.values())
    ]


def odd(text: Text, seed: int) -> Text:
    """Return a text with the words of its first turns in another order: odd to read, and nothing is added to it."""
    rng = generator(seed, "odd", 0, text.number)
    source = replace(text.source, opener=_shuffled(text.source.opener, rng), reply=_shuffled(text.source.reply, rng))
    return replace(text, pool="odd", source=source)


def long(text: Text, others: Sequence[Text]) -> Text:
    """Return a text whose first turns go on with those of some others, so that it is longer than any in training."""
    parts = [text.source, *(other.source for other in others)]
    source = replace(
        text.source,
        opener="\n\n".join(part.opener for part in parts),
        reply="\n\n".join(part.reply for part in parts),
    )
    return replace(text, pool="long", source=source)


def _shuffled(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    return " ".join(words[at] for at in rng.permutation(len(words)))


def _keyed(pools: Pools, bank: str) -> tuple[str, ...]:
    """Return the held-out questions of a bank, which must say what each answer means."""
    questions = pools.wordings(bank, "held_out")
    if not all(slot in text for text in questions for slot in KEY_SLOTS):
        raise UsageError(
            given=f"the bank {bank!r} as control questions",
            allowed="banks that say what each answer means, so that any pair of answers fits",
            advice="choose keyed-neutral or keyed-food",
        )
    return questions


def _filled(question: str, source: TextExample) -> str:
    for slot, word in zip(KEY_SLOTS, (source.positive, source.negative), strict=True):
        question = question.replace(slot, word.strip())
    return question
