"""Curves from synthetic tables: what is drawn where, over layers, strengths and counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from figure_reader import axis, bands, in_panel, legend, panel_titles, points, shaded, subtitle, ticks

from mechint import figures
from mechint.base.errors import UnknownNameError
from mechint.figures import Panel
from mechint.figures.style import MINUS, SERIES

LAYERS = ["embed", "0", "1", "10"]
TEXTS = {"title": "a question", "subtitle": "n = 3"}
CLEAN, INJECTED = SERIES["clean"].label, SERIES["injected"].label


def line(panel: str, series: str, height: float, half: float = 0.5, **places: list[object]) -> pd.DataFrame:
    """A rising curve with a band of some half-width."""
    places = places or {"layer": LAYERS}
    (number,) = {len(values) for values in places.values()}
    mean = height + np.arange(number)
    values = {"mean": mean, "low": mean - half, "high": mean + half}
    return pd.DataFrame({"panel": panel, "series": series, **places, **values})


TWO = pd.concat([line("a", "clean", 0.0, np.nan), line("a", "injected", 1.0), line("b", "injected", 2.0)])
PANELS = [Panel("a", "first", "logits"), Panel("b", "second", "logits", references=[0.5])]


def drawn(table: pd.DataFrame = TWO, panels: list[Panel] = PANELS, **options: object) -> go.Figure:
    return figures.curves(table, panels, SERIES, **TEXTS, **options)


def test_curves_stand_in_their_panels_in_the_order_of_layers() -> None:
    figure = drawn(TWO.sample(frac=1, random_state=1))
    assert points(figure, CLEAN) == [(-1, 0), (0, 1), (1, 2), (10, 3)]
    assert points(figure, INJECTED, 1) == [(-1, 2), (0, 3), (1, 4), (10, 5)]
    assert panel_titles(figure) == ["first", "second"]
    assert ticks(figure)["embed"] == -1
    assert (axis(figure, "x").title.text, axis(figure, "y").title.text) == ("readout layer", "logits")
    assert axis(figure, "y", 1).title.text is None, "the axis is that of the panel beside it"


def test_bands_are_the_bounds_and_missing_bounds_have_none() -> None:
    figure = drawn()
    assert bands(figure) == [[(0.5, 1.5), (1.5, 2.5), (2.5, 3.5), (3.5, 4.5)]]
    hovers = [trace.hovertemplate for trace in in_panel(figure) if trace.name]
    assert ["[" in hover.replace("customdata[", "") for hover in hovers] == [False, True], "only one has an interval"


def test_each_name_stands_in_the_legend_once_and_series_differ_without_colour() -> None:
    every = pd.concat([line(panel, name, 0.0) for panel in "ab" for name in SERIES])
    figure = drawn(every)
    assert legend(figure) == [style.label for style in SERIES.values()]
    looks = {(trace.line.dash, trace.marker.symbol) for trace in figure.data if trace.name}
    assert len(looks) == len(SERIES)
    assert len({style.color for style in SERIES.values()}) == len(SERIES)


def test_a_thin_series_of_the_same_name_is_not_named_again() -> None:
    thin = replace(SERIES["clean"], width=1.0, symbol="")
    table = pd.concat([line("a", "clean", 0.0), line("a", "before", 1.0)])
    figure = figures.curves(table, PANELS[:1], {"clean": SERIES["clean"], "before": thin}, **TEXTS)
    assert legend(figure) == [CLEAN]
    assert [trace.mode for trace in figure.data if trace.name] == ["lines+markers", "lines"]


def test_injected_layers_are_shaded() -> None:
    assert shaded(drawn(injected_layers=[1, 0])) == {(-0.5, 0.5), (0.5, 1.5)}


def test_single_units_are_drawn_behind_their_mean() -> None:
    units = pd.DataFrame({"panel": "b", "series": "injected", "unit": ["cats"] * 4, "layer": LAYERS, "value": 7.0})
    behind, *_ = in_panel(drawn(units=units), 1)
    assert list(behind.y) == [7.0] * 4
    assert behind.hovertemplate.startswith("cats, readout layer")


def test_levels_go_across_their_panel() -> None:
    levels = pd.DataFrame({"panel": ["a"], "series": ["no"], "mean": [0.3], "low": [0.2], "high": [0.4]})
    figure = drawn(levels=levels)
    assert points(figure, SERIES["no"].label) == [(-1, 0.3), (10, 0.3)]
    assert [(0.2, 0.4), (0.2, 0.4)] in bands(figure)


def test_strengths_have_a_tick_each_and_signs_where_some_are_negative() -> None:
    table = line("a", "injected", 0.0, strength=[-1.0, 0.0, 0.5])
    figure = drawn(table, PANELS[:1], x="strength", x_label="strength")
    assert ticks(figure) == {f"{MINUS}1": -1, "0": 0, "+0.5": 0.5}
    assert axis(figure, "x").title.text == "strength"


def test_many_counts_keep_the_last_on_a_logarithmic_axis() -> None:
    counts = [int(2**power) for power in range(12)]
    panels = [*PANELS[:1], Panel("b", "", "another value")]
    figure = drawn(pd.concat([line(panel, "injected", 0.0, k=counts) for panel in "ab"]), panels, x="k", log_x=True)
    assert axis(figure, "x").type == "log"
    assert len(ticks(figure)) <= 9
    assert list(ticks(figure))[-1] == "2048"
    assert axis(figure, "y", 1).title.text == "another value"


def test_a_logarithmic_panel_holds_curves_and_references() -> None:
    panel = Panel("a", "", "perplexity", "log", references=[300.0])
    figure = drawn(line("a", "injected", 1.0, strength=[1.0, 2.0]), [panel], x="strength", log_x=True)
    low, high = axis(figure, "y").range
    assert low < np.log10(0.5)
    assert np.log10(300) < high
    assert {"1", "100"} <= set(ticks(figure, "y"))


def test_a_wide_panel_has_a_line_for_itself_and_only_the_lowest_axes_are_named() -> None:
    figure = drawn(pd.concat([TWO, line("c", "clean", 0.0)]), [*PANELS, Panel("c", "third", "shift", wide=True)])
    assert [axis(figure, "x", panel).title.text for panel in range(3)] == [None, None, "readout layer"]
    assert axis(figure, "x", 2).domain == (0, 1)
    assert [axis(figure, "y", panel).title.text for panel in range(3)] == ["logits", None, "shift"]


def test_a_panel_more_than_fits_a_line_stands_below_the_first() -> None:
    figure = drawn(columns=1)
    assert axis(figure, "y").domain[0] > axis(figure, "y", 1).domain[1]
    assert [axis(figure, "x", panel).title.text for panel in range(2)] == [None, "readout layer"]


@pytest.mark.parametrize("frame", ["table", "levels", "units"])
@pytest.mark.parametrize("name", ["negated", "Injected", float("nan"), None])
def test_a_series_without_a_look_is_refused(frame: str, name: object) -> None:
    unknown = TWO.assign(unit="cats", value=1.0, series=[*TWO["series"][1:], name])
    frames = {"table": TWO, "levels": None, "units": None} | {frame: unknown}
    with pytest.raises(UnknownNameError, match="allowed: clean"):
        drawn(**frames)


def test_few_units_are_told() -> None:
    assert "Few units (3)" in subtitle(drawn(TWO.assign(n=3)))
