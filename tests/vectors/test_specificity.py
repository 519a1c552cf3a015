"""Specificity: cosines of vectors with a shared part, and the names that rise under each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import vector

import mechint as mi
from mechint.base.errors import LayerRangeError, UsageError
from mechint.vectors import specificity

NAMES = ("cats", "bread", "sea", "model")


def vectors(topic: float) -> dict[str, mi.ConceptVector]:
    """Orthogonal unit vectors plus `topic` times one direction that they share, at layers 0 and 2."""
    axes = torch.eye(len(NAMES) + 1)
    return {
        name: mi.ConceptVector(dict.fromkeys((0, 2), axes[at] + topic * axes[-1]), name)
        for at, name in enumerate(NAMES)
    }


@pytest.mark.parametrize("topic", [0.0, 0.5, 3.0])
def test_cosines_of_vectors_that_share_a_direction(topic):
    cosines = specificity.cosines(vectors(topic), [0, 2])
    expected = topic**2 / (1 + topic**2)
    assert cosines.names == NAMES
    np.testing.assert_allclose(cosines.matrix, expected + (1 - expected) * np.eye(4), atol=1e-7)
    assert cosines.mean == cosines.mean_size == pytest.approx(expected, abs=1e-7)
    assert cosines.mean_by_layer == pytest.approx({0: expected, 2: expected}, abs=1e-7)


def test_cosines_without_the_mean_of_the_others_and_with_either_sign():
    plain = vectors(3.0)
    centred = {name: v - sum((o for o in plain.values() if o is not v), v * 0) / 3 for name, v in plain.items()}
    assert specificity.cosines(centred, [0]).mean == pytest.approx(-1 / 3)
    turned = specificity.cosines({**plain, "cats": -plain["cats"]}, [0])
    assert (turned.mean, turned.mean_size) == (pytest.approx(0.0, abs=1e-7), pytest.approx(0.9))


def test_a_vector_that_is_zero_at_a_layer_has_no_cosine_there():
    partial = vectors(0.5)
    partial["cats"] = mi.ConceptVector({0: torch.zeros(5), 2: partial["cats"].vectors[2]}, "cats")
    cosines = specificity.cosines(partial, [0, 2])
    assert np.isnan(cosines.values[0, 0]).all()
    assert np.isnan(cosines.mean_by_layer[0])
    assert cosines.mean == pytest.approx(0.2)  # of layer 2 for pairs with cats
    assert np.isnan(specificity.cosines(partial, [0]).mean)


def test_cosines_that_there_are_not():
    with pytest.raises(UsageError, match="two or more"):
        specificity.cosines({"cats": vectors(0.0)["cats"]}, [0])
    with pytest.raises(UsageError, match="0 layers"):
        specificity.cosines(vectors(0.0), [])
    with pytest.raises(LayerRangeError):
        specificity.cosines(vectors(0.0), [1])


def table(effect: np.ndarray) -> pd.DataFrame:
    """A table as `mi.text_loss` writes it: two texts, read clean and under each injection, with `effect` in nats."""
    base = np.array([[-9.0, -5.0, -12.0, -7.0], [-8.0, -6.0, -12.5, -7.0]])
    rows = []
    for text, clean in enumerate(base):
        levels = {"clean": clean, **{f"{name}@0.1": clean + effect[at] for at, name in enumerate(NAMES)}}
        for intervention, log_p in levels.items():
            named = {f"log_p_{name}": value for name, value in zip(NAMES, log_p, strict=True)}
            rows.append({"text": text, "intervention": intervention, **named})
    return pd.DataFrame(rows)


STEERED = {name: f"{name}@0.1" for name in NAMES}


def test_rises_are_steered_less_clean():
    effect = np.arange(16.0).reshape(4, 4)
    rises = specificity.name_rises(table(effect), STEERED)
    np.testing.assert_allclose(rises.to_numpy(), effect)
    assert list(rises.index) == list(rises.columns) == list(NAMES)
    losses = table(effect)
    losses.loc[(losses["text"] == 1) & (losses["intervention"] == "sea@0.1"), "log_p_cats"] = np.nan
    assert np.isnan(specificity.name_rises(losses, STEERED).loc["sea", "cats"])


def test_rises_of_a_real_table(model):
    injections = [mi.Injection(vector(model, at), layers=[1], strength=2.0, name=n) for at, n in enumerate(NAMES)]
    words = {name: f" {name}" for name in NAMES}
    losses = mi.text_loss(model, ["Tell me about cats.", "yes or no"], [mi.CLEAN, *injections], words=words)
    rises = specificity.name_rises(losses, {name: name for name in NAMES})
    means = losses.groupby("intervention")["log_p_sea"].mean()
    assert rises.loc["bread", "sea"] == pytest.approx(means["bread"] - means["clean"])
    assert specificity.specificity(rises).chance == 0.25


def test_specific_vectors_raise_their_own_name():
    effect = np.full((4, 4), 1.0) + np.diag([2.0, 3.0, 4.0, 5.0])
    measured = specificity.specificity(pd.DataFrame(effect, NAMES, NAMES))
    assert measured.own_minus_others.mean == pytest.approx(3.5)
    assert measured.own_minus_others.low > 0
    assert list(measured.by_concept["own_minus_others"]) == [2.0, 3.0, 4.0, 5.0]
    assert (float(measured.own_first.mean), float(measured.own_first.high)) == (1.0, 1.0)
    assert measured.own_first.low == pytest.approx(0.025**0.25)
    assert measured.own_first.n == 4


def test_the_share_has_the_exact_interval():
    effect = np.diag([2.0, 3.0, 4.0, -1.0])  # the last concept's own name falls
    share = specificity.specificity(pd.DataFrame(effect, NAMES, NAMES)).own_first
    exact = mi.intervals.binomial_interval(3, 4)
    assert (share.mean, share.low, share.high) == (0.75, exact.low, exact.high)


def test_vectors_that_steer_alike_are_at_chance():
    alike = specificity.specificity(pd.DataFrame(np.tile([1.0, 5.0, 2.0, 3.0], (4, 1)), NAMES, NAMES))
    assert alike.own_minus_others.mean == pytest.approx(0.0, abs=1e-12)
    assert alike.own_first.mean == alike.chance == 0.25
    nothing = specificity.specificity(pd.DataFrame(np.zeros((4, 4)), NAMES, NAMES))
    assert nothing.own_first.mean == 0.25
    assert nothing.own_minus_others.mean == 0.0


def test_what_is_missing_stays_missing_and_columns_are_known_by_name():
    effect = pd.DataFrame(np.diag([2.0, 3.0, 4.0, 5.0]), NAMES, NAMES)
    turned = specificity.specificity(effect[list(reversed(NAMES))])
    assert turned.own_first.mean == 1.0
    effect.loc["sea", "cats"] = np.nan
    measured = specificity.specificity(effect)
    assert np.isnan(measured.own_first.mean)
    assert np.isnan(measured.own_minus_others.mean)
    assert measured.by_concept["own_first"].isna().tolist() == [False, False, True, False]


def test_tables_that_do_not_fit_are_refused():
    effect = np.zeros((4, 4))
    with pytest.raises(UsageError, match="log_p_trees"):
        specificity.name_rises(table(effect), {"trees": "cats@0.1", "cats": "cats@0.1"})
    with pytest.raises(UsageError, match=r"cats@0\.2"):
        specificity.name_rises(table(effect), {**STEERED, "cats": "cats@0.2"})
    with pytest.raises(UsageError, match="each once"):
        specificity.specificity(pd.DataFrame(np.zeros((2, 2)), ["a", "b"], ["a", "c"]))
    with pytest.raises(UsageError, match="two concepts"):
        specificity.specificity(pd.DataFrame([[0.0]], ["a"], ["a"]))
