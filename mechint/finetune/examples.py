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
from mechint.finetune.draws import BLOCK, Draws, draws, vector_count
from mechint.finetune.oddities import odd
from mechint.finetune.pools import Pair, Split
from mechint.finetune.sampling import generator
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import Splits, doses, kinds
from mechint.finetune.wording import first_turn, listed_answers, question_of, with_answers

NOTHING = ""  # in place of a vector's name


@dataclass(frozen=True)
class TextExample:
    """One example, as texts and names: what is said, what is added to the first turns, and what is the right answer.

    `answers` are the possible ones, the positive one first where there are two, and `right` is the place of the right
    one, -1 while only a model can say it (`mechint.finetune.behaviour`). `span` is the sentence that something is added
    to, "" for all of the first turns; `oddity` the kind, "" where their text is not odd; `object_question` the question
    that is asked about. `strength` is that at each of the layers `first_block` to before `stop_block`, in median norms
    of the stream if `relative`. `vector` is "random-17" or a concept's name, "" where nothing is added; the other
    numbers are 0 then. `number` is the place in a fixed set, or in the stream.
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
    answers: Sequence[str]
    right: int
    flipped: bool
    reversed: bool
    confidence: float
    gradient: str
    span: str = ""
    oddity: str = ""
    object_question: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", tuple(self.answers))

    @property
    def answer(self) -> str:
        """The right answer; raises UsageError where only a model can say it."""
        return self.answers[self._place]

    @property
    def label(self) -> bool:
        """Whether the right one of two answers is the positive one; raises UsageError where there are not two."""
        return self._two[0] == self.answer

    @property
    def positive(self) -> str:
        """The answer of the positive label; raises UsageError where there are not two."""
        return self._two[0]

    @property
    def negative(self) -> str:
        """The answer of the negative label; raises UsageError where there are not two."""
        return self._two[1]

    @property
    def target(self) -> Mapping[str, float]:
        """The probability that each answer is to have; raises as `answer` does."""
        rest = (1 - self.confidence) / (len(self.answers) - 1)
        return {word: self.confidence if at == self._place else rest for at, word in enumerate(self.answers)}

    @property
    def _place(self) -> int:
        if self.right < 0:
            raise UsageError(
                given=f"the right answer to {self.question!r}, which only the model itself can say",
                allowed="examples that are completed by what a model does",
                advice="use behaviour_of(model, recipe).completed(examples)",
            )
        return self.right

    @property
    def _two(self) -> Pair:
        if len(self.answers) != 2:
            raise UsageError(
                given=f"the positive and the negative one of {len(self.answers)} answers",
                allowed="examples with two answers",
                advice="use `answers` and `right`",
            )
        return self.answers[0], self.answers[1]

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

        Its yes_token is the answer of the positive label, whatever the word; with more than two answers it names none.
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
        extra: dict[str, JSON] = {"steered": self.steered, "vector": self.vector, "right": self.right}
        yes, no = self.answers if len(self.answers) == 2 else ("", "")
        return Conversation(label, messages, yes, no, extra)

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
    names = recipe.concepts(split) if recipe.signal.has_concepts else ()
    if number < len(names):
        return names[number]
    start = {"train": 0, "held_out": 1, "validation": 2}[split] * vector_count(recipe, "train")
    return f"random-{start + number - len(names)}"


def strength(recipe: Recipe, dose: float, n_layers: int) -> float:
    """Return what is added at each of the layers, of a dose for each or for all together."""
    return dose / n_layers if recipe.signal.dose_of == "sum" else dose


def meanings(answers: tuple[str, ...], is_reversed: bool) -> tuple[str, ...]:
    """Return the answers of a set by what they mean: of a pair, that of the positive label first."""
    return answers[::-1] if is_reversed else answers


def _built(recipe: Recipe, splits: Splits, drawn: Draws, row: int, at: tuple[int, int, int]) -> TextExample:
    topic = recipe.topics[drawn.topic[row]]
    answers = meanings(recipe.answer_sets(splits.answers)[drawn.pair[row]], bool(drawn.reversed[row]))
    opener, span = first_turn(recipe, splits, drawn, row, answers)
    oddity = kinds(recipe, splits.oddity)[drawn.oddity[row]] if drawn.oddity[row] >= 0 else ""
    objects = recipe.objects(splits.wordings)
    first, stop = max(0, int(drawn.first_block[row])), max(0, int(drawn.stop_block[row]))
    dose = doses(recipe, splits.dose)[drawn.dose[row]] if drawn.steered[row] else 0.0
    return TextExample(
        recipe=recipe.name,
        step=at[0],
        index=at[1],
        number=at[2],
        opener=odd(opener, oddity, int(drawn.odd_number[row])) if oddity else opener,
        reply=recipe.replies(splits.replies, topic)[drawn.reply[row]],
        question=question_of(recipe, splits, drawn, row, answers),
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
        answers=answers,
        right=int(drawn.right[row]),
        flipped=bool(drawn.flipped[row]),
        reversed=bool(drawn.reversed[row]),
        confidence=recipe.loss.confidence,
        gradient=recipe.fill.gradient,
        span=span,
        oddity=oddity,
        object_question=with_answers(objects[drawn.object[row]], listed_answers(drawn, row, answers))
        if objects
        else "",
    )
