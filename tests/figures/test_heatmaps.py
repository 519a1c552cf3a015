"""Heatmaps from synthetic arrays: numbers and signs of cells, their marks, and the scales that panels share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import pytest
from figure_reader import axis, panel_titles, subtitle, ticks

from mechint import figures
from mechint.figures import HeatPanel, Scale, sign_words
from mechint.figures.heatmaps import SEQUENTIAL
from mechint.figures.style import MINUS
from mechint.stats import intervals

NAN = float("nan")
SHIFT = Scale("shift")


def panel(title: str, *rows: Sequence[float], spread: float = 0.1, **more: str) -> HeatPanel:
    mean = np.array(rows, dtype=float)
    return HeatPanel(title, intervals.Interval(mean, mean - spread, mean + spread, 5), **more)


def drawn(*panels: HeatPanel, scales: Scale | Mapping[str, Scale] = SHIFT, **more: object) -> go.Figure:
    n_rows, n_columns = panels[0].values.mean.shape
    names = {"rows": [f"r{at}" for at in range(n_rows)], "columns": [f"c{at}" for at in range(n_columns)]}
    words = {"row_label": "concept", "column_label": "question", "title": "a finding", "subtitle": "n = 3"}
    return figures.heatmap(panels, scales, **{**names, **words, **more})


def cells(figure: go.Figure) -> list[list[list[str]]]:
    """What stands in the cells of each panel."""
    return [[list(line) for line in trace.text] for trace in figure.data if trace.type == "heatmap"]


def signs(figure: go.Figure) -> list[list[str]]:
    """The signs of each panel's cells."""
    return [list(trace.text) for trace in figure.data if trace.type == "scatter" and trace.mode == "text"]


ONE, TWO = panel("one", (0.5, -0.05), (NAN, -0.004)), panel("two", (-3.0, 0.05), (1.0, 2.0))


def test_cells_have_their_number_and_a_dot_where_the_interval_excludes_zero() -> None:
    figure = drawn(ONE, TWO)
    first, second = figure.data
    np.testing.assert_array_equal(first.z, ONE.values.mean)
    np.testing.assert_array_equal(second.customdata[..., 3:], np.dstack([TWO.values.low, TWO.values.high]))
    assert cells(figure) == [
        [["0.50 •", f"{MINUS}0.05"], ["", "0.00"]],  # NaN is no zero
        [[f"{MINUS}3.00 •", "0.05"], ["1.00 •", "2.00 •"]],
    ]


def test_marks_can_be_bold_or_left_out_and_digits_fewer_for_large_numbers() -> None:
    rows = ((0.5, 12.34), (-123.4, 123456.0))
    (bold,) = cells(drawn(panel("one", *rows, mark="bold"), digits=None))
    assert bold == [["<b>0.50</b>", "<b>12.3</b>"], [f"<b>{MINUS}123</b>", "<b>1e5</b>"]]
    assert cells(drawn(panel("one", (0.5, 0.0), (1.0, 0.2), mark=""), digits=1)) == [[["0.5", "0.0"], ["1.0", "0.2"]]]


def test_panels_share_one_scale_centred_at_zero() -> None:
    figure = drawn(ONE, TWO)
    scale = figure.layout.coloraxis
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}
    assert (scale.cmin, scale.cmax) == (-3, 3)
    assert scale.colorscale[1] == (0.5, "#FFFFFF")
    assert scale.colorbar.title.text.startswith("shift")


def test_scales_have_panels_of_their_own_and_other_colours_begin_at_zero() -> None:
    scales = {"p": Scale("P", colors=SEQUENTIAL), "text": Scale("perplexity", 1.0, 100.0, SEQUENTIAL, log=True)}
    figure = drawn(panel("one", (0.5, 0.2), scale="p"), panel("two", (10.0, 1e6), scale="text"), scales=scales)
    first, second = figure.layout.coloraxis, figure.layout.coloraxis2
    assert (first.cmin, first.cmax, second.cmin, second.cmax) == (0, 0.5, 0, 2)
    np.testing.assert_allclose(figure.data[1].z, [[1.0, 2.0]])
    assert second.colorbar.ticktext == ("1", "10", "100")


