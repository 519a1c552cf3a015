"""The waterfall of components: what is drawn where, and that it can be read without colour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from mechint import figures
from mechint.figures.style import BLUE

N_LAYERS = 4


def _bars(rest: float = 0.5) -> pd.DataFrame:
    rows = [(-1, "embed", 0.1), (N_LAYERS, "rest", rest)]
    rows += [
        (layer, kind, sign * (layer + 0.5)) for layer in range(N_LAYERS) for kind, sign in (("attn", 1), ("mlp", -1))
    ]
    bars = pd.DataFrame(rows, columns=["layer", "kind", "mean"])
    return bars.assign(low=bars["mean"] - 0.1, high=bars["mean"] + 0.3)


def _sums(bars: pd.DataFrame) -> pd.DataFrame:
    sums = bars.groupby("layer")["mean"].sum().cumsum().reset_index()
    return sums.assign(low=sums["mean"] - 0.1, high=sums["mean"] + 0.1)


def _heads() -> pd.DataFrame:
    rows = [(layer, head, layer * (head - 1) / 4) for layer in range(N_LAYERS) for head in range(4)]
    return pd.DataFrame(rows, columns=["layer", "index", "mean"])


def _draw(bars: pd.DataFrame, **options: object) -> go.Figure:
    words = {"title": "what writes the answer", "subtitle": "n = 8", "label": "part of the shift"}
    return figures.waterfall(bars, _sums(bars), **words, **options)


def _named(figure: go.Figure) -> dict[str, go.Bar]:
    return {trace.name: trace for trace in figure.data if isinstance(trace, go.Bar)}


def _marks(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if isinstance(trace, go.Scatter) and trace.mode == "markers+text"]


def test_bars_stand_beside_their_layer_with_their_interval():
    traces = _named(_draw(_bars()))
    attention, mlp = traces["attention"], traces["MLP"]
    np.testing.assert_allclose(attention.y, [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(mlp.y, [-0.5, -1.5, -2.5, -3.5])
    np.testing.assert_allclose((np.array(attention.x) + np.array(mlp.x)) / 2, range(N_LAYERS))
    np.testing.assert_allclose(np.array(mlp.x) - np.array(attention.x), attention.width)
    np.testing.assert_allclose(attention.error_y.array, 0.3)
    np.testing.assert_allclose(attention.error_y.arrayminus, 0.1)


def test_the_sum_ends_at_the_total():
    bars = _bars()
    line = next(trace for trace in _draw(bars).data if trace.yaxis == "y2" and trace.fill is None)
    assert list(line.x) == list(range(-1, N_LAYERS + 1))
    assert line.y[-1] == pytest.approx(bars["mean"].sum())


def test_kinds_differ_without_colour():
    shapes = [bar.marker.pattern.shape for bar in _named(_draw(_bars())).values()]
    assert len(set(shapes)) == len(shapes) == 4


def test_axis_names_what_stands_outside_of_the_blocks():
    axis = _draw(_bars()).layout.xaxis
    assert dict(zip(axis.tickvals, axis.ticktext, strict=True)) == {
        -1: "embed", 0: "0", 1: "1", 2: "2", 3: "3", 4: "after",
    }  # fmt: skip


def test_what_is_next_to_nothing_gets_no_place():
    figure = _draw(_bars(rest=1e-5))
    assert "biases and the rest" not in _named(figure)
    assert "after" not in figure.layout.xaxis.ticktext
    assert max(max(trace.x) for trace in figure.data if trace.yaxis == "y2") == N_LAYERS - 1


def test_nothing_at_all_is_drawn_as_nothing():
    nothing = _bars() * {"layer": 1, "kind": 1, "mean": 0, "low": 0, "high": 0}
    assert set(_named(_draw(nothing))) == {"embedding", "attention", "MLP", "biases and the rest"}


def test_heads_are_marked_on_demand_and_the_strongest_numbered():
    plain, split = _draw(_bars()), _draw(_bars(), heads=_heads())
    assert _named(plain)["attention"].marker.color == BLUE != _named(split)["attention"].marker.color
    (marks,) = _marks(split)
    assert len(marks.x) == 16
    assert [text for text in marks.text if text][-1] == "3"
    assert sum(bool(text) for text in marks.text) == 6
    layers = np.array([layer for layer, _ in marks.customdata])
    attention = _named(split)["attention"]
    assert (np.abs(np.array(marks.x) - np.take(attention.x, layers)) < attention.width / 2).all()
    assert not _marks(plain)


def test_missing_bounds_and_deep_models():
    figure = _draw(_bars().assign(low=np.nan, high=np.nan))
    assert np.isnan(_named(figure)["MLP"].error_y.array).all()
    deep = pd.DataFrame(
        [(layer, "mlp", 1.0, 0.5, 1.5) for layer in range(80)], columns=["layer", "kind", "mean", "low", "high"]
    )
    assert len(_draw(deep).layout.xaxis.tickvals) < 40


def test_injected_layers_are_shaded_and_the_title_is_the_callers():
    figure = _draw(_bars(), injected_layers=[1, 2])
    shades = {(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"}
    assert shades == {(0.5, 1.5), (1.5, 2.5)}
    assert figure.layout.title.text == "<b>what writes the answer</b>"
    assert figure.layout.yaxis.title.text == "part of the shift"
