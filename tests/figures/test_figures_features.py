"""Figures of features: the numbers drawn are those given, verdicts have shapes of their own, bad tables are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from figure_reader import axis, in_panel, subtitle, ticks
from figure_reader import points as read_points

from mechint import figures
from mechint.attribution.features.dictionary import Quality
from mechint.base.errors import UsageError
from mechint.figures.feature_text import Speaker, TextFeature
from mechint.figures.markup import drawable_figure
from mechint.figures.plot.attribution import attributed_measured, by_verdict
from mechint.figures.style import MINUS
from mechint.figures.verdicts import VERDICTS, sae_notice
from mechint.stats import intervals

TITLES = {"title": "a question", "subtitle": "n = 3"}


def _components(n: int = 4) -> pd.DataFrame:
    rows = pd.DataFrame({"component": [f"L6 f{number}" for number in range(n)], "kind": "feature"})
    rows["attribution"] = np.linspace(2.0, 0.1, n)
    rows["attribution_low"], rows["attribution_high"] = rows["attribution"] - 0.2, rows["attribution"] + 0.1
    rows["measured"] = np.linspace(1.5, -0.3, n)
    rows["measured_low"], rows["measured_high"] = rows["measured"] - 0.1, rows["measured"] + 0.3
    rows["clean"], rows["injected"] = 1.0, np.arange(n, dtype=float)
    rows["verdict"] = [list(VERDICTS)[number % 4] for number in range(n)]
    other = pd.DataFrame({"component": ["L6 error", "L7 cache"], "kind": ["error", "cache"]})
    return pd.concat([other.assign(attribution=[0.5, -0.2], verdict=""), rows], ignore_index=True)


def _values(figure: go.Figure, label: str, axis: str) -> dict[float, float]:
    traces = [trace for trace in figure.data if trace.name == label and trace.xaxis == axis and trace.x[0] is not None]
    return {y: x for trace in traces for y, x in zip(trace.y, trace.x, strict=True)}


def test_bars_show_what_is_given_with_other_components_below() -> None:
    figure = figures.feature_bars(_components(), **TITLES)
    rows = list(figure.layout.yaxis.ticktext)
    assert rows == ["L6 f0", "L6 f1", "L6 f2", "L6 f3", "L6 error", "L7 cache"]
    heights = dict(zip(rows, figure.layout.yaxis.tickvals, strict=True))
    found = {round(y): x for y, x in _values(figure, "attribution under concepts", "x").items()}
    assert [found[heights[row]] for row in rows] == pytest.approx([*np.linspace(2.0, 0.1, 4), 0.5, -0.2])
    cause = next(trace for trace in figure.data if trace.name == "verdict: cause" and trace.xaxis == "x2")
    assert list(cause.x) == [1.5]
    assert cause.error_x.array[0] == pytest.approx(0.3)
    assert cause.error_x.arrayminus[0] == pytest.approx(0.1)
    injected = {round(y): x for y, x in _values(figure, "concept injected", "x3").items()}
    assert [injected[heights[row]] for row in rows[:4]] == [0.0, 1.0, 2.0, 3.0]
    shaded = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert {(shape.y0, shape.y1) for shape in shaded} == {(-0.5, 1.5)}


def test_verdicts_are_told_by_shape_and_in_words_with_what_was_measured() -> None:
    assert len({style.symbol for style in VERDICTS.values()}) == len(VERDICTS)
    figure = figures.feature_bars(_components(), **TITLES)
    texts = [note.text for note in figure.layout.annotations]
    assert "<b>cause</b><br>1.50 [1.40, 1.80]" in texts
    assert f"<b>correlate</b><br>{MINUS}0.30 [{MINUS}0.40, 0.00]" in texts
    symbols = {trace.name: trace.marker.symbol for trace in figure.data if (trace.name or "").startswith("verdict")}
    assert symbols == {style.label: style.symbol for style in list(VERDICTS.values())[:4]}


def test_bars_do_without_intervals_measurements_and_activations() -> None:
    table = _components()[["component", "kind", "attribution"]]
    figure = figures.feature_bars(table, **TITLES)
    assert [note.text for note in figure.layout.annotations] == ["<b>Attributed</b>"]
    (trace,) = [trace for trace in figure.data if trace.name == "attribution under concepts"]
    assert list(trace.error_x.array) == ["none"] * 6
    holes = _components().assign(measured=np.nan, measured_low=np.nan, measured_high=np.nan)
    assert len([note for note in figures.feature_bars(holes, **TITLES).layout.annotations if "[" in note.text]) == 0


def test_single_concepts_are_drawn_small_and_names_are_links() -> None:
    units = pd.DataFrame(
        {"component": "L6 f0", "panel": ["attribution", "measured"], "unit": "cats", "value": [1.9, 1.4]}
    )
    links = {"L6 f0": "https://www.neuronpedia.org/m/6/0"}
    figure = figures.feature_bars(_components(), units=units, links=links, **TITLES)
    small = {trace.xaxis: list(trace.x) for trace in figure.data if trace.marker.size == 5}
    assert small == {"x": [1.9], "x2": [1.4]}
    assert figure.layout.yaxis.ticktext[0] == '<a href="https://www.neuronpedia.org/m/6/0">L6 f0</a>'


def test_random_vectors_stand_beside_concepts() -> None:
    table = _components().assign(random=0.25, random_low=0.2, random_high=0.4)
    figure = figures.feature_bars(table, **TITLES)
    named = [trace for trace in figure.data if trace.name == "random vector of equal norm injected"]
    (random,) = [trace for trace in named if trace.x[0] is not None]
    assert set(random.x) == {0.25}
    assert random.error_x.array[0] == pytest.approx(0.15)
    concepts = next(trace for trace in figure.data if trace.name == "attribution under concepts")
    assert list(random.y) == list(concepts.y), "one lane for both"


def test_long_names_are_cut_and_stay_apart() -> None:
    table = _components().assign(component=[f"{'a very long name of a component ' * 3}{at}" for at in range(6)])
    names = list(figures.feature_bars(table, **TITLES).layout.yaxis.ticktext)
    assert len(set(names)) == 6
    assert max(map(len, names)) < 40


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_components().iloc[:0], "without components"),
        (_components().drop(columns="attribution"), "without attribution"),
        (_components().assign(verdict="guilty"), "guilty"),
    ],
)
def test_bad_tables_of_components_are_refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        figures.feature_bars(table, **TITLES)


def _points(n: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"component": [f"L6 f{at}" for at in range(n)], "attribution": rng.normal(size=n) * 0.1})
    rows["measured"], rows["verdict"] = rows["attribution"] + 0.01, "neither"
    rows.loc[0, ["attribution", "measured", "verdict"]] = [3.0, 2.0, "cause"]
    return rows.assign(d=rng.normal(size=n))


def test_scatter_enlarges_what_is_small_and_names_what_is_asked_for() -> None:
    points = _points()
    told = intervals.Interval(np.array(0.9), np.array(-0.1), np.array(1.0), 5)
    figure = attributed_measured(points, told, "t", "s")
    assert f"0.90 [{MINUS}0.10, 1.00] over 12 features" in subtitle(figure)
    assert "L6 f0" in [note.text for note in figure.layout.annotations if note.showarrow]
    assert axis(figure, "x").range == axis(figure, "y").range
    assert axis(figure, "x", 1).range[1] < 1 < axis(figure, "x").range[1]
    assert read_points(figure, "verdict: cause") == [(3.0, 2.0)]
    alike = attributed_measured(points[1:], None, "t", "s")
    assert "xaxis2" not in alike.layout.to_plotly_json()
    assert "Too little varies" in subtitle(alike)
    plain = figures.scatter(by_verdict(points, "attribution"), VERDICTS, x_label="", y_label="", **TITLES)
    assert not [note for note in plain.layout.annotations if note.showarrow]


def test_names_do_not_stand_on_each_other() -> None:
    names = [f"L6 f{at}" for at in range(30)]
    crowd = pd.DataFrame({"unit": names, "series": "", "x": 1.0, "y": 1.0})
    notes = figures.scatter(crowd, VERDICTS, x_label="", y_label="", named=names, **TITLES).layout.annotations
    places = {(note.ax, note.ay) for note in notes}
    assert 0 < len(places) == len(notes) < 30


def test_sizes_stand_on_a_logarithmic_axis() -> None:
    figure = figures.scatter(by_verdict(_points(), "d"), VERDICTS, x_label="d", y_label="", smallest=0.05, **TITLES)
    sizes = np.concatenate([trace.x for trace in in_panel(figure) if (trace.name or "").startswith("verdict")])
    np.testing.assert_allclose(np.sort(sizes), np.sort(np.log10(np.maximum(np.abs(_points()["d"]), 0.05))))
    assert ticks(figure)["0.1"] == -1


def test_points_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(UsageError, match="without d"):
        by_verdict(_points().drop(columns="d"), "d")
    with pytest.raises(UsageError, match="without components"):
        attributed_measured(_points()[:0], None, "t", "s")
    with pytest.raises(UsageError, match="none of which"):
        attributed_measured(_points().assign(measured=np.nan), None, "t", "s")


TOKENS = ["<|im_start|>", "user", "\n", " Is", " it", "a<b", "<|im_start|>", " The", " answer", " is"]
SPEAKERS = [Speaker("user", 0, 6), Speaker("assistant", 6, 10)]


def _feature(name: str = "L6 f1") -> TextFeature:
    clean = np.array([0, 0, 0, 1.0, 0, 0, 0, 0, 0, np.nan])
    return TextFeature(name, {"clean": clean, "injected": np.where(np.isnan(clean), 4.0, 2 * clean)})


def test_text_has_every_token_in_every_run_shaded_by_its_share() -> None:
    figure = figures.feature_text(TOKENS, SPEAKERS, [_feature(), _feature("L6 f2")], **TITLES)
    read, unread, _ = figure.data
    assert len(read.y) + len(unread.y) == 2 * 2 * len(TOKENS)
    shares = np.array(read.customdata)
    assert read.marker.color[int(np.argmax(shares))] == "rgb(0, 114, 178)"
    assert sorted(shares[shares > 0]) == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    assert set(read.text) >= {"[im_start]", "↵", "a&lt;b", "Is"}
    assert list(unread.text) == ["is", "is"]
    notes = [note.text for note in figure.layout.annotations]
    assert notes.count("<b>user</b>") == notes.count("<b>assistant</b>") == 2
    assert "<b>L6 f2</b>   largest activation 4" in notes
    assert read.insidetextfont.color[int(np.argmax(shares))] == "#FFFFFF"


def test_tokens_taken_in_as_literal_are_written_like_any_others() -> None:
    plain = figures.feature_text(TOKENS, SPEAKERS, [_feature()], **TITLES)
    literal = figures.feature_text(figures.literal(TOKENS), SPEAKERS, [_feature()], **TITLES)
    assert list(drawable_figure(literal).data[0].text) == list(plain.data[0].text)


def test_long_texts_wrap_and_nothing_overlaps() -> None:
    n = 240
    tokens, acts = [" word"] * n, np.linspace(0, 1, n)
    figure = figures.feature_text(
        tokens, [Speaker("a speaker with a rather long name", 0, n)], [TextFeature("f", {"clean": acts})], **TITLES
    )
    trace, _ = figure.data
    right = np.array(trace.base) + np.array(trace.x)
    assert right.max() <= figure.layout.xaxis.range[1]
    for row in set(trace.y):
        mine = np.array(trace.y) == row
        assert (np.array(trace.base)[mine][1:] >= right[mine][:-1] - 1e-9).all()
    assert len(set(trace.y)) > 5
    assert max(trace.y) < figure.layout.yaxis.range[0]


def test_bad_texts_are_refused() -> None:
    with pytest.raises(UsageError, match="0 tokens"):
        figures.feature_text([], [], [_feature()], **TITLES)
    with pytest.raises(UsageError, match="of length none"):
        figures.feature_text(TOKENS, SPEAKERS, [], **TITLES)
    with pytest.raises(UsageError, match="9 tokens"):
        figures.feature_text(TOKENS[1:], SPEAKERS, [_feature()], **TITLES)
    with pytest.raises(UsageError, match="speakers"):
        figures.feature_text(TOKENS, SPEAKERS[:1], [_feature()], **TITLES)


def test_a_feature_that_is_never_active_is_white() -> None:
    trace, _ = figures.feature_text(
        ["a"], [Speaker("user", 0, 1)], [TextFeature("f", {"clean": np.zeros(1)})], **TITLES
    ).data
    assert list(trace.marker.color) == ["rgb(255, 255, 255)"]


def test_a_poor_sae_is_told_in_bold() -> None:
    assert sae_notice(Quality(0.94, 0.29, 16.0, 300)).startswith("The SAE's error holds 6% of the variance at 300")
    poor = sae_notice(Quality(0.31, 0.8, 3.0, 300))
    assert poor.startswith("<b>WARNING: the SAE's error holds 69% of the variance, more than its features do")
    worse = sae_notice(Quality(-0.5, 1.3, 3.0, 300))
    assert "holds 150% of the variance" in worse
