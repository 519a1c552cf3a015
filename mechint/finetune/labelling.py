"""Which answer is right in each example of a block, and which words its answers are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mechint.finetune.pools import FOOD
from mechint.finetune.sampling import Flags, Places, counted, even
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import Splits

UNKNOWN = -1  # the place of a right answer that only a model can say

Stream = Callable[[str], np.random.Generator]


@dataclass(frozen=True)
class Causes:
    """What a label can follow from, an entry for each example.

    `place` is that of the added concept among the named ones, `layers` and `dose` those in the recipe's lists, `span`
    the sentence that something is added to.
    """

    steered: Flags
    topic: Places
    place: Places
    is_concept: Flags
    is_odd: Flags
    layers: Places
    dose: Places
    span: Places


@dataclass(frozen=True)
class AnswersDrawn:
    """The place of the right answer, positive first; whether noise turned it; the pair, and whether it is reversed."""

    right: Places
    flipped: Flags
    pair: Places
    reversed: Flags


def answers_drawn(
    recipe: Recipe, causes: Causes, splits: Splits, is_left_out: Flags | None, stream: Stream
) -> AnswersDrawn:
    """Return the answers of a block; of a fixed set, noise is counted in both parts, else by steering and truth."""
    count = len(causes.steered)
    nothing = np.zeros(count, dtype=bool)
    if recipe.answers.options:
        return AnswersDrawn(_class(recipe, causes), nothing, np.zeros(count, dtype=np.int64), nothing)
    if recipe.labels.rule == "self":
        pair, reversed_ = _answers(recipe, splits, causes.steered, nothing, stream("answers"))
        return AnswersDrawn(np.full(count, UNKNOWN), nothing, pair, reversed_)
    truth = _truth(recipe, causes, stream("labels"))
    strata = [causes.steered, truth] if is_left_out is None else [is_left_out]
    flipped = counted(recipe.labels.noise, strata, stream("noise"))
    label = truth ^ flipped
    pair, reversed_ = _answers(recipe, splits, causes.steered, label, stream("answers"))
    return AnswersDrawn(np.where(label, 0, 1), flipped, pair, reversed_)


def _class(recipe: Recipe, causes: Causes) -> Places:
    """Return which of several options is right."""
    places = {"concept": causes.place, "layers": causes.layers, "dose": causes.dose, "sentence": causes.span}
    return places[recipe.labels.rule]


def _truth(recipe: Recipe, causes: Causes, stream: np.random.Generator) -> Flags:
    """Return the labels before noise."""
    rule, count = recipe.labels.rule, len(causes.steered)
    if rule == "coin":
        coin: Flags = stream.random(count) < 0.5
        return coin if recipe.labels.coin == "drawn" else counted(0.5, [causes.steered], stream)
    if rule == "food":
        is_food: Flags = causes.topic == recipe.topics.index(FOOD)
        return is_food
    truths: dict[str, Flags] = {
        "steered": causes.steered,
        "concept": causes.place == 0,
        "meaningful": causes.steered & causes.is_concept,
        "odd": causes.is_odd,
    }
    constant: Flags = np.full(count, rule == "positive")
    return truths.get(rule, constant)


def _answers(
    recipe: Recipe, splits: Splits, steered: Flags, label: Flags, stream: np.random.Generator
) -> tuple[Places, Flags]:
    """Return which pair of answers, and whether reversed: as often in every combination of steering and label."""
    count = len(recipe.pairs(splits.answers))
    mapping = recipe.asking.mapping
    if mapping != "balanced":
        return even(count, [steered, label], stream), np.full(len(label), mapping == "reversed")
    cells = even(2 * count, [steered, label], stream)
    return cells // 2, cells % 2 == 1
