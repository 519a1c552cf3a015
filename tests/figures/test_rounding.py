"""A figure is the same text whatever a machine's last bits are, and honest small numbers stay."""

import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from mechint import figures
from mechint.figures.readable import readable_json
from mechint.figures.rounding import six_digits

NOISE = [1.2e-16, -3e-17, 4.8e-20]


def written(figure: go.Figure) -> list[dict[str, object]]:
    traces = json.loads(readable_json(figure))["data"]
    assert isinstance(traces, list)
    return traces


def test_noise_beside_numbers_of_usual_size_is_zero() -> None:
    (trace,) = written(go.Figure(go.Scatter(x=[1, 2, 3, 4], y=[*NOISE, 0.35], error_y={"array": [*NOISE, 0.1]})))
    assert trace["y"] == [0, 0, 0, 0.35]
    assert trace["error_y"] == {"array": [0, 0, 0, 0.1]}


def test_a_trace_of_noise_is_zero_where_another_on_its_axis_is_not() -> None:
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True)
    figure.add_scatter(y=[1.0, 2.0], row=1, col=1)
    figure.add_scatter(y=NOISE, row=1, col=2)
    assert [trace["y"] for trace in written(figure)] == [[1, 2], [0, 0, 0]]


def test_noise_in_a_grid_is_zero_by_its_colours() -> None:
    grids = [go.Heatmap(z=[[1e-15, 2.0]], coloraxis="coloraxis"), go.Heatmap(z=[NOISE], coloraxis="coloraxis")]
    assert [trace["z"] for trace in written(go.Figure(grids))] == [[[0, 2]], [[0, 0, 0]]]
    alone = [go.Heatmap(z=[[1e-15, 2.0]]), go.Heatmap(z=[NOISE])]
    assert [trace["z"] for trace in written(go.Figure(alone))] == [[[0, 2]], [NOISE]]


def test_an_axis_of_small_numbers_keeps_them() -> None:
    small = [3e-14, 2e-15, 1e-20]
    (trace,) = written(go.Figure(go.Scatter(x=[1, 2, 3], y=small)))
    assert trace["y"] == small


def test_probabilities_keep_what_a_logarithm_shows() -> None:
    small = [1e-14, 1e-3, 0.9]
    scaled = go.Figure(go.Scatter(x=small, y=[1, 2, 3])).update_xaxes(type="log")
    assert written(scaled)[0]["x"] == small
    log_odds = go.Figure(go.Scatter(x=np.log(small) - np.log1p(np.negative(small)), y=[1, 2, 3], customdata=small))
    assert written(log_odds)[0]["customdata"] == small
    assert written(log_odds)[0]["x"] == [-32.2362, -6.90675, 2.19722]


def test_what_stands_under_the_pointer_of_noise_is_zero_too() -> None:
    names = [["cats", 1e-16, 0.2], ["bread", 1e-16, 0.3]]
    (trace,) = written(go.Figure(go.Scatter(x=[1e-16, 0.3], y=[1, 2], customdata=names)))
    assert trace["customdata"] == [["cats", 0, 0.2], ["bread", 1e-16, 0.3]]


def test_bars_have_their_base_on_the_axis_of_their_length() -> None:
    (trace,) = written(go.Figure(go.Bar(x=[1.0, 2.0], y=[0, 1], base=[1e-16, 0.5], orientation="h")))
    assert trace["base"] == [0, 0.5]


@pytest.mark.parametrize("number", [0.1234565, 2.5000005, 1234567.5, 0.3, 1 / 3, 1e-30])
def test_last_bits_do_not_tip_a_number_over(number: float) -> None:
    assert len({six_digits(number * (1 + change)) for change in (0, 2e-16, -2e-16, 1e-14, -1e-14)}) == 1


def test_relative_noise_leaves_the_text_as_it_is() -> None:
    generator = np.random.default_rng(0)
    y = generator.normal(size=200)
    texts = {readable_json(go.Figure(go.Scatter(y=y * (1 + 1e-13 * generator.normal(size=200))))) for _ in range(20)}
    assert len(texts) == 1


def test_html_is_the_same_twice_and_has_the_numbers_of_the_json(tmp_path: Path) -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1e-16, 1 / 3]))
    pages = [figures.save(figure, tmp_path / name / "lens", png=False)[0].read_text() for name in ("one", "two")]
    assert pages[0] == pages[1]
    assert '"y":[0,0.333333]' in pages[0]
