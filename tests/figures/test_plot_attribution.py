"""mi.plot of attributions, of what checks them, and of names: each draws the means of its own table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from conftest import conversation, vector
from figure_reader import axis, bands, legend, points, ticks
from small_saes import dictionary

import mechint as mi
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.base.errors import FeatureWarning, UsageError
from mechint.figures.plot.attribution import together

NAMES = [" the sea", " a cat"]


@pytest.fixture(scope="module")
def tables(tiny_model) -> dict[str, pd.DataFrame]:
    model = tiny_model("qwen2")
    steers = [mi.Injection(vector(model, seed), range(3), 1.0, name=f"steer {seed}") for seed in range(2)]
    reading = mi.Reading.of(model, conversation(), [mi.CLEAN, *steers])
    states = FeatureReading.of(reading, dictionary(model))
    cases, rows = mi.sae.cases_of(states), (1, 2)
    one = mi.sae.attribute(states, 0, 1)
    with pytest.warns(FeatureWarning, match="2 concepts"):
        verdicts = mi.sae.verdict(cases, [int(feature) for feature in one["index"][:2]], n_random=2)
    order = [int(feature) for feature in one.loc[one["kind"] == "feature", "index"]]
    return {
        "one": one,
        "all": mi.sae.attribute_all(states),
        "checked": mi.sae.faithfulness(states, 0, 1, one, top=3, n_random=3),
        "curves": mi.sae.curves(mi.sae.measure(cases, order, [1, 2], n_random=2)),
        "verdicts": verdicts,
        "components": pd.concat([mi.components.direct_logit_attribution(reading, 0, row) for row in rows]),
        "late": mi.components.late_loss(reading, 0, 1, layer=1),
        "cache": pd.concat([mi.kv.attribute(reading, 0, row, window=(1, 4), by_side=True) for row in rows]),
        "gradient": mi.kv.by_gradient(reading, 0, 1),
        "names": mi.name_log_probs(model, conversation(), NAMES, [mi.CLEAN, *steers]),
        "names by layer": mi.name_log_probs(model, conversation(), NAMES, steers[0], layers=range(model.n_layers)),
    }


def _large(figure: go.Figure, name: str) -> list[go.Scatter]:
    """The large points of a series that has them, without the trace that only stands in the legend."""
    return [
        trace
        for trace in figure.data
        if str(trace.name).startswith(name) and trace.error_x.array is not None and None not in trace.x
    ]


def _attributed(figure: go.Figure) -> dict[str, float]:
    """What stands in the panel of attributions, by the names on its axis."""
    rows = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    (trace,) = _large(figure, "attribution under concepts")
    return {rows[round(y)]: float(x) for x, y in zip(trace.x, trace.y, strict=True)}


def test_every_kind_is_drawn(tables: dict[str, pd.DataFrame]):
    for name, table in tables.items():
        figure = mi.plot(table)
        assert figure.data, name
        assert figure.layout.title.text, name
        titled = mi.plot(table, title="Mine")
        assert figure.layout.width == titled.layout.width == 960
        assert titled.layout.title.text == "<b>Mine</b>"


@pytest.mark.parametrize("name", ["one", "all", "gradient"])
def test_attributions_lose_nothing(tables: dict[str, pd.DataFrame], name: str):
    table = tables[name]
    shown, units = _attributed(mi.plot(table)), table["intervention"].nunique()
    assert len(shown) < table["component"].nunique(), "the small ones are drawn together"
    assert sum(shown.values()) == pytest.approx(table["attribution"].sum() / units, rel=1e-5)
    sums = table.groupby("component")["attribution"].sum() / units
    largest = sums[[label for label in shown if label in sums.index]]
    assert [shown[label] for label in largest.index] == pytest.approx(largest.tolist(), abs=1e-6)
    told = "Means over 2 interventions" if units == 2 else "Intervention steer 0"
    assert told in mi.plot(table).layout.title.subtitle.text


def test_activations_are_means_over_all_interventions(tables: dict[str, pd.DataFrame]):
    table = tables["all"]
    strongest = str(table.loc[table["kind"] == "feature", "component"].iloc[0])
    silent = table[(table["component"] != strongest) | (table["intervention"] != "steer 1")]
    figure = mi.plot(silent)
    rows = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    (drawn,) = _large(figure, "concept injected")
    shown = {round(y): float(x) for x, y in zip(drawn.x, drawn.y, strict=True)}
    mine = silent[silent["component"] == strongest]
    assert len(mine) == 1
    assert shown[rows[strongest]] == pytest.approx(mine["injected"].item() / 2)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("one", lambda table: table.assign(attribution=np.nan)),
        ("cache", lambda table: pd.concat([table, table.assign(conversation="other")])),
        ("cache", lambda table: table[table["direction"] == "insert"]),
        ("cache", lambda table: table[table["level"] == "cache"]),
        ("late", lambda table: pd.concat([table, table[table["layer"] > 2].assign(intervention="from a later one")])),
    ],
)
def test_means_that_would_mislead_are_refused(tables: dict[str, pd.DataFrame], name: str, spoil):
    mi.plot(tables[name])
    with pytest.raises(UsageError):
        mi.plot(spoil(tables[name]))


def test_components_are_drawn_by_layer(tables: dict[str, pd.DataFrame]):
    table = tables["components"]
    bars = {trace.name: trace for trace in mi.plot(table).data if trace.type == "bar"}
    expected = table[table["kind"] == "mlp"].groupby("layer")["attribution"].mean()
    assert list(bars["MLP"].y) == pytest.approx(expected.tolist())
    assert "later layers" in mi.plot(tables["late"]).layout.title.text


def test_windows_of_a_cache_are_drawn_in_both_directions(tables: dict[str, pd.DataFrame]):
    table = tables["cache"]
    whole = table[(table["level"] == "window") & (table["side"] == "both") & (table["head"] == -1)]
    heat = [trace for trace in mi.plot(table).data if trace.type == "heatmap"]
    assert len(heat) == 2
    for trace, direction in zip(heat, mi.kv.DIRECTIONS, strict=True):
        mine = whole[whole["direction"] == direction]
        expected = mine.groupby(["pos_start", "layer_start"])["effect"].mean().unstack("layer_start")
        assert np.asarray(trace.z, dtype=float) == pytest.approx(expected.to_numpy(), abs=1e-6)


def test_names_are_probabilities_among_each_other(tables: dict[str, pd.DataFrame]):
    figure = mi.plot(tables["names"])
    (grid,) = figure.data
    assert list(ticks(figure)) == ["the sea", "a cat"]
    assert list(ticks(figure, "y")) == ["clean", "steer 0", "steer 1"]
    weight = np.exp(tables["names"].pivot(index="intervention", columns="name", values="log_p")[NAMES])
    assert np.asarray(grid.z) == pytest.approx(weight.div(weight.sum(axis=1), axis=0).to_numpy())
    curves = [trace for trace in mi.plot(tables["names by layer"]).data if trace.showlegend]
    assert [trace.name for trace in curves] == ["the sea", "a cat"]
    assert np.add(curves[0].y, curves[1].y) == pytest.approx(np.ones(len(curves[0].y)))


def test_verdicts_are_beside_what_was_measured(tables: dict[str, pd.DataFrame]):
    table = tables["verdicts"]
    figure = mi.plot(table)
    drawn = sorted(float(x) for trace in _large(figure, "verdict") for x in trace.x)
    assert drawn == pytest.approx(sorted(table["lost"]))
    assert figure.layout.xaxis2.matches is None, "activations have an axis of their own"


@pytest.mark.parametrize("asked", [{"metric": "attribution"}, {"by": "component"}])
def test_attributions_are_drawn_whole(tables: dict[str, pd.DataFrame], asked: dict[str, str]):
    with pytest.raises(UsageError, match="drawn whole"):
        mi.plot(tables["one"], **asked)


def test_a_table_without_rows_is_refused(tables: dict[str, pd.DataFrame]):
    with pytest.raises(UsageError, match="without rows"):
        mi.plot(tables["one"].iloc[:0])


def _sets(fraction: float = 0.5) -> pd.DataFrame:
    cells = [(test, kind, k) for test in ("necessity", "sufficiency") for kind in ("top", "random") for k in (0, 1, 10)]
    rows = pd.DataFrame(cells, columns=["test", "kind", "k"])
    rows["fraction"] = fraction * rows["k"] / 10
    rows["effect"] = 4.0 * rows["k"] / 10
    for name in ("fraction", "effect"):
        rows[f"{name}_low"], rows[f"{name}_high"] = rows[name] - 0.1, rows[name] + 0.1
    return rows


def test_sets_of_features_are_shares_over_a_logarithmic_axis() -> None:
    figure = together(_sets(), "t", "s")
    assert axis(figure, "x").type == "log"
    assert axis(figure, "y").title.text == "share of the shift that goes"
    assert points(figure, "features with the largest attributions") == [(1, 0.05), (10, 0.5)], "k = 0 has no place"
    np.testing.assert_allclose(bands(figure)[0], [(-0.05, 0.15), (0.4, 0.6)])
    assert len(legend(figure)) == 2


def test_sets_without_a_shift_are_in_logits_and_without_intervals_have_no_bands() -> None:
    figure = together(_sets(np.nan), "t", "s")
    assert axis(figure, "y", 1).title.text == "logits of the shift that comes"
    np.testing.assert_allclose(points(figure, "random sets of equal size"), [(1, 0.4), (10, 4.0)])
    assert not bands(together(_sets().assign(fraction_low=np.nan, fraction_high=np.nan), "t", "s"))
    with pytest.raises(UsageError, match="no curves"):
        together(_sets()[:0], "t", "s")
