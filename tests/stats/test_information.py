"""Mutual information: known values, identities, and a null that is really one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechint.base.errors import UsageError
from mechint.stats.information import accuracy, information, miller_madow, mutual_information


def soft(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random probabilities over the last axis."""
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def hard(answers: np.ndarray, n_options: int) -> np.ndarray:
    return np.eye(n_options)[answers]


def naive_bits(joint: np.ndarray) -> float:
    """H(cause) + H(answer) - H(both), cell by cell."""

    def entropy(weights: np.ndarray) -> float:
        shares = weights.ravel() / weights.sum()
        return -sum(p * math.log2(p) for p in shares if p > 0)

    return entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint)


def test_independent_tables_have_none_and_perfect_ones_all():
    assert mutual_information(np.outer([1, 2, 3], [0.5, 0.0, 4])) == pytest.approx(0, abs=1e-12)
    assert mutual_information(np.full((4, 4), 7)) == 0
    for k in (2, 9, 10):
        assert mutual_information(np.eye(k)) == pytest.approx(math.log2(k))
    assert mutual_information(np.array([[3, 0], [0, 1]])) == pytest.approx(naive_bits(np.array([[3, 0], [0, 1]])))


@settings(max_examples=50, deadline=None)
@given(
    joint=st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), min_size=2, max_size=5),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_scale_order_and_direction_do_not_matter(joint, scale, seed):
    table, rng = np.array(joint) + 1e-3, np.random.default_rng(seed)
    bits = mutual_information(table)
    assert bits == pytest.approx(naive_bits(table), abs=1e-9)
    moved = table[rng.permutation(len(table))][:, rng.permutation(3)] * scale
    assert mutual_information(moved) == pytest.approx(bits, abs=1e-9)
    assert mutual_information(table.T) == pytest.approx(bits, abs=1e-9)
    assert mutual_information(np.pad(table, 1)) == pytest.approx(bits, abs=1e-9)  # what was never seen does not count
    assert mutual_information(table[:, :2]) <= math.log2(min(len(table), 2)) + 1e-9


@pytest.mark.parametrize(
    "joint", [np.zeros((2, 2)), np.array([[1, -1], [1, 1]]), np.array([[math.nan, 1.0], [1, 1]]), np.zeros((0, 2))]
)
def test_tables_that_are_no_weights(joint):
    with pytest.raises(UsageError, match="none negative"):
        mutual_information(joint)


def test_plug_in_is_that_of_the_summed_answers_at_every_layer():
    rng = np.random.default_rng(0)
    answers, causes = soft(rng, 3, 40, 5), rng.integers(0, 4, 40)
    estimate = information(answers, causes, permutations=50)
    for layer in range(3):
        joint = np.array([answers[layer, causes == cause].sum(0) for cause in range(4)])
        assert estimate.plug_in[layer] == pytest.approx(naive_bits(joint))
        alone = information(answers[layer], causes, permutations=50)
        for field in ("plug_in", "corrected", "null_95", "p_value"):
            assert getattr(alone, field) == pytest.approx(getattr(estimate, field)[layer]), field
    assert (estimate.n, estimate.permutations) == (40, 50)


def test_labels_are_only_labels():
    rng = np.random.default_rng(1)
    answers, causes = soft(rng, 60, 3), np.array(["sea", "cat", "bread"])[rng.integers(0, 3, 60)]
    renamed = np.array([{"sea": 10, "cat": 20, "bread": 30}[cause] for cause in causes])
    estimate, again = information(answers, causes), information(answers[:, ::-1], renamed)
    assert estimate.plug_in == pytest.approx(again.plug_in)
    assert estimate.corrected == pytest.approx(again.corrected, abs=5e-3)  # other shuffles of the same trials


def test_perfect_answers():
    causes = np.arange(40) % 4
    estimate = information(hard(causes, 4), causes, permutations=500)
    assert estimate.plug_in == pytest.approx(2)
    assert estimate.p_value == pytest.approx(1 / 501)
    assert estimate.null_95 < estimate.corrected < 2


def test_answers_that_never_differ_tell_nothing():
    answers = np.tile([0.7, 0.2, 0.1], (30, 1))
    estimate = information(answers, np.arange(30) % 3, permutations=100)
    assert estimate.plug_in == pytest.approx(0, abs=1e-12)
    assert estimate.corrected == pytest.approx(0, abs=1e-12)
    assert estimate.p_value == 1


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_null_is_calibrated_and_the_correction_takes_the_bias_off(kind):
    """200 experiments without an effect: p is uniform, the plug-in value biased, the corrected one is not."""
    rng = np.random.default_rng(2)
    answers = hard(rng.integers(0, 5, (200, 60)), 5) if kind == "hard" else soft(rng, 200, 60, 5)
    estimate = information(answers, np.arange(60) % 5, permutations=199, seed=3)
    assert stats.kstest(estimate.p_value, "uniform").pvalue > 0.01
    assert abs((estimate.p_value <= 0.05).mean() - 0.05) < 0.04
    assert abs(((estimate.plug_in > estimate.null_95).mean()) - 0.05) < 0.04
    error = estimate.corrected.std() / math.sqrt(200)
    assert abs(estimate.corrected.mean()) < 4 * error
    assert estimate.plug_in.mean() > 10 * error


