"""Examples of a recipe: each a function of recipe, seed, step and index alone, so that training can go on anywhere.

recipe = Recipe.load("matched/original").adapted(n_layers=30)
example(recipe, seed=0, step=17, index=3)                                # of training
example(recipe, seed=0, step=0, index=3, held_out=("vectors", "wordings"))   # of what is never trained
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from mechint.base.errors import UsageError
from mechint.base.files import JSON
from mechint.base.signatures import Index, Seed, checked
from mechint.chat.conversations import Conversation, Message
from mechint.finetune.consistency import CONCEPT_SLOTS, KEY_SLOTS, LIST_SLOTS
from mechint.finetune.draws import BLOCK, Draws, draws, vector_count
from mechint.finetune.pools import Pair, Split
from mechint.finetune.sampling import generator
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import Splits, doses

NOTHING = ""  # in place of a vector's name


@dataclass(frozen=True)
class TextExample:
    """One example, as texts and names: what is said, what is added to the first turns, and what is the right answer.

    `positive` and `negative` are the answers of the two labels, `answer` is the one of this example's label. `strength`
    is that at each of the layers `first_block` to before `stop_block`, in median norms of the stream if `relative`.
    `vector` is "random-17" or a concept's name, "" where nothing is added; the other numbers are 0 then. `number` is
    the place in a fixed set, or in the stream.
    """

    recipe: str
    step: int
    index: int
    number: int
    opener: str
    reply: str
    question: str
    prefill: str
    system: str
    topic: str
    steered: bool
    vector: str
    first_block: int
    stop_block: int
    dose: float
    strength: float
    relative: bool
    label: bool
    flipped: bool
    positive: str
    negative: str
    reversed: bool
    confidence: float
    gradient: str

    @property
    def answer(self) -> str:
        """The right answer."""
        return self.positive if self.label else self.negative

    @property
    def target(self) -> Mapping[str, float]:
        """The probability that each answer is to have."""
        other = self.negative if self.label else self.positive
        return {self.answer: self.confidence, other: 1 - self.confidence}

    @property
    def layers(self) -> range:
        """The blocks at whose output something is added."""
        return range(self.first_block, self.stop_block)

    @property
    def prompt(self) -> tuple[str, str, str]:
        """The three texts that a reader of the example sees."""
        return self.opener, self.reply, self.question

    def conversation(self) -> Conversation:
        """Return it as a conversation whose first turns are marked and whose last is left open before the answer.

        Its yes_token is the answer of the positive label, whatever the word.
        """
        system = [Message("system", self.system)] if self.system else []
        messages = (
            *system,
            Message("user", self.opener, add_injection=True),
            Message("assistant", self.reply, add_injection=True),
            Message("user", self.question),
            Message("assistant", self.prefill, continue_msg=True),
        )
        label = f"{self.recipe} {self.step}.{self.index}"
        extra: dict[str, JSON] = {"steered": self.steered, "vector": self.vector, "label": self.label}
        return Conversation(label, messages, self.positive, self.negative, extra)

    def to_dict(self) -> dict[str, JSON]:
        """Return it as JSON; `TextExample(**record)` is the same again."""
        return asdict(self)


@checked
def example(
    recipe: Recipe,
    seed: Seed,
    step: Index,
    index: Index,
    held_out: str | Sequence[str] = (),
    split: Split = "held_out",
) -> TextExample:
    """Return the example at an index of a step. With `held_out`, these factors are of `split`, the others trained.

    Raises UsageError for an index beyond the rows of a step, and factors that do not exist or hold nothing out.
    """
    if index >= recipe.budget.rows:
        allowed = f"0 to {recipe.budget.rows - 1}"
        raise UsageError(f"index {index} of a step of {recipe.name!r}", allowed, "give the number of a row of the step")
    splits = Splits.of(held_out, split)
    block, row, number = place(recipe, seed, step * recipe.budget.rows + index, splits)
    return _built(recipe, splits, draws(recipe, seed, block, splits), row, (step, index, number))


@checked
def step_examples(recipe: Recipe, seed: Seed, step: Index) -> list[TextExample]:
    """Return the examples that a step of training has."""
    return [example(recipe, seed, step, index) for index in range(recipe.budget.rows)]


def place(recipe: Recipe, seed: int, at: int, splits: Splits) -> tuple[int, int, int]:
    """Return block and row of the example that comes `at` in training, and its number in the set or the stream."""
    budget = recipe.budget
    if not (budget.examples and splits.is_training):
        block, row = divmod(at, BLOCK)
        return block, row, at
    epoch, within = divmod(at, budget.trained)
    number = budget.validation + int(_order(budget.trained, seed, epoch)[within])
    return 0, number, number


@lru_cache(maxsize=32)
def _order(count: int, seed: int, epoch: int) -> Int[np.ndarray, " example"]:
    """Return the order of a fixed set in an epoch."""
    return generator(seed, "epoch", 0, epoch).permutation(count)


def vector_name(recipe: Recipe, split: Split, number: int) -> str:
    """Return the name of a vector: a concept's, or "random-17". No direction is of two splits; -1 is no vector.

    The first `pool` directions are trained, as many after them held out, and those for validation come last.
    """
    if number < 0:
        return NOTHING
    if recipe.signal.vectors == "concept":
        return recipe.concepts(split)[number]
    start = {"train": 0, "held_out": 1, "validation": 2}[split] * vector_count(recipe, "train")
    return f"random-{start + number}"


def strength(recipe: Recipe, dose: float, n_layers: int) -> float:
    """Return what is added at each of the layers, of a dose for each or for all together."""
    return dose / n_layers if recipe.signal.dose_of == "sum" else dose


def meanings(pair: Pair, is_reversed: bool) -> Pair:
    """Return the answers of the positive and the negative label."""
    return (pair[1], pair[0]) if is_reversed else pair


def _built(recipe: Recipe, splits: Splits, drawn: Draws, row: int, at: tuple[int, int, int]) -> TextExample:
    topic = recipe.topics[drawn.topic[row]]
    positive, negative = meanings(recipe.pairs(splits.answers)[drawn.pair[row]], bool(drawn.reversed[row]))
    first, stop = max(0, int(drawn.first_block[row])), max(0, int(drawn.stop_block[row]))
    dose = doses(recipe, splits.dose)[drawn.dose[row]] if drawn.steered[row] else 0.0
    return TextExample(
        recipe=recipe.name,
        step=at[0],
        index=at[1],
        number=at[2],
        opener=recipe.openers(splits.openers, topic)[drawn.opener[row]],
        reply=recipe.replies(splits.replies, topic)[drawn.reply[row]],
        question=_question(recipe, splits, drawn, row, (positive, negative)),
        prefill=recipe.asking.prefill,
        system=recipe.asking.system,
        topic=topic,
        steered=bool(drawn.steered[row]),
        vector=vector_name(recipe, splits.vectors, int(drawn.vector[row])),
        first_block=first,
        stop_block=stop,
        dose=dose,
        strength=strength(recipe, dose, max(1, stop - first)),
        relative=recipe.signal.relative,
        label=bool(drawn.label[row]),
        flipped=bool(drawn.flipped[row]),
        positive=positive,
        negative=negative,
        reversed=bool(drawn.reversed[row]),
        confidence=recipe.loss.confidence,
        gradient=recipe.fill.gradient,
    )


def _question(recipe: Recipe, splits: Splits, drawn: Draws, row: int, answers: Pair) -> str:
    """Return the question with the words of its answers, and of the concepts that it names."""
    listed = answers if drawn.positive_first[row] else answers[::-1]
    words = dict(zip((*KEY_SLOTS, *LIST_SLOTS), (*answers, *listed), strict=True))
    text = recipe.wordings(splits.wordings)[int(drawn.wording[row])]
    for slot, word in words.items():
        text = text.replace(slot, word.strip())
    if recipe.signal.concept_pairs:
        names = [recipe.concepts(splits.vectors)[int(number)] for number in drawn.concepts[row]]
        for slot, name in zip(CONCEPT_SLOTS, names, strict=True):
            text = text.replace(slot, name)
    return text