def test_axes_are_named_at_the_edges_with_the_first_row_at_the_top() -> None:
    figure = drawn(ONE, TWO, ONE, per_line=2)
    assert panel_titles(figure) == ["one", "two", "one"]
    below = [axis(figure, "x", at).title.text for at in range(3)]
    assert below == [None, "question", "question"], "below the second panel there is no other"
    assert [axis(figure, "y", at).title.text for at in range(3)] == ["concept", None, "concept"]
    assert axis(figure, "y").range == (1.5, -0.5)
    assert axis(drawn(ONE, upward=True), "y").range == (-0.5, 1.5)
    assert (ticks(figure), ticks(figure, "y")) == ({"c0": 0, "c1": 1}, {"r0": 0, "r1": 1})


def test_what_has_no_effect_looks_like_nothing() -> None:
    figure = drawn(panel("nothing", (NAN, NAN), (NAN, NAN)), panel("zero", (0, 0), (0, 0)))
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1e-3, 1e-3)
    assert cells(figure) == [[["", ""]] * 2, [["0.00", "0.00"]] * 2]


@pytest.mark.parametrize(("value", "sign"), [(0.5, "+"), (-0.5, MINUS), (0.0, None)])
def test_without_numbers_cells_have_the_sign_of_what_excludes_zero(value: float, sign: str | None) -> None:
    (marks,) = signs(drawn(panel("p", *[[value] * 4] * 4, spread=0.01), numbers=False))
    assert set(marks) == ({sign} if sign else set())
    assert not signs(drawn(panel("p", *[[value] * 4] * 4, mark=""), numbers=False))


def test_many_columns_leave_no_room_for_numbers() -> None:
    assert drawn(panel("p", [1.0] * 30)).data[0].texttemplate == "%{text}"
    assert drawn(panel("p", [1.0] * 31)).data[0].texttemplate is None


def test_small_values_have_no_sign_however_certain_they_are() -> None:
    small = [panel("p", *[[value] * 4] * 4, spread=0.001) for value in (1.0, 0.015, 0.025)]
    assert [len(marks) for marks in signs(drawn(*small, numbers=False))] == [16, 0, 16]


def test_small_cells_are_stippled_and_have_contours_instead_of_signs() -> None:
    one, other = panel("p", *[[1.0] * 30] * 30), panel("n", *[[-1.0] * 30] * 30)
    figure = drawn(one, other, numbers=False)
    stipples = [(trace.marker.symbol, len(trace.x)) for trace in figure.data if trace.type == "scatter"]
    assert stipples == [("circle", 900), ("line-ew-open", 0), ("circle", 0), ("line-ew-open", 900)]
    assert not signs(figure)
    assert {trace.line.dash for trace in figure.data if trace.type == "contour"} == {"solid", "dot"}
    assert sign_words("ab", ["c"] * 30).startswith("Dots")
    assert sign_words("ab", "c") == f"+ and {MINUS}"


def test_columns_of_readout_layers_lie_at_their_layer_and_do_not_crowd() -> None:
    figure = drawn(panel("p", [1.0] * 65), numbers=False, columns=["embed", *map(str, range(64))])
    assert list(figure.data[0].x[:2]) == [-1, 0]
    assert ticks(figure)["embed"] == -1
    assert ticks(figure)["63"] == 63
    assert len(ticks(figure)) <= 38


@pytest.mark.parametrize(("units", "told"), [(1, False), (2, True), (5, True), (6, False), (8, False)])
def test_few_units_are_told(units: int, told: bool) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, units))
    words = subtitle(drawn(HeatPanel("a", intervals.mean_interval(values)), subtitle="All of them"))
    assert (f"All of them. Few units ({units}): below six" in words) is told


def test_a_low_figure_is_high_enough_for_the_bars_of_its_scales() -> None:
    """Three rows of a real model's windows left two bars ten pixels high."""
    scales = {"shift": SHIFT, "loss": Scale("loss", 0.0, 1.0)}
    figure = drawn(panel("one", (0.5,), scale="shift"), panel("two", (0.2,), scale="loss"), scales=scales)
    margins = figure.layout.margin
    bars = figure.layout.coloraxis.colorbar, figure.layout.coloraxis2.colorbar
    assert all(bar.len * (figure.layout.height - margins.t - margins.b) > 100 for bar in bars)
