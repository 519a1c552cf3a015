"""What is drawn for the examples of a recipe: a function of seed, factor, split and number of the block, as arrays.

A fixed set is one block; where each example is drawn anew, a block is as long as exact balance needs. What has to be
counted (who is steered, mapping and pair of answers, labels by a counted coin, noise) is exact in each block. Each
factor has its own stream, so that recipes which differ in one factor draw the others alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Int

from mechint.finetune.pools import FOOD, SPLITS, Split
from mechint.finetune.sampling import Flags, Places, counted, even, generator, uniform
from mechint.finetune.signal import blocks_of
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import Splits, check_splits, doses, ranges

BLOCK = 240  # a multiple of 2 x 2 x pairs of answers, for 1 to 6 pairs


@dataclass(frozen=True)
class Draws:
    """A block of examples, an entry each. Places are those in the lists of the recipe; -1 where nothing is added.

    `label` is what is trained, after noise. `reversed`: the pair's first answer means the negative label.
    `positive_first`: the answer of the positive label is listed first. `concepts`: the two that are named, where any.
    """

    steered: Flags
    topic: Places
    opener: Places
    reply: Places
    wording: Places
    vector: Places
    first_block: Places
    stop_block: Places
    dose: Places
    label: Flags
    flipped: Flags
    pair: Places
    reversed: Flags
    positive_first: Flags
    concepts: Int[np.ndarray, "example 2"]


@lru_cache(maxsize=32)
def draws(recipe: Recipe, seed: int, block: int, splits: Splits) -> Draws:
    """Return a block of examples of a recipe. Raises UsageError where a factor has nothing held out."""
    check_splits(recipe, splits)
    is_set = bool(recipe.budget.examples) and splits.is_training
    count = recipe.budget.examples if is_set else BLOCK

    def stream(factor: str) -> np.random.Generator:
        split = getattr(splits, factor, "train")
        return generator(recipe.budget.data_seed if is_set else seed, factor, SPLITS.index(split), block)

    steered = _steered(recipe, count, stream("steered"))
    topic = even(len(recipe.topics), [steered], stream("topic"))
    concepts, vector, is_first = _vectors(recipe, count, splits, stream("vectors"))
    truth = _truth(recipe, steered, topic, is_first, stream("labels"))
    strata = [np.arange(count) < recipe.budget.validation] if is_set else [steered, truth]
    # In a fixed set noise is counted in the part that is left out and in the part that is trained.
    flipped = counted(recipe.labels.noise, strata, stream("noise"))
    label = truth ^ flipped
    pair, reversed_ = _answers(recipe, splits, steered, label, stream("answers"))
    first_block, stop_block = _blocks(recipe, count, splits, stream("layers"))
    dose = uniform(np.full(count, len(doses(recipe, splits.dose))), stream("dose"))
    return Draws(
        steered=steered,
        topic=topic,
        opener=uniform(
            _sizes(recipe.topics, topic, lambda name: recipe.openers(splits.openers, name)), stream("openers")
        ),
        reply=uniform(
            _sizes(recipe.topics, topic, lambda name: recipe.replies(splits.replies, name)), stream("replies")
        ),
        wording=uniform(np.full(count, len(recipe.wordings(splits.wordings))), stream("wordings")),
        vector=np.where(steered, vector, -1),
        first_block=np.where(steered, first_block, -1),
        stop_block=np.where(steered, stop_block, -1),
        dose=np.where(steered, dose, -1),
        label=label,
        flipped=flipped,
        pair=pair,
        reversed=reversed_,
        positive_first=_order(recipe, count, stream("order")),
        concepts=concepts,
    )


@lru_cache(maxsize=32)
def concept_pairs(recipe: Recipe, split: Split) -> tuple[tuple[int, int], ...]:
    """Return the fixed pairs of concepts, by their places among the concepts of a split."""
    pairs = list(combinations(range(len(recipe.concepts(split))), 2))
    order = generator(recipe.signal.vector_seed, "concept pairs", SPLITS.index(split), 0).permutation(len(pairs))
    return tuple(pairs[at] for at in order[: recipe.signal.concept_pairs])


def _steered(recipe: Recipe, count: int, stream: np.random.Generator) -> Flags:
    share = 0.0 if recipe.signal.vectors == "none" else recipe.signal.share
    return counted(share, [np.zeros(count, dtype=bool)], stream)


def _truth(recipe: Recipe, steered: Flags, topic: Places, is_first: Flags, stream: np.random.Generator) -> Flags:
    """Return the labels before noise."""
    rule = recipe.labels.rule
    if rule == "coin":
        coin: Flags = stream.random(len(steered)) < 0.5
        return coin if recipe.labels.coin == "drawn" else counted(0.5, [steered], stream)
    if rule == "food":
        is_food: Flags = topic == recipe.topics.index(FOOD)
        return is_food
    constant: Flags = np.full(len(steered), rule == "positive")
    return {"steered": steered, "concept": is_first}.get(rule, constant)


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


def _vectors(
    recipe: Recipe, count: int, splits: Splits, stream: np.random.Generator
) -> tuple[Int[np.ndarray, "example 2"], Places, Flags]:
    """Return the concepts that are named, which vector is added, and whether it is that of the first concept."""
    nothing = np.full((count, 2), -1)
    if not recipe.signal.concept_pairs:
        is_named = recipe.signal.vectors == "concept"
        size = len(recipe.concepts(splits.vectors)) if is_named else vector_count(recipe, splits.vectors)
        return nothing, stream.integers(0, size, count), np.zeros(count, dtype=bool)
    # A split of few concepts has fewer pairs than there are for training.
    members = np.array(concept_pairs(recipe, splits.vectors))
    pairs = members[stream.integers(0, len(members), count)]
    swapped, is_first = stream.random(count) < 0.5, stream.random(count) < 0.5
    concepts = np.where(swapped[:, None], pairs[:, ::-1], pairs)
    return concepts, np.where(is_first, concepts[:, 0], concepts[:, 1]), is_first


def vector_count(recipe: Recipe, split: Split) -> int:
    """Return how many random directions a split has: as many are held out as trained, and a quarter for validation."""
    return max(1, recipe.signal.pool // 4) if split == "validation" else recipe.signal.pool


def _blocks(recipe: Recipe, count: int, splits: Splits, stream: np.random.Generator) -> tuple[Places, Places]:
    """Return first and stop of the layers: those of a range that is drawn, or one block that is drawn from it."""
    limits = np.array([blocks_of(text, recipe.signal.blocks) for text in ranges(recipe, splits.layers)])
    chosen = limits[stream.integers(0, len(limits), count)]
    if not recipe.signal.single:
        return chosen[:, 0], chosen[:, 1]
    first = chosen[:, 0] + uniform(chosen[:, 1] - chosen[:, 0], stream)
    return first, first + 1


def _order(recipe: Recipe, count: int, stream: np.random.Generator) -> Flags:
    return stream.random(count) < 0.5 if recipe.asking.order == "drawn" else np.ones(count, dtype=bool)


def _sizes(topics: Sequence[str], topic: Places, members: Callable[[str], Sequence[str]]) -> Places:
    sizes: Places = np.array([len(members(name)) for name in topics])[topic]
    return sizes