def test_an_effect_is_found_and_its_size_kept():
    """Answers that are right in 60% of trials, against the value that endless trials would give."""
    rng = np.random.default_rng(4)
    causes = np.tile(np.arange(5), 12)
    answers = np.where(rng.random((100, 60)) < 0.6, causes, rng.integers(0, 5, (100, 60)))
    estimate = information(hard(answers, 5), causes, permutations=199)
    truth = mutual_information(0.6 * np.eye(5) + 0.4 * np.full((5, 5), 0.2))
    assert (estimate.p_value < 0.01).mean() > 0.95
    assert abs(estimate.corrected.mean() - truth) < abs(estimate.plug_in.mean() - truth)
    assert estimate.plug_in.mean() > truth


def test_what_a_block_explains_does_not_count():
    """Answers follow the label order alone, and so do causes: there is information, and none within an order."""
    rng = np.random.default_rng(5)
    blocks = np.repeat([0, 1], 40)
    causes = np.where(rng.random(80) < 0.8, blocks, 1 - blocks)
    answers = soft(rng, 80, 2) * 0.2 + 0.8 * hard(blocks, 2)
    assert information(answers, causes).p_value < 0.01
    within = information(answers, causes, blocks=blocks)
    assert within.p_value > 0.05
    assert abs(within.corrected) < 0.1 * information(answers, causes).corrected
    sealed = information(answers, blocks, blocks=blocks)  # nothing can be permuted
    assert sealed.p_value == 1
    assert sealed.corrected == pytest.approx(0)


def test_miller_madow_takes_most_of_the_bias_off():
    rng = np.random.default_rng(6)
    tables = [rng.multinomial(100, np.full(16, 1 / 16)).reshape(4, 4) for _ in range(300)]
    plug_in = np.mean([mutual_information(table) for table in tables])
    corrected = np.mean([miller_madow(table) for table in tables])
    assert plug_in > 0.05
    assert abs(corrected) < 0.1 * plug_in
    counts = np.array([[5, 1], [2, 8]])
    assert miller_madow(counts) == pytest.approx(naive_bits(counts) - 1 / (32 * math.log(2)))
    with pytest.raises(UsageError, match="soft answers"):
        miller_madow(counts / 2)


def test_accuracy_is_exact_at_each_layer():
    truth = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    right, wrong = hard(truth, 3), hard((truth + 1) % 3, 3)
    half = np.where(np.arange(8)[:, None] < 4, right, wrong)
    shares = accuracy(np.stack([right, wrong, half]), truth)
    assert shares.rate.mean.tolist() == [1, 0, 0.5]
    assert shares.chance == pytest.approx(1 / 3)
    expected = stats.binomtest(4, 8, 1 / 3, alternative="greater")
    assert shares.p_value[2] == pytest.approx(expected.pvalue)
    assert shares.p_value[1] == 1
    interval = expected.proportion_ci  # one-sided; the interval of the rate is two-sided
    assert shares.rate.low[2] < interval().low
    assert accuracy(half, truth, chance=0.5).p_value > shares.p_value[2]


def test_a_tie_is_a_miss():
    assert accuracy(np.full((6, 2), 0.5), np.zeros(6, dtype=int)).rate.mean == 0


@pytest.mark.parametrize(
    ("answers", "causes", "options"),
    [
        (np.full((4, 2), 0.4), np.arange(4), {}),  # not normalised
        (np.array([[1.5, -0.5], [0.5, 0.5]]), np.arange(2), {}),
        (np.array([[math.nan, 1.0], [0.5, 0.5]]), np.arange(2), {}),
        (np.full((4, 2), 0.5), np.arange(3), {}),
        (np.full((4, 2), 0.5), np.arange(4), {"blocks": np.arange(5)}),
        (np.full((4, 2), 0.5), np.zeros(4), {}),  # one cause
        (np.full((4, 2), 0.5), np.arange(4), {"permutations": 0}),
        (np.zeros((0, 2)), np.zeros(0), {}),
    ],
)
def test_trials_that_cannot_be_used(answers, causes, options):
    with pytest.raises(UsageError):
        information(answers, causes, **options)


@pytest.mark.parametrize("truth", [np.array([0, 2]), np.array([-1, 0]), np.array([0])])
def test_truths_that_are_no_options(truth):
    with pytest.raises(UsageError):
        accuracy(np.full((2, 2), 0.5), truth)
