"""Attributed against measured effects: what is compared is what setting features does, and ranks are SciPy's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from conftest import conversation, vector
from scipy import stats
from small_saes import dictionary

import mechint as mi
from mechint.attribution.features import loading
from mechint.attribution.features.attribution import attribute, attribute_all
from mechint.attribution.features.faithfulness import MEASURED, faithfulness, rank_correlation, recovered_by_top
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.reading import Reading
from mechint.base.errors import UsageError
from mechint.organisms.truth.wording import Wording


def states_of(model: mi.Model, layer: int = 1) -> FeatureReading:
    steer = mi.Injection(vector(model), range(3), 1.0, name="steer")
    other = mi.Injection(vector(model, seed=1), range(3), 0.5, name="other")
    reading = Reading.of(model, conversation(), [mi.CLEAN, steer, other])
    return FeatureReading.of(reading, dictionary(model, layer))


def features_of(table: pd.DataFrame) -> list[int]:
    return table.loc[table["kind"] == "feature", "index"].tolist()


def test_measured_effects_are_those_of_single_edits(model: mi.Model):
    states = states_of(model)
    attributions = attribute(states, 0, 1)
    table = faithfulness(states, 0, 1, attributions, top=3, n_random=4)
    clean, injected = states.logit_diffs[:2].tolist()
    assert table["chosen"].tolist() == ["top"] * 3 + ["random"] * 4
    assert table["index"][:3].tolist() == features_of(attributions)[:3]
    assert table["index"].is_unique
    for row in table.itertuples():
        feature = [row.index]
        added = states.with_features(0, feature, states.acts[1][:, feature])
        removed = states.with_features(1, feature, states.acts[0][:, feature])
        addition = float(states.reading.logit_diffs([0], resid=added[None], layer=1))
        assert row.added == pytest.approx(addition - clean, abs=1e-5)
        removal = float(states.reading.logit_diffs([1], resid=removed[None], layer=1))
        assert row.removed == pytest.approx(injected - removal, abs=1e-5)
        assert row.measured == pytest.approx((row.added + row.removed) / 2)
        attributed = attributions.loc[attributions["index"] == row.index, "attribution"]
        assert row.attribution == float(attributed.iloc[0])
    assert table["added"].abs().max() > 1e-3


def test_measured_against_itself_is_faithful(model: mi.Model):
    states = states_of(model)
    for base, column in (("clean", "added"), ("injected", "removed")):
        table = faithfulness(states, 0, 1, attribute(states, 0, 1, method="patching", base=base))
        assert table["attribution"].tolist() == pytest.approx(table[column].tolist(), abs=1e-6)
        assert rank_correlation(table, column).mean > 0.99


def test_good_attributions_rank_better_than_shuffled_ones(model: mi.Model):
    states = states_of(model)
    table = faithfulness(states, 0, 1, attribute(states, 0, 1, method="integrated"))
    correlation = rank_correlation(table)
    assert correlation.mean > 0.8
    assert correlation.low <= correlation.mean <= correlation.high <= 1
    assert correlation.n == len(table)
    shuffled = table.assign(attribution=np.random.default_rng(0).permutation(table["attribution"]))
    assert rank_correlation(shuffled).high < correlation.low


def test_the_draw_is_seeded(model: mi.Model):
    states = states_of(model)
    attributions = attribute(states, 0, 1)
    first = faithfulness(states, 0, 1, attributions, top=2, n_random=5, seed=0)["index"].tolist()
    again = faithfulness(states, 0, 1, attributions, top=2, n_random=5, seed=0)["index"].tolist()
    other = faithfulness(states, 0, 1, attributions, top=2, n_random=5, seed=1)["index"].tolist()
    assert first == again != other
    assert len(faithfulness(states, 0, 1, attributions, top=2, n_random=0)) == 2
    everything = faithfulness(states, 0, 1, attributions, top=10_000, n_random=10_000)
    assert sorted(everything["index"]) == sorted(features_of(attributions))


def test_rows_of_other_runs_are_left_out(model: mi.Model):
    states = states_of(model)
    joined = pd.concat([attribute_all(states), attribute(states, 0, 1, base="injected").assign(intervention="else")])
    alone = faithfulness(states, 0, 2, attribute(states, 0, 2), top=4, n_random=3)
    pd.testing.assert_frame_equal(faithfulness(states, 0, 2, joined, top=4, n_random=3), alone, atol=1e-6)


def fake(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"conversation": "c", "intervention": "i", **columns})


def test_ranks_are_those_of_scipy():
    rng = np.random.default_rng(0)
    attributed = rng.normal(size=40).round(1)  # with ties
    measured = (attributed + rng.normal(size=40)).round(1)
    correlation = rank_correlation(fake(attribution=attributed, measured=measured))
    assert correlation.mean == pytest.approx(stats.spearmanr(attributed, measured).statistic)
    pairs = rng.integers(40, size=(300, 40))
    drawn = [stats.spearmanr(attributed[pick], measured[pick]).statistic for pick in pairs]
    assert (correlation.low, correlation.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.08)


def test_concepts_are_the_units_where_there_are_several():
    ranks = np.arange(5.0)
    parts = [
        (concept, text, values)
        for concept, text, values in (("a", "1", ranks), ("a", "2", -ranks), ("b", "1", ranks), ("c", "1", ranks))
    ]
    table = pd.concat(
        fake(attribution=ranks, measured=values).assign(intervention=concept, conversation=text)
        for concept, text, values in parts
    )
    correlation = rank_correlation(table)
    assert correlation.n == 3
    assert correlation.mean == pytest.approx((0 + 1 + 1) / 3)
    named = table.assign(concept=table["intervention"].replace({"c": "b"}))
    assert rank_correlation(named, unit="concept").n == 2
    both = rank_correlation(table[table["intervention"] == "a"])
    assert both.mean == 0
    assert np.isnan(both.low)


def test_equal_effects_have_no_ranks():
    correlation = rank_correlation(fake(attribution=[1.0, 2.0, 3.0], measured=[0.5, 0.5, 0.5]))
    assert np.isnan([correlation.mean, correlation.low, correlation.high]).all()
    few = rank_correlation(fake(attribution=[1.0, 2.0], measured=[0.5, 0.7]))
    assert few.mean == 1
    assert np.isnan(few.low)


def test_what_the_top_brings_back(model: mi.Model):
    states = states_of(model)
    order = features_of(attribute(states, 0, 1, method="patching"))
    table = recovered_by_top(states, 0, 1, order, [0, 2, len(order)])
    clean, injected = states.logit_diffs[:2].tolist()
    assert table["logit_diff"][0] == clean
    assert table["recovered"][0] == 0
    two = states.with_features(0, order[:2], states.acts[1][:, order[:2]])
    expected = float(states.reading.logit_diffs([0], resid=two[None], layer=1))
    assert table["logit_diff"][1] == pytest.approx(expected, abs=1e-5)
    assert table["recovered"][1] == pytest.approx((expected - clean) / (injected - clean), abs=1e-4)
    assert table["recovered"][2] == pytest.approx(table.attrs["recovered_by_all"], abs=1e-4)
    assert table.attrs["logit_diff_shift"] == pytest.approx(injected - clean)


def test_nothing_is_missing_behind_the_last_block(model: mi.Model):
    states = states_of(model, layer=model.n_layers - 1)
    table = recovered_by_top(states, 0, 1, [0], [1])
    assert table.attrs["recovered_by_stream"] == pytest.approx(1, abs=1e-4)
    first = recovered_by_top(states_of(model, layer=-1), 0, 1, [0], [1])
    assert first.attrs["recovered_by_all"] == 0
    assert first.attrs["recovered_by_stream"] == pytest.approx(0, abs=1e-5)
    assert recovered_by_top(states, 0, 0, [0], [0, 1])["recovered"].isna().all()


@pytest.mark.parametrize(
    "call",
    [
        lambda s, t: faithfulness(s, 0, 3, t),
        lambda s, t: faithfulness(s, 0, 2, t),
        lambda s, t: faithfulness(s, 0, 1, t, top=0),
        lambda s, t: faithfulness(s, 0, 1, t, n_random=-1),
        lambda s, t: faithfulness(s, 0, 1, t.drop(columns="kind")),
        lambda s, t: faithfulness(s, 0, 1, t.assign(layer=2)),
        lambda s, t: faithfulness(s, 0, 1, t[t["kind"] == "cache"]),
        lambda s, t: rank_correlation(t),
        lambda s, t: rank_correlation(t, "attribution"),
        lambda s, t: rank_correlation(faithfulness(s, 0, 1, t)[:0]),
        lambda s, t: rank_correlation(faithfulness(s, 0, 1, t), unit="nobody"),
        lambda s, t: recovered_by_top(s, 0, 1, [0, 1], [3]),
        lambda s, t: recovered_by_top(s, 0, 1, [0, 1], []),
        lambda s, t: recovered_by_top(s, 0, 1, [48], [1]),
        lambda s, t: recovered_by_top(s, 0, 5, [0], [1]),
    ],
)
def test_bad_input(model: mi.Model, call: Callable[[FeatureReading, pd.DataFrame], object]):
    states = states_of(model)
    with pytest.raises(UsageError):
        call(states, attribute(states, 0, 1))


def test_the_organism(family: dict[str, mi.Model], wording: Wording):
    model = family["organism"]
    cats = mi.extract.mean_difference(model, ["cats"])["cats"]
    steer = mi.Injection(cats, range(2, 5), relative_strength=0.4, name="cats")
    chat = wording.detection("introspection", "yes-no", 2)[0]
    states = FeatureReading.of(Reading.of(model, chat, [mi.CLEAN, steer]), loading.load(model, 6))
    attributions = attribute(states, 0, 1, method="integrated")
    table = faithfulness(states, 0, 1, attributions)
    assert rank_correlation(table).low > 0.6
    assert all(rank_correlation(table, name).mean > 0.5 for name in MEASURED)
    order = features_of(attributions)
    recovered = recovered_by_top(states, 0, 1, order, [0, 5, 20])["recovered"]
    assert recovered[2] > 0.7
    assert recovered[1] > 0.4
    unlikely = recovered_by_top(states, 0, 1, order[::-1], [20])["recovered"]
    assert abs(unlikely[0]) < 0.1
