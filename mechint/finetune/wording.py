"""The texts of an example: the first turn, and the question with the words that its slots stand for."""

from __future__ import annotations

from collections.abc import Sequence

from mechint.finetune.consistency import CONCEPT_SLOTS, KEY_SLOTS, LIST_SLOTS, NAMED_SLOT, OBJECT_SLOT, OPTIONS_SLOT
from mechint.finetune.draws import Draws
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import Splits


def first_turn(recipe: Recipe, splits: Splits, drawn: Draws, row: int, answers: Sequence[str]) -> tuple[str, str]:
    """Return the user's first turn before anything in it is made odd, and the sentence that something is added to.

    A turn of sentences has each after the answer that stands for it; that is no part of the sentence.
    """
    if not recipe.asking.sentences:
        topic = recipe.topics[drawn.topic[row]]
        return recipe.openers(splits.openers, topic)[drawn.opener[row]], ""
    pool = recipe.pools.sentences(splits.sentences)
    sentences = [pool[int(number)] for number in drawn.sentences[row]]
    text = " ".join(f"{answer.strip()}: {sentence}" for answer, sentence in zip(answers, sentences, strict=True))
    return text, sentences[drawn.span[row]] if drawn.span[row] >= 0 else ""


def question_of(recipe: Recipe, splits: Splits, drawn: Draws, row: int, answers: Sequence[str]) -> str:
    """Return the question with the words of its answers, the concepts that it names, and the question it is about."""
    listed = listed_answers(drawn, row, answers)
    text = recipe.wordings(splits.wordings)[int(drawn.wording[row])]
    if objects := recipe.objects(splits.wordings):
        text = text.replace(OBJECT_SLOT, objects[drawn.object[row]])
    if recipe.labels.rule == "concept":
        names = [recipe.concepts(splits.vectors)[int(number)] for number in drawn.concepts[row]]
        pairs = zip(answers, names, strict=True)
        text = text.replace(NAMED_SLOT, ", ".join(f"{word.strip()}: {name}" for word, name in pairs))
        for slot, name in zip(CONCEPT_SLOTS, names, strict=False):
            text = text.replace(slot, name)
    if len(answers) == len(KEY_SLOTS):
        for slot, word in zip(KEY_SLOTS, answers, strict=True):
            text = text.replace(slot, word.strip())
    return with_answers(text, listed)


def listed_answers(drawn: Draws, row: int, answers: Sequence[str]) -> Sequence[str]:
    """Return the answers in the order in which a question lists them."""
    return answers if drawn.positive_first[row] else answers[::-1]


def with_answers(text: str, listed: Sequence[str]) -> str:
    """Return a text that lists its answers, by slots for two or by that for all of them."""
    words = [word.strip() for word in listed]
    if len(words) == len(LIST_SLOTS):
        for slot, word in zip(LIST_SLOTS, words, strict=True):
            text = text.replace(slot, word)
    return text.replace(OPTIONS_SLOT, f"{', '.join(words[:-1])} or {words[-1]}")
