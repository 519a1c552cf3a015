"""Kappa, baselines, compression and divergences, each against what is known without it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import distance

from mechint.base.errors import UsageError
from mechint.stats.agreement import kappa_interval, mode_baseline
from mechint.stats.compression import compression, matched_contrast
from mechint.stats.divergence import coverage, js_divergence, kl_divergence


def test_kappa_is_what_there_is_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    actual = rng.choice(list("abc"), 3000, p=[0.8, 0.15, 0.05])
    units = [np.arange(3000) // 30]
    assert kappa_interval(actual, actual, units).mean == 1.0
    guessed = rng.choice(list("abc"), 3000, p=[0.8, 0.15, 0.05])
    chance = kappa_interval(actual, guessed, units)
    assert (actual == guessed).mean() > 0.6, "right more often than not, and yet:"
    assert chance.low < 0 < chance.high < 0.1
    half = np.where(rng.random(3000) < 0.5, actual, guessed)
    assert float(kappa_interval(actual, half, units).mean) == pytest.approx(0.5, abs=0.05)


def test_an_answer_that_is_always_the_same_predicts_nothing() -> None:
    actual = np.array(["no"] * 9 + ["yes"])
    assert kappa_interval(actual, np.array(["no"] * 10), [np.arange(10)]).mean == 0.0
    assert mode_baseline(actual) == 0.9
    assert np.isnan(kappa_interval(actual[:9], actual[:9], [np.arange(9)]).mean)


def test_shift_and_compression_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(-2, 3, 60)
    line = compression(base, 1.5 + 0.5 * base + 0.1 * rng.normal(size=60), np.arange(60))
    assert line.shift.low < 1.5 < line.shift.high
    assert line.slope.low < 0.5 < line.slope.high
    assert float(line.shift.high - line.shift.low) < 0.2
    assert np.isnan(compression(np.zeros(5), np.ones(5), np.arange(5)).slope.mean)


def test_intervals_of_a_line_hold_it() -> None:
    rng, held = np.random.default_rng(2), []
    for _ in range(200):
        base = rng.normal(-2, 2, 12)
        line = compression(base, 0.3 + 0.8 * base + rng.normal(size=12), np.arange(12))
        held.append((line.shift.low < 0.3 < line.shift.high, line.slope.low < 0.8 < line.slope.high))
    assert (np.mean(held, axis=0) > 0.9).all()


def test_items_are_matched_with_controls_on_what_the_base_said() -> None:
    rng = np.random.default_rng(3)
    base = np.concatenate([rng.normal(-4, 1, 20), rng.normal(0, 4, 40)])
    is_control = np.arange(60) >= 20
    after = 0.5 * base + 0.1 * rng.normal(size=60)
    contrast, outside = matched_contrast(base, after, is_control, np.arange(60))
    assert contrast.low < 0 < contrast.high, "indifference is no stance"
    assert (after - base)[~is_control].mean() > 1.5, "as a mean shift it would be"
    assert outside < 0.1
    assert matched_contrast(base, after + 1.5 * ~is_control, is_control, np.arange(60))[0].low > 1.3
    assert matched_contrast(base - 50.0 * ~is_control, after, is_control, np.arange(60))[1] == 1.0
    with pytest.raises(UsageError, match="controls"):
        matched_contrast(base, after, is_control | True, np.arange(60))


def test_divergences_are_those_of_scipy_and_say_what_was_not_reported() -> None:
    first, second = np.random.default_rng(4).dirichlet(np.ones(7), (2, 5))
    expected = distance.jensenshannon(first, second, base=2, axis=-1) ** 2
    assert js_divergence(first, second) == pytest.approx(expected)
    assert js_divergence(first, 9 * first) == pytest.approx(np.zeros(5), abs=1e-12)
    apart = np.array([[1.0, 0.0]]), np.array([[0.0, 3.0]])
    assert js_divergence(*apart) == pytest.approx([1.0])
    assert np.isinf(kl_divergence(*apart, alpha=0.0))
    assert coverage(*apart) == [0.0]
    assert coverage(np.array([3.0, 1.0]), np.array([0.2, 0.0])) == 0.75
    with pytest.raises(UsageError, match="no distribution"):
        js_divergence(np.zeros(3), np.ones(3))


def test_the_smoothing_decides_a_divergence_of_what_was_not_reported() -> None:
    actual, reported = np.array([90.0, 10.0]), np.array([100.0, 0.0])
    values = [float(kl_divergence(actual, reported, alpha=alpha)) for alpha in (1e-6, 1e-3, 1.0)]
    assert values[0] > 1.5 * values[1] > 5 * values[2]
    assert js_divergence(actual, reported) < 0.06
