"""What a text gives away is foretold, and nothing else; strata keep kappa from what they alone explain."""

from __future__ import annotations

import numpy as np
import pytest

from mechint.base.errors import UsageError
from mechint.stats.agreement import kappa_interval, mode_baseline
from mechint.stats.text_classifier import foretold_from_text

WORDS = ("river", "stone", "lamp", "music", "bread", "chair")


def drawn(count: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts that begin with "please" or not, which of both they do, and random labels."""
    rng = np.random.default_rng(seed)
    polite = rng.random(count) < 0.5
    texts = [f"{'please ' if first else ''}name a {rng.choice(WORDS)} {rng.integers(99)}" for first in polite]
    return texts, np.where(polite, "yes", "no"), rng.choice(["yes", "no"], count)


def test_what_the_text_gives_away_is_foretold_and_nothing_else() -> None:
    texts, labels, chance = drawn(80, seed=0)
    units = np.arange(80).astype(str)
    assert (foretold_from_text(texts, labels, units) == labels).mean() > 0.95
    assert 0.3 < (foretold_from_text(texts, chance, units) == chance).mean() < 0.7
    assert (foretold_from_text(texts, labels, units) == foretold_from_text(texts, labels, units)).all()


def test_a_text_is_never_foretold_from_its_own_unit() -> None:
    """Each text comes twice with a label of its own: it could be looked up, were its unit not left out."""
    rng = np.random.default_rng(1)
    texts = [f"{rng.choice(WORDS)} {number}" for number in range(60)]
    labels, units = rng.choice(["yes", "no"], 60), np.arange(60).astype(str)
    twice, both = [*texts, *texts], np.concatenate([labels, labels])
    single = foretold_from_text(twice, both, np.arange(120).astype(str))
    assert (single == both).mean() > 0.8
    apart = foretold_from_text(twice, both, np.concatenate([units, units]))
    assert (apart == both).mean() < 0.7


def test_too_little_to_learn_from() -> None:
    assert list(foretold_from_text(["a"], np.array(["x"]), np.array(["u"]))) == [""]
    assert list(foretold_from_text(["a", "b"], np.array(["x", "x"]), np.array(["u", "v"]))) == ["x", "x"]
    with pytest.raises(UsageError, match="1 texts, 2 labels"):
        foretold_from_text(["a"], np.array(["x", "y"]), np.array(["u", "v"]))


def test_strata_are_no_agreement() -> None:
    """Of two tasks with labels of their own a guesser that knows the task alone agrees by chance."""
    rng = np.random.default_rng(2)
    strata = np.repeat(["animal", "colour"], 400)
    labels = np.where(strata == "animal", rng.choice(["cat", "dog"], 800), rng.choice(["red", "blue"], 800))
    guesses = np.where(strata == "animal", rng.choice(["cat", "dog"], 800), rng.choice(["red", "blue"], 800))
    units = [np.arange(800) // 8]
    assert float(kappa_interval(labels, guesses, units).mean) > 0.2, "as if it knew something"
    within = kappa_interval(labels, guesses, units, strata=strata)
    assert within.low < 0 < within.high
    assert kappa_interval(labels, labels, units, strata=strata).mean == 1.0
    assert mode_baseline(labels) < 0.35
    assert mode_baseline(labels, strata=strata) >= 0.5


def test_a_single_stratum_is_none() -> None:
    rng = np.random.default_rng(3)
    labels, guesses = rng.choice(list("abc"), 60), rng.choice(list("abc"), 60)
    plain = kappa_interval(labels, guesses, [np.arange(60)])
    same = kappa_interval(labels, guesses, [np.arange(60)], strata=np.full(60, "all"))
    assert (float(plain.mean), float(plain.low)) == pytest.approx((float(same.mean), float(same.low)))
    assert mode_baseline(labels, strata=np.full(60, "all")) == mode_baseline(labels)
