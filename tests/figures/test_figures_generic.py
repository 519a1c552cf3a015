"""Rows of dots and planes from synthetic frames: the numbers and intervals given, with and without any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from mechint import figures
from mechint.figures import Panel
from mechint.figures.style import SERIES, Series
from mechint.stats import intervals

NAN = float("nan")
ABOUT = {"title": "a finding", "subtitle": "n = 3"}
# Panel, row, series, mean, low, high.
LINES = [
    ("p", "top", "clean", 0.1, 0.05, 0.2),
    ("p", "top", "injected", 0.8, NAN, NAN),
    ("p", "bottom", "clean", 0.5, 0.4, 0.7),
    ("shift", "top", "injected", 3.0, 2.5, 4.0),
    ("shift", "bottom", "injected", -1.0, -2.0, -0.5),
]
SUMMARY = pd.DataFrame(LINES, columns=["panel", "row", "series", "mean", "low", "high"])
UNITS = pd.DataFrame(
    [("shift", "top", "injected", "cats", 2.5), ("shift", "top", "injected", "bread", 3.5)],
    columns=["panel", "row", "series", "unit", "value"],
)
PANELS = (Panel("p", "Levels", "P(yes)", arrows=("clean", "injected")), Panel("shift", "Shifts", "natural units"))


def drawn(
    summary: pd.DataFrame = SUMMARY, units: pd.DataFrame = UNITS, panels: Sequence[Panel] = PANELS, **more: object
) -> go.Figure:
    return figures.dots(summary, units, panels, SERIES, **ABOUT, **more)


def large(figure: go.Figure) -> dict[tuple[str, str], go.Scatter]:
    """The traces with intervals, by series and axis."""
    return {(trace.name, trace.xaxis): trace for trace in figure.data if trace.name}


CLEAN, INJECTED = SERIES["clean"].label, SERIES["injected"].label


# Rows of dots.


def test_dots_stand_at_the_means_and_bars_end_at_the_bounds() -> None:
    traces = large(drawn())
    clean, shift = traces[CLEAN, "x"], traces[INJECTED, "x2"]
    assert list(clean.x) == [0.1, 0.5]
    np.testing.assert_allclose(np.add(clean.x, clean.error_x.array), [0.2, 0.7])
    np.testing.assert_allclose(np.subtract(clean.x, clean.error_x.arrayminus), [0.05, 0.4])
    np.testing.assert_allclose(shift.customdata, [[3, 2.5, 4], [-1, -2, -0.5]])
    assert traces[INJECTED, "x"].error_x.array == traces[INJECTED, "x"].error_x.arrayminus == ("none",)
    assert list(traces[CLEAN, "x2"].x) == [None], "it has no rows there, and still stands in the legend"


def test_units_are_small_dots_of_their_series_in_its_row() -> None:
    figure = drawn()
    (small,) = (trace for trace in figure.data if trace.marker.size == 5)
    assert list(small.x) == [2.5, 3.5]
    assert [unit for unit, _ in small.customdata] == ["cats", "bread"]
    injected = large(figure)[INJECTED, "x2"]
    assert set(small.y) == {injected.y[0]}
    assert (small.marker.symbol, small.xaxis) == (injected.marker.symbol, injected.xaxis)


def test_labels_stand_above_intervals_and_do_not_leave_the_panel() -> None:
    labelled = UNITS.assign(label=["cats", ""], value=[-1.0, 3.5])
    (small,) = (trace for trace in drawn(units=labelled).data if trace.marker.size == 5)
    assert list(small.text) == ["cats", ""]
    assert list(small.textposition) == ["top right", "top left"]
    (asked,) = (trace for trace in drawn(units=labelled.assign(side="left")).data if trace.marker.size == 5)
    assert set(asked.textposition) == {"middle left"}


def test_rows_come_from_the_top_in_the_order_given() -> None:
    figure = drawn()
    axis = figure.layout.yaxis
    assert dict(zip(axis.ticktext, axis.tickvals, strict=True)) == {"top": 1, "bottom": 0}
    clean = large(figure)[CLEAN, "x"]
    assert [round(y) for y in clean.y] == [1, 0]
    assert figure.layout.xaxis.title.text == "P(yes)"
    assert [note.text for note in figure.layout.annotations] == ["<b>Levels</b>", "<b>Shifts</b>"]


def test_series_of_an_arrow_share_a_lane_and_the_line_joins_their_means() -> None:
    figure = drawn()
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [list(line.x) for line in lines] == [[0.1, 0.8, None]], "of the bottom row one end is missing"
    assert lines[0].y[0] == lines[0].y[1]
    apart = large(drawn(panels=[Panel("p", "", "")]))
    assert apart[CLEAN, "x"].y[0] > apart[INJECTED, "x"].y[0]


def test_probabilities_on_an_axis_of_log_odds() -> None:
    (levels, _), odds = PANELS, lambda p: np.log(p / (1 - p))
    figure = drawn(panels=[Panel("p", "", levels.label, scale="log-odds")])
    clean = large(figure)[CLEAN, "x"]
    np.testing.assert_allclose(clean.x, odds(np.array([0.1, 0.5])))
    np.testing.assert_allclose(np.add(clean.x, clean.error_x.array), odds(np.array([0.2, 0.7])))
    axis = figure.layout.xaxis
    places = dict(zip(axis.ticktext, axis.tickvals, strict=True))
    assert places["50%"] == 0
    assert places["10%"] == pytest.approx(odds(0.1)) == -places["90%"]


@pytest.mark.parametrize(("least", "most"), [(0.02, 0.03), (0.001, 0.999), (1e-9, 0.5), (1e-10, 1 - 1e-10)])
def test_an_axis_of_log_odds_is_as_wide_as_its_means_and_has_room_for_its_texts(least: float, most: float) -> None:
    rows = [("p", "r", "clean", least, 0.0, 1.0), ("p", "s", "clean", most, NAN, NAN)]
    summary = pd.DataFrame(rows, columns=SUMMARY.columns)
    axis = drawn(summary, UNITS.iloc[:0], panels=[Panel("p", "", "P", scale="log-odds")]).layout.xaxis
    low, high = np.log([least, most]) - np.log1p([-least, -most])
    assert list(axis.range) == pytest.approx([low - 1, high + 1]), "an interval down to zero does not stretch it"
    assert all(axis.range[0] <= tick <= axis.range[1] for tick in axis.tickvals)
    assert 1 <= len(axis.tickvals) <= 7
    assert np.all(np.diff(axis.tickvals) >= (axis.range[1] - axis.range[0]) / 6 - 1e-9)


def test_series_of_dots_differ_without_colour_and_stand_in_the_legend_once() -> None:
    every = pd.DataFrame([("p", "r", name, 0.5, NAN, NAN) for name in SERIES], columns=SUMMARY.columns)
    figure = drawn(every, UNITS.iloc[:0])
    shown = [trace for trace in figure.data if trace.showlegend]
    assert [trace.name for trace in shown] == [style.label for style in SERIES.values()]
    assert len({trace.marker.symbol for trace in shown}) == len(SERIES)
    first = [trace for trace in figure.data if trace.name and trace.xaxis == "x"]
    assert len({trace.y[0] for trace in first}) == len(SERIES) - 1, "the two of the arrow share a lane"


def test_packed_rows_of_dots_hold_their_own_series_and_draw_no_bar_where_there_is_no_interval() -> None:
    looks = {name: Series(name, "#000000", "solid", "circle") for name in ("one", "two")}
    lines = [("r", "one", 1.0, np.nan), ("s", "one", 2.0, 2.5), ("s", "two", 3.0, np.nan)]
    summary = pd.DataFrame(
        [{"panel": "p", "row": row, "series": name, "mean": mean, "low": high, "high": high}
         for row, name, mean, high in lines]
    )  # fmt: skip
    traces = {
        packed: {
            trace.name: trace
            for trace in figures.dots(summary, UNITS.iloc[:0], [Panel("p", "", "")], looks, packed=packed, **ABOUT).data
        }
        for packed in (True, False)
    }
    assert traces[True]["one"].y[0] == pytest.approx(1.0)  # alone in its row, and in the middle of it
    assert traces[False]["one"].y[0] > 1.0
    assert traces[True]["one"].y[1] > 0 > traces[True]["two"].y[0]
    assert traces[True]["one"].error_x.array == ("none", 0.5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("scale", ["linear", "log-odds"])
def test_rows_of_dots_without_numbers(packed: bool, scale: str) -> None:
    panels = [Panel("p", "Levels", "P(yes)", scale), Panel("other", "Nothing", "P(yes)", scale)]
    nothing = drawn(SUMMARY.iloc[:0], UNITS.iloc[:0], panels, packed=packed)
    assert not nothing.data
    missing = SUMMARY.assign(mean=NAN, low=NAN, high=NAN)
    traces = large(drawn(missing, UNITS.iloc[:0], panels, packed=packed))
    assert np.isnan(traces[CLEAN, "x"].x).all()
    assert set(traces[CLEAN, "x"].error_x.array) == {"none"}


# Planes.


POINTS = pd.DataFrame(
    {
        "series": ["injected"] * 3 + ["random"] * 2 + ["no"],
        "unit": [f"u{at}" for at in range(6)],
        "x": [1.0, 2.0, 4.0, -0.5, 0.5, 0.25],
        "y": [-1.0, 0.5, 3.0, 0.1, 0.3, -0.25],
    }
)


def on_plane(points: pd.DataFrame = POINTS) -> go.Figure:
    names = {"x_label": "shift of no", "y_label": "shift of yes", "diagonals": ("alike", "opposite")}
    return figures.plane(points, SERIES, **names, **ABOUT)


def test_a_plane_has_every_unit_and_the_means_with_both_intervals() -> None:
    traces = {trace.name: trace for trace in on_plane().data if trace.name}
    units, mean = traces[INJECTED], traces[f"mean: {INJECTED}"]
    assert (list(units.x), list(units.y), list(units.text)) == ([1, 2, 4], [-1, 0.5, 3], ["u0", "u1", "u2"])
    for at, bars, column in ((mean.x, mean.error_x, "x"), (mean.y, mean.error_y, "y")):
        found = intervals.mean_interval(POINTS[column].to_numpy()[:3])
        np.testing.assert_allclose(at, [found.mean])
        np.testing.assert_allclose(np.add(at, bars.array), [found.high])
        np.testing.assert_allclose(np.subtract(at, bars.arrayminus), [found.low])
    alone = SERIES["no"].label
    assert alone in traces
    assert f"mean: {alone}" not in traces, "one unit has no interval"


def test_series_of_a_plane_differ_without_colour() -> None:
    traces = [trace for trace in on_plane().data if trace.name]
    for means in (False, True):
        mine = [trace for trace in traces if trace.name.startswith("mean: ") == means]
        assert len({trace.marker.symbol for trace in mine}) == len(mine) > 1


def test_both_axes_of_a_plane_have_one_scale_around_zero_and_named_diagonals() -> None:
    layout = on_plane().layout
    assert layout.xaxis.range == layout.yaxis.range == pytest.approx((-4.6, 4.6))
    assert (layout.xaxis.title.text, layout.yaxis.title.text) == ("shift of no", "shift of yes")
    assert [(note.text, note.x, np.sign(note.y)) for note in layout.annotations] == [
        ("alike", pytest.approx(4.6), 1),
        ("opposite", pytest.approx(4.6), -1),
    ]
    assert min(abs(note.y) for note in layout.annotations) > 1.05 * 4, "no unit is behind a label"
    lines = [trace for trace in on_plane().data if trace.mode == "lines"]
    assert len(lines) == 2
    rising, falling = lines
    assert list(rising.x) == list(rising.y) == [-falling.y[0], -falling.y[1]] == list(falling.x)


def test_a_plane_without_numbers() -> None:
    nothing = on_plane(POINTS.iloc[:0])
    assert not [trace for trace in nothing.data if trace.name]
    assert nothing.layout.xaxis.range[1] == pytest.approx(1.15 * 0.05), "no effect is drawn as none"
    one = on_plane(POINTS.assign(x=[NAN, *POINTS["x"][1:]]))
    mean = next(trace for trace in one.data if trace.name == f"mean: {INJECTED}")
    assert np.isnan(mean.x[0]), "missing is never left out of a mean"
    assert one.layout.xaxis.range[1] == pytest.approx(4.6)


def test_the_lines_between_rows_of_dots_are_set_at_once(monkeypatch):
    """Plotly looks at every shape whenever one is added, so that rows took time by their square."""
    calls = []
    monkeypatch.setattr(go.Figure, "add_shape", lambda *args, **kwargs: calls.append(args))
    summary = pd.DataFrame(
        {
            "panel": "p",
            "row": [f"row {at}" for at in range(50)],
            "series": "injected",
            "mean": 0.1,
            "low": 0.0,
            "high": 0.2,
        }
    )
    panel = Panel("p", "", "value", references=())
    figure = figures.dots(
        summary, summary.iloc[:0].assign(unit="", value=0.0), [panel], SERIES, title="t", subtitle="s"
    )
    assert not calls
    assert [line.y0 for line in figure.layout.shapes] == [at - 0.5 for at in range(1, 50)]
