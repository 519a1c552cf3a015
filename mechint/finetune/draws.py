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

from mechint.finetune.labelling import Causes, answers_drawn
from mechint.finetune.pools import SPLITS, Split
from mechint.finetune.sampling import Flags, Places, counted, even, generator, subsets, uniform
from mechint.finetune.signal import blocks_of
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import Splits, check_splits, doses, kinds, ranges

BLOCK = 240  # a multiple of 2 x 2 x pairs of answers, for 1 to 6 pairs


@dataclass(frozen=True)
class _Named:
    """Concepts that are named, if any; which vector is added, its place among them, and whether it is a concept's."""

    concepts: Int[np.ndarray, "example named"]
    vector: Places
    place: Places
    is_concept: Flags


@dataclass(frozen=True)
class Draws:
    """A block of examples, an entry each. Places are those in the lists of the recipe; -1 where nothing is added.

    `right` is the place of the answer that is trained among the example's answers, after noise, the positive one first;
    -1 where only a model can say it. `reversed`: the pair's first answer means the negative label. `positive_first`:
    the answer of the positive label is listed first. `concepts`: those that are named, where any. `sentences`: those
    that the first turn is of, where any, and `span` which of them something is added to. `oddity` is the kind,
    `odd_number` what it is a function of, and `object` the question that is asked about.
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
    right: Places
    flipped: Flags
    pair: Places
    reversed: Flags
    positive_first: Flags
    concepts: Int[np.ndarray, "example named"]
    sentences: Int[np.ndarray, "example sentence"]
    span: Places
    oddity: Places
    odd_number: Places
    object: Places


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
    named = _vectors(recipe, steered, splits, stream("vectors"))
    layers, first_block, stop_block = _blocks(recipe, count, splits, stream("layers"))
    causes = Causes(
        steered=steered,
        topic=topic,
        place=named.place,
        is_concept=named.is_concept,
        is_odd=counted(recipe.oddity.share, [steered], stream("odd")),
        layers=layers,
        dose=uniform(np.full(count, len(doses(recipe, splits.dose))), stream("dose")),
        span=even(max(1, recipe.asking.sentences), [steered], stream("span")),
    )
    # In a fixed set noise is counted in the part that is left out and in the part that is trained.
    is_left_out = np.arange(count) < recipe.budget.validation if is_set else None
    answers = answers_drawn(recipe, causes, splits, is_left_out, stream)
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
        vector=np.where(steered, named.vector, -1),
        first_block=np.where(steered, first_block, -1),
        stop_block=np.where(steered, stop_block, -1),
        dose=np.where(steered, causes.dose, -1),
        right=answers.right,
        flipped=answers.flipped,
        pair=answers.pair,
        reversed=answers.reversed,
        positive_first=_order(recipe, count, stream("order")),
        concepts=named.concepts,
        sentences=subsets(
            len(recipe.pools.sentences(splits.sentences)), recipe.asking.sentences, count, stream("sentences")
        ),
        span=np.where(steered & (recipe.asking.sentences > 0), causes.span, -1),
        oddity=np.where(
            causes.is_odd, uniform(np.full(count, len(kinds(recipe, splits.oddity))), stream("oddity")), -1
        ),
        odd_number=stream("odd texts").integers(0, 2**31, count),
        object=uniform(np.full(count, max(1, len(recipe.objects(splits.wordings)))), stream("objects")),
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


def _vectors(recipe: Recipe, steered: Flags, splits: Splits, stream: np.random.Generator) -> _Named:
    """Return which vector is added to each example, and which concepts are named."""
    count, options = len(steered), len(recipe.answers.options)
    if recipe.signal.concept_pairs:
        # A split of few concepts has fewer pairs than there are for training.
        members = np.array(concept_pairs(recipe, splits.vectors))
        pairs = members[stream.integers(0, len(members), count)]
        swapped, is_first = stream.random(count) < 0.5, stream.random(count) < 0.5
        return _named(np.where(swapped[:, None], pairs[:, ::-1], pairs), np.where(is_first, 0, 1))
    if recipe.labels.rule == "concept":
        concepts = subsets(len(recipe.concepts(splits.vectors)), options, count, stream)
        return _named(concepts, even(options, [steered], stream))
    n_concepts, n_random = len(recipe.concepts(splits.vectors)), vector_count(recipe, splits.vectors)
    is_concept = np.full(count, recipe.signal.vectors == "concept")
    if recipe.signal.vectors == "both":
        # Random directions are numbered after the concepts.
        is_concept = counted(0.5, [steered], stream)
        vector = uniform(np.where(is_concept, n_concepts, n_random), stream) + np.where(is_concept, 0, n_concepts)
    else:
        vector = stream.integers(0, n_concepts if recipe.signal.has_concepts else n_random, count)
    return _Named(np.full((count, 2), -1), vector, np.zeros(count, dtype=np.int64), is_concept)


def _named(concepts: Int[np.ndarray, "example named"], place: Places) -> _Named:
    """Return examples that name concepts, of which the vector at a place of each is added."""
    vector = np.take_along_axis(concepts, place[:, None], axis=1)[:, 0]
    return _Named(concepts, vector, place, np.ones(len(place), dtype=bool))


def vector_count(recipe: Recipe, split: Split) -> int:
    """Return how many random directions a split has: as many are held out as trained, and a quarter for validation."""
    return max(1, recipe.signal.pool // 4) if split == "validation" else recipe.signal.pool


def _blocks(recipe: Recipe, count: int, splits: Splits, stream: np.random.Generator) -> tuple[Places, Places, Places]:
    """Return which range of layers is drawn, and first and stop of it, or of one block that is drawn from it."""
    limits = np.array([blocks_of(text, recipe.signal.blocks) for text in ranges(recipe, splits.layers)])
    place = stream.integers(0, len(limits), count)
    chosen = limits[place]
    if not recipe.signal.single:
        return place, chosen[:, 0], chosen[:, 1]
    first = chosen[:, 0] + uniform(chosen[:, 1] - chosen[:, 0], stream)
    return place, first, first + 1


def _order(recipe: Recipe, count: int, stream: np.random.Generator) -> Flags:
    return stream.random(count) < 0.5 if recipe.asking.order == "drawn" else np.ones(count, dtype=bool)


def _sizes(topics: Sequence[str], topic: Places, members: Callable[[str], Sequence[str]]) -> Places:
    sizes: Places = np.array([len(members(name)) for name in topics])[topic]
    return sizes
