"""Mutual information between what was injected and what was answered, in bits, held against shuffled trials.

The plug-in value of a finite sample is above zero even if the answers tell nothing (Miller, 1955), and the more so the
more causes and options there are. So it is never given alone here: the null comes from the same trials with their
causes permuted, and its mean is the bias that is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats

from mechint.base.errors import UsageError
from mechint.stats.intervals import Interval, binomial_interval

SoftAnswers = Float[np.ndarray, "*layers trial option"]
Causes = Shaped[np.ndarray, " labels"]  # one for each trial; that they are as many is checked
Blocks = Shaped[np.ndarray, " block_labels"]
_ROUNDING = 1e-9  # bits: permutations that amount to the same table must not differ by the order of a sum
_NORMALISED = 1e-4  # how far from 1 the probabilities of a trial may add up: they may come from float32


@dataclass(frozen=True)
class Information:
    """Mutual information of answers and causes, in bits, with the permutation null; arrays have the layers' shape.

    `corrected` is `plug_in` less the mean of the null, and may be below zero. `null_95` is the null's 95% quantile,
    `p_value` one-sided: (1 + permutations that reach the plug-in value) / (1 + permutations).
    """

    plug_in: Float[np.ndarray, "*layers"]
    corrected: Float[np.ndarray, "*layers"]
    null_95: Float[np.ndarray, "*layers"]
    p_value: Float[np.ndarray, "*layers"]
    n: int
    permutations: int


@dataclass(frozen=True)
class Accuracy:
    """Share of trials answered rightly with its exact interval; `p_value` is that of the binomial test above `chance`.

    Exact for independent trials. Trials of one concept are not: for a claim about concepts average within each first
    (`stats.group_means`).
    """

    rate: Interval
    chance: float
    p_value: Float[np.ndarray, "*layers"]


def mutual_information(joint: Shaped[np.ndarray, "cause answer"]) -> float:
    """Return the mutual information of two variables in bits, from any joint weights (counts, probabilities).

    The plug-in value: nothing is corrected. Raises UsageError for weights that are negative, not finite or all zero.
    """
    weights = np.asarray(joint, dtype=np.float64)
    if weights.ndim != 2 or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise UsageError(
            given=f"joint weights of shape {weights.shape}, {weights.min(initial=0)} to {weights.max(initial=0)}",
            allowed="causes x answers, finite, none negative, not all zero",
            advice="count each answer given under each cause, or add up their probabilities",
        )
    return float(_bits(weights))


def miller_madow(counts: Shaped[np.ndarray, "cause answer"]) -> float:
    """Return mutual information in bits with the bias taken off to first order (Miller, 1955), from a table of counts.

    For hard answers of independent trials of which only the table is left. It takes the cells that were seen for those
    that can be, so it corrects too little in small samples; where the trials are there, use `information`. Not for sums
    of probabilities: these vary less than counts, and the correction would be too large. May be below zero.
    """
    if not np.issubdtype(np.asarray(counts).dtype, np.integer):
        raise UsageError(
            given=f"counts of type {np.asarray(counts).dtype}",
            allowed="whole numbers of independent trials",
            advice="use `information` for soft answers",
        )
    plug_in = mutual_information(counts)
    cells = (counts > 0).sum()
    causes = (counts.sum(axis=1) > 0).sum()
    answers = (counts.sum(axis=0) > 0).sum()
    return plug_in - float(cells - causes - answers + 1) / (2 * float(counts.sum()) * math.log(2))


def information(
    probabilities: SoftAnswers,
    causes: Causes,
    *,
    blocks: Blocks | None = None,
    permutations: int = 1000,
    seed: int = 0,
) -> Information:
    """Return the mutual information of soft answers and the causes of their trials, at each layer.

    A row of `probabilities` holds one trial's over the options and adds up to 1; `causes` are labels. The joint weight
    of a cause and an option is the sum of that option's probabilities. Under the null causes are permuted over trials,
    the same way at all layers; with `blocks` (a label order, a wording) only within each block, so that what the block
    explains by itself counts as bias.

    Raises UsageError for rows that are no probabilities, shapes that differ, and fewer than two causes.
    """
    answers = _checked(probabilities, causes, blocks)
    if permutations < 1:
        raise UsageError(f"{permutations} permutations", "1 or more", "use 1000; a p-value of 0.001 needs them")
    names, numbers = np.unique(causes, return_inverse=True)
    if len(names) < 2:
        raise UsageError(f"{len(names)} cause", "two or more", "leave a condition in that it can be told from")
    observed = _information(answers, numbers, len(names))
    rng = np.random.default_rng(seed)
    shuffles = _shuffled(numbers, blocks, permutations, rng)
    null = np.stack([_information(answers, shuffled, len(names)) for shuffled in shuffles])
    reached = (null >= observed - _ROUNDING).sum(axis=0)
    return Information(
        plug_in=observed,
        corrected=np.asarray(observed - null.mean(axis=0)),
        null_95=np.asarray(np.quantile(null, 0.95, axis=0)),
        p_value=np.asarray((1 + reached) / (1 + permutations)),
        n=len(numbers),
        permutations=permutations,
    )


def accuracy(
    probabilities: SoftAnswers, truth: Int[np.ndarray, " labels"], *, chance: float | None = None, level: float = 0.95
) -> Accuracy:
    """Return how often the likeliest option is the true one, at each layer; `truth` are indices of options.

    `chance` is 1 / options unless given. A tie for the likeliest is a miss, so that answers that say nothing are never
    right. Raises UsageError as `information` does, and for a truth that is no option.
    """
    answers = _checked(probabilities, truth, None)
    n_options = answers.shape[-1]
    if truth.min() < 0 or truth.max() >= n_options:
        raise UsageError(f"truths {truth.min()} to {truth.max()}", f"0 to {n_options - 1}", "give indices of options")
    right = _right(answers, truth).sum(axis=-1)
    intervals = [binomial_interval(int(count), len(truth), level=level) for count in right.ravel()]
    mean = np.array([interval.mean for interval in intervals]).reshape(right.shape)
    low = np.array([interval.low for interval in intervals]).reshape(right.shape)
    high = np.array([interval.high for interval in intervals]).reshape(right.shape)
    by_chance = 1 / n_options if chance is None else chance
    p_value = np.asarray(stats.binom.sf(right - 1, len(truth), by_chance), dtype=np.float64)
    return Accuracy(Interval(mean, low, high, len(truth)), by_chance, p_value)


def _bits(joint: Float[np.ndarray, "*layers cause answer"]) -> Float[np.ndarray, "*layers"]:
    """Mutual information of each table, whose weights need not add up to 1."""
    weights = joint / joint.sum(axis=(-2, -1), keepdims=True)
    apart = weights.sum(axis=-1, keepdims=True) * weights.sum(axis=-2, keepdims=True)
    ratio = np.divide(weights, apart, out=np.ones_like(weights), where=weights > 0)
    # Never below zero but by rounding.
    return np.asarray(np.maximum((weights * np.log2(ratio)).sum(axis=(-2, -1)), 0.0))


def _information(answers: SoftAnswers, numbers: Int[np.ndarray, " trial"], n_causes: int) -> np.ndarray:
    membership = (numbers == np.arange(n_causes)[:, None]).astype(np.float64)
    return _bits(membership @ answers)


def _shuffled(
    numbers: Int[np.ndarray, " trial"], blocks: Blocks | None, permutations: int, rng: np.random.Generator
) -> Iterator[Int[np.ndarray, " trial"]]:
    labels = np.zeros(len(numbers), dtype=np.int64) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    members = [np.flatnonzero(labels == block) for block in np.unique(labels)]
    for _ in range(permutations):
        shuffled = numbers.copy()
        for inside in members:
            shuffled[inside] = numbers[rng.permutation(inside)]
        yield shuffled


def _right(answers: SoftAnswers, truth: Int[np.ndarray, " trial"]) -> Bool[np.ndarray, "*layers trial"]:
    trials = np.arange(len(truth))
    at_truth = answers[..., trials, truth]
    others = answers.copy()
    others[..., trials, truth] = -np.inf
    return np.asarray(at_truth > others.max(axis=-1))


def _checked(probabilities: SoftAnswers, causes: Causes, blocks: Blocks | None) -> SoftAnswers:
    answers = np.asarray(probabilities, dtype=np.float64)
    shapes = [np.shape(labels) for labels in (causes, blocks) if labels is not None]
    if answers.ndim < 2 or not answers.size or any(shape != (answers.shape[-2],) for shape in shapes):
        raise UsageError(
            given=f"probabilities of shape {answers.shape}, labels of {', '.join(map(str, shapes))}",
            allowed="(..., trials, options) with one label for each trial, none of them empty",
            advice="put trials on the last axis but one",
        )
    off = np.abs(answers.sum(axis=-1) - 1)
    if not (answers >= 0).all() or not (off <= _NORMALISED).all():
        raise UsageError(
            given=f"rows that are no probabilities: values from {answers.min():g}, sums up to {off.max():g} from 1",
            allowed="finite values from 0 on that add up to 1 over the options of a trial",
            advice="divide the options' probabilities by their sum; leave trials out that were not answered",
        )
    return answers
