"""Readouts are the activations; what tells cells apart is found, noise is not, and nothing is infinite in silence."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import conversation, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from small_saes import dictionary

import mechint as mi
from mechint.attribution.features.discrimination import adjusted, clusters, compare, discriminate, unit_acts
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.feature_table import feature_table
from mechint.attribution.reading import Reading
from mechint.base.errors import UsageError

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def both(tiny_model: Callable[..., mi.Model]) -> list[FeatureReading]:
    """Two conversations, clean, under four concepts and under one random vector."""
    model = tiny_model("qwen2")
    steers = [mi.Injection(vector(model, n), range(3), 1.0, name=f"steer {n}") for n in range(4)]
    drawn = mi.Injection(mi.extract.random_controls(model, n=1)[0], range(3), 1.0, name="noise")
    sae = dictionary(model, kind="topk", d_sae=96)
    chats = [conversation("a"), conversation("b", "is the sea a cat?")]
    return [FeatureReading.of(Reading.of(model, chat, [mi.CLEAN, *steers, drawn]), sae) for chat in chats]


def units(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, index=[f"c{n}" for n in range(len(values))])


# --- readouts


def test_a_table_holds_the_activations(both: list[FeatureReading]):
    table = feature_table(both)
    active = sorted({f for s in both for f in (s.acts != 0).flatten(0, 1).any(0).nonzero()[:, 0].tolist()})
    assert sorted(table["index"].unique()) == active
    assert 0 < len(active) < 96
    assert len(table) == 2 * 6 * len(active) * 3
    assert table.groupby("series").intervention.nunique().to_dict() == {"clean": 1, "injected": 4, "random": 1}
    assert set(table.concept) == {"clean", "v0", "v1", "v2", "v3", "random-0"}
    keyed = table.set_index(["conversation", "intervention", "index", "readout"])
    for states, label in zip(both, "ab", strict=True):
        for row, name in enumerate(states.reading.names):
            feature = active[3 + row]
            acts, clean = states.acts[row, :, feature], states.acts[0, :, feature]
            for readout, value, expected in (
                ("answer", acts[-1], clean[-1]),
                ("read_mean", acts.mean(), clean.mean()),
                ("read_max", acts.max(), clean.max()),
            ):
                cell = keyed.loc[(label, name, feature, readout)]
                assert cell.acts == pytest.approx(float(value), abs=1e-6)
                assert cell.clean == pytest.approx(float(expected), abs=1e-6)
                assert cell.difference == pytest.approx(float(value - expected), abs=1e-6)
                assert cell.logit_diff == pytest.approx(float(states.logit_diffs[row]))
    assert (table[table.series == "clean"].difference == 0).all()
    assert table.component[0] == f"L1 f{active[0]}"


def test_positions_can_be_chosen(both: list[FeatureReading]):
    answer = feature_table(both[0], positions="answer")
    assert set(answer["index"]) == set((both[0].acts[:, -1] != 0).any(0).nonzero()[:, 0].tolist())
    wide = answer.pivot(index=["intervention", "index"], columns="readout", values="acts")
    assert np.allclose(wide["read_mean"], wide["answer"])
    mask = torch.zeros(both[0].resid.shape[1], dtype=torch.bool)
    mask[0] = True
    first = feature_table(both[0], positions=mask).query("readout == 'read_max' and intervention == 'steer 0'")
    assert np.allclose(first.acts, both[0].acts[1, 0][first["index"].tolist()])


def test_units_average_the_conversations_of_a_concept(both: list[FeatureReading]):
    table = feature_table(both)
    acts = unit_acts(table[table.series == "injected"], "answer")
    assert acts.shape == (4, table["index"].nunique())
    feature = acts.columns[5]
    assert acts.loc["v2", feature] == pytest.approx(float(sum(s.acts[3, -1, feature] for s in both) / 2), abs=1e-6)


# --- discrimination


def test_compare_pairs_with_clean_or_takes_two_sets(both: list[FeatureReading]):
    table = feature_table(both)
    injected = table.series == "injected"
    paired = compare(table, injected)
    assert (paired.n_first == 4).all()
    assert {"kind", "component", "layer", "index", "d", "q"} <= set(paired.columns)
    rows = table[injected & (table.readout == "read_mean")]
    top = paired.iloc[0]
    assert (paired.q.dropna().diff().dropna() >= 0).all()
    by_concept = rows[rows["index"] == top["index"]].groupby("concept").difference.mean()
    assert top.difference == pytest.approx(by_concept.mean(), abs=1e-6)
    assert top.d == pytest.approx(by_concept.mean() / by_concept.std(), rel=1e-4)
    assert top.p == pytest.approx(scipy_stats.ttest_1samp(by_concept, 0).pvalue, rel=1e-3)
    first = injected & table.intervention.isin(["steer 0", "steer 1"])
    second = injected & table.intervention.isin(["steer 2", "steer 3"])
    two = compare(table, first, second, readout="answer")
    assert (two.n_second == 2).all()
    assert len(two) == len(paired)


def test_d_and_p_are_the_known_ones():
    a, b = RNG(0).normal(1, 2, (12, 5)), RNG(1).normal(0, 1, (9, 5))
    ranked = discriminate(units(a), units(b)).set_index("index")
    for feature in range(5):
        x, y = a[:, feature], b[:, feature]
        pooled = np.sqrt((11 * x.var(ddof=1) + 8 * y.var(ddof=1)) / 19)
        assert ranked.d[feature] == pytest.approx((x.mean() - y.mean()) / pooled)
        assert ranked.p[feature] == pytest.approx(scipy_stats.ttest_ind(x, y, equal_var=False).pvalue)
        assert ranked.d_low[feature] < ranked.d[feature] < ranked.d_high[feature]
    assert np.allclose(ranked.q, pd.Series(adjusted(ranked.p.to_numpy()), ranked.index))
    swapped = discriminate(units(b), units(a)).set_index("index").loc[ranked.index]
    assert np.allclose(swapped.d, -ranked.d)
    assert np.allclose(swapped.p, ranked.p)


def test_intervals_of_d_cover_it():
    truth, rng = 1.0, RNG(3)
    a, b = rng.normal(truth, 1, (12, 2000)), rng.normal(0, 1, (12, 2000))
    ranked = discriminate(units(a), units(b))
    assert 0.92 < ((ranked.d_low < truth) & (truth < ranked.d_high)).mean() < 0.98
    pairs = discriminate(units(a), units(np.zeros_like(a)), paired=True)
    assert 0.90 < ((pairs.d_low < truth) & (truth < pairs.d_high)).mean() < 0.98


def test_permutation_is_exact_for_few_units():
    a, b = np.array([[4.0], [5.0], [6.0]]), np.array([[1.0], [2.0], [3.0]])
    assert discriminate(units(a), units(b), test="permutation").p[0] == pytest.approx(2 / 20)
    assert discriminate(units(a), units(b), paired=True, test="permutation").p[0] == pytest.approx(2 / 8)
    assert discriminate(units(a), units(np.array([[1.0], [1.5], [3.0]])), paired=True, test="permutation").p[
        0
    ] == pytest.approx(2 / 8)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("test", ["t", "permutation"])
def test_constant_features_and_no_spread_are_told_apart(test: str, paired: bool):
    varying = RNG(0).normal(3, 1, (8, 1))
    a = np.hstack([np.zeros((8, 1)), np.full((8, 1), 5.0), np.full((8, 1), 2.0), varying])
    b = np.hstack([np.zeros((8, 1)), np.full((8, 1), 5.0), np.full((8, 1), 0.0), varying - 2 + 0.1 * a[:, 3:] ** 2])
    ranked = discriminate(units(a), units(b), paired=paired, test=test).set_index("index")
    assert not np.isinf(ranked.select_dtypes("number")).any().any()
    assert ranked.loc[[0, 1], ["d", "p", "q"]].isna().all().all()
    assert np.isnan(ranked.d[2])
    assert not ranked.spread[2]
    assert ranked.p[2] == pytest.approx(2 / 2**8 if paired else 2 / 12870, rel=1 if not paired else 1e-6)
    assert ranked.spread[3]
    assert np.isfinite(ranked.loc[3, ["d", "p", "q"]].astype(float)).all()
    assert set(ranked.index[:2]) == {2, 3}  # the surest first, constant ones last


def test_rounding_is_no_spread():
    a = np.full((6, 1), 5.0) + RNG(0).normal(0, 1e-7, (6, 1))
    b = np.full((6, 1), 5.0) + RNG(1).normal(0, 1e-7, (6, 1))
    assert discriminate(units(a), units(b)).d.isna().all()


@pytest.mark.parametrize("paired", [False, True])
def test_noise_is_seldom_discovered(paired: bool):
    """Under pure noise any discovery is false: it may happen in 5% of tables."""
    rng, tables = RNG(0), 100
    hits = [
        (discriminate(units(rng.normal(size=(8, 100))), units(rng.normal(size=(8, 100))), paired=paired).q < 0.05).any()
        for _ in range(tables)
    ]
    assert np.mean(hits) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / tables)


def test_discoveries_among_noise_are_mostly_true():
    rng, shares = RNG(1), []
    for _ in range(50):
        shifted = np.where(np.arange(100) < 20, 3.0, 0.0)
        ranked = discriminate(units(rng.normal(size=(8, 100)) + shifted), units(rng.normal(size=(8, 100))))
        chosen = ranked[ranked.q < 0.05]
        assert (chosen["index"] < 20).sum() > 10
        shares.append((chosen["index"] >= 20).mean())
    assert np.mean(shares) < 0.07


def test_missing_p_values_are_no_tests():
    p = np.array([0.01, np.nan, 0.04])
    assert np.allclose(adjusted(p), [0.02, np.nan, 0.04], equal_nan=True)
    assert np.isnan(adjusted(np.array([np.nan]))).all()


# --- clusters


def test_clusters_are_the_planted_groups():
    rng = RNG(0)
    base = rng.normal(size=(40, 3))
    noise = 0.1 * rng.normal(size=(40, 6))
    frame = pd.DataFrame(base[:, [0, 0, 0, 1, 1, 2]] * [1, 2, -1, 1, 1, 1] + noise, columns=[10, 20, 30, 40, 50, 60])
    frame[70] = 4.0
    clustered = clusters(frame).set_index("index")
    groups = clustered.groupby("cluster").apply(lambda group: frozenset(group.index), include_groups=False)
    assert groups.tolist() == [{10, 20, 30}, {40, 50}, {60}, {70}]
    assert clustered.r[30] * clustered.r[10] < 0
    assert np.isnan(clustered.r[70])
    assert clustered["size"].tolist() == [3, 3, 3, 2, 2, 1, 1]
    for name, group in groups.items():
        assert clustered.representative[clustered.cluster == name].isin(group).all()
    alone = clustered.representative == clustered.index
    assert clustered.r[alone].dropna().tolist() == pytest.approx([1, 1, 1])
    assert alone.sum() == 4


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 10), st.integers(1, 8), st.floats(0.05, 1.0))
def test_clusters_are_a_partition(seed: int, cells: int, features: int, threshold: float):
    values = RNG(seed).integers(0, 3, (cells, features)).astype(float)
    clustered = clusters(values, threshold)
    assert sorted(clustered["index"]) == list(range(features))
    assert (clustered.groupby("cluster").size() == clustered.groupby("cluster")["size"].first()).all()
    assert clustered.groupby("cluster").representative.nunique().eq(1).all()
    assert clustered["size"].is_monotonic_decreasing


def test_tight_and_loose_thresholds():
    values = RNG(0).normal(size=(10, 6))
    assert clusters(values, 1.0).cluster.nunique() == 6
    assert clusters(values, 0.01).cluster.nunique() < 6


# --- bad input; what type checking would refuse before us in the tests is given to the function under it


@pytest.mark.parametrize(
    "call",
    [
        lambda a: discriminate(a, a.iloc[:1]),
        lambda a: discriminate(a, a.iloc[:, :2]),
        lambda a: discriminate(a, a.rename(index={"c0": "other"}), paired=True),
        lambda a: discriminate(a, a.mask(a > 1)),
        lambda a: unwrap(discriminate)(a, a, test="z"),
        lambda a: clusters(a.iloc[:2]),
        lambda a: clusters(a, 0.0),
        lambda a: clusters(a.mask(a > 1)),
    ],
)
def test_bad_input(call: Callable[[pd.DataFrame], object]):
    with pytest.raises(UsageError):
        call(units(RNG(0).normal(size=(8, 4))))


def test_bad_tables(both: list[FeatureReading]):
    table = feature_table(both)
    with pytest.raises(UsageError, match="no cells"):
        compare(table, table.series == "swapped")
    with pytest.raises(UsageError, match="median"):
        unwrap(unit_acts)(table, "median")
    with pytest.raises(UsageError, match="two units"):
        compare(table, table.series == "random")
    with pytest.raises(UsageError, match="one dictionary"):
        feature_table([])
