"""From a table with known effects to the figures of the logit-lens analysis."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from figure_reader import axis, bands, in_panel, legend, panel_titles, points, title

from analyses import logit_lens
from analyses.kit.dose import Dose, Placement, sweep_placements
from analyses.kit.option_types import format_layers
from analyses.logit_lens.figures import figures

N_LAYERS = 4
LAYERS = ["embed", *map(str, range(N_LAYERS))]
CONCEPTS = {"cats": 0.3, "bread": 0.5, "rain": 0.4}
RANDOMS = {"random-0": 0.05, "random-1": 0.07}
ASKED = {
    "question": ("introspection", "", 0.1, 1.0),
    "a": ("control", "no", 0.0, 0.1),
    "b": ("control", "yes", 0.9, -0.2),
}
DOSE = Dose((1, 2), None, 0.3, "default")


def _rows(conversation: str, vector: str, kind: str, effect: float, placement: Placement) -> list[dict[str, object]]:
    """Rows in which the shift is `effect` times the question's share at all layers after the first injected one."""
    asked, group, clean, share = ASKED[conversation]
    after = [int(step - 1 > min(placement.layers)) for step in range(N_LAYERS + 1)]
    cell = {"conversation": conversation, "kind": asked, "group": group, "unit": vector, "series": kind}
    cell |= {"sweep": placement.sweep, "injected_layers": format_layers(placement.layers) if vector else ""}
    shifts = [effect * share * reached for reached in after]
    return [
        {**cell, "layer": layer, "p_yes": clean + shift, "p_yes_shift": shift}
        for layer, shift in zip(LAYERS, shifts, strict=True)
    ]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    placements = [Placement("main", DOSE.layers), *sweep_placements(2, range(N_LAYERS), N_LAYERS)]
    rows = [row for question in ASKED for row in _rows(question, "", "clean", 0.0, placements[0])]
    for placement in placements:
        rows += [
            r
            for asked in ASKED
            for n, effect in CONCEPTS.items()
            for r in _rows(asked, n, "injected", effect, placement)
        ]
        rows += [r for name, effect in RANDOMS.items() for r in _rows("question", name, "random", effect, placement)]
    return pd.DataFrame(rows)


def _figures(table: pd.DataFrame) -> dict[str, go.Figure]:
    config = logit_lens.ANALYSIS.parsed(["--layer-sweep"])
    return figures(table, config, DOSE, "a model")


def _without_sweep(table: pd.DataFrame) -> dict[str, go.Figure]:
    """The overview and the concepts alone: heatmaps take most of the time."""
    return _figures(table[table["sweep"] == "main"])


@pytest.fixture(scope="module")
def drawn(table: pd.DataFrame) -> dict[str, go.Figure]:
    return _figures(table)


def _heatmaps(figure: go.Figure) -> dict[str, np.ndarray]:
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    titles = panel_titles(figure)
    return {title: np.array(trace.z, dtype=float) for title, trace in zip(titles, maps, strict=True)}


def test_there_is_a_figure_for_each_part(drawn: dict[str, go.Figure]) -> None:
    assert list(drawn) == ["lens_overview", "lens_concepts", "lens_sweep_single", "lens_sweep_window"]


def test_the_title_tells_the_output_and_the_largest_control_shift(drawn: dict[str, go.Figure]) -> None:
    title = drawn["lens_overview"].layout.title.text.replace("<br>", " ")
    assert "from 0.10 to 0.50" in title  # clean 0.1, mean effect 0.4
    assert "a random vector shifts it by +0.06" in title
    assert "by at most \N{MINUS SIGN}0.08" in title  # the yes controls, not the +0.04 of the others


def test_the_subtitle_tells_numbers_and_conditions(drawn: dict[str, go.Figure]) -> None:
    text = drawn["lens_overview"].layout.title.subtitle.text.replace("<br>", " ")
    for part in (
        "a model",
        "info introspection",
        "layers 1:3",
        "0.3 x the model's median residual norm",
        "3 concepts",
        "2 random vectors",
        "1 yes",
    ):
        assert part in text


def test_the_band_is_the_interval_over_concepts(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["lens_overview"]
    shift = next(trace for trace in figure.data if trace.name == "concept injected" and trace.yaxis == "y3")
    band = next(
        trace for trace in figure.data if trace.fill and trace.legendgroup == "concept injected" and trace.yaxis == "y3"
    )
    high, low = band.y[len(LAYERS) - 1], band.y[len(LAYERS)]
    assert shift.y[-1] == pytest.approx(0.4)
    half = 4.303 * 0.1 / np.sqrt(3)  # shifts of 0.3, 0.4 and 0.5, and the 97.5% point of t for three
    assert (low, high) == pytest.approx((0.4 - half, 0.4 + half), abs=1e-3)


def test_an_effect_of_nothing_looks_like_nothing(table: pd.DataFrame, drawn: dict[str, go.Figure]) -> None:
    small = _without_sweep(table.assign(p_yes_shift=table["p_yes_shift"] * 0.01))["lens_overview"]
    assert axis(small, "y", 2).range == (-0.05, 0.05)
    assert axis(drawn["lens_overview"], "y", 2).range is None


def test_the_overview_draws_every_series_and_concept_where_it_belongs(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["lens_overview"]
    assert points(figure, "concept injected", 2)[-1] == (N_LAYERS - 1, pytest.approx(0.4))
    assert len(bands(figure, 1)) == 2, "controls under concepts; the thin clean ones have none"
    single = [trace.hovertemplate for trace in in_panel(figure, 2) if trace.line.width == 1]
    assert [hover.split(",")[0] for hover in single] == list(CONCEPTS)
    assert len(legend(figure)) == len(set(legend(figure)))


def test_many_concepts_are_pages_on_one_scale(table: pd.DataFrame) -> None:
    more = [table[table["unit"] == "cats"].assign(unit=f"concept{number}") for number in range(11)]
    pages = _without_sweep(pd.concat([table, *more]))
    first, second = pages["lens_concepts"], pages["lens_concepts_2"]
    assert [len(panel_titles(page)) for page in (first, second)] == [12, 2]
    assert axis(first, "y").range == axis(second, "y").range
    assert title(second).endswith("(page 2 of 2)")


def test_every_concept_has_a_panel_with_its_own_curve(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["lens_concepts"]
    assert panel_titles(figure) == list(CONCEPTS)
    injected = [trace.y[-1] for trace in figure.data if trace.name == "concept injected"]
    np.testing.assert_allclose(injected, [0.1 + effect for effect in CONCEPTS.values()])
    assert len([trace for trace in figure.data if trace.name == "clean"]) == len(CONCEPTS)


def test_heatmaps_hold_the_shifts_and_their_differences(drawn: dict[str, go.Figure]) -> None:
    maps = _heatmaps(drawn["lens_sweep_single"])
    reached = np.array([[step - 1 > layer for step in range(N_LAYERS + 1)] for layer in range(N_LAYERS)])
    question, no, random, minus_no, minus_random, yes = maps.values()
    for found, effect in zip((question, no, random, yes), (0.4, 0.04, 0.06, -0.08), strict=True):
        np.testing.assert_allclose(found, effect * reached, atol=1e-12)
    np.testing.assert_allclose(minus_no, question - no, atol=1e-12)
    np.testing.assert_allclose(minus_random, question - random, atol=1e-12)


def test_windows_are_rows_of_their_own_figure(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["lens_sweep_window"]
    assert list(figure.layout.yaxis.ticktext) == ["0:2", "1:3", "2:4"]
    assert "window of 2 layers" in figure.layout.title.text


def test_panels_without_data_are_left_out(table: pd.DataFrame) -> None:
    questions = table[(table["kind"] == "introspection") & (table["series"] != "random")]
    found = _figures(questions)
    assert list(_heatmaps(found["lens_sweep_single"])) == ["Introspection question"]
    assert "random" not in found["lens_overview"].layout.title.text
    assert "control" not in found["lens_overview"].layout.title.text


def test_a_missing_value_is_a_gap_and_never_zero(table: pd.DataFrame) -> None:
    broken = table.copy()
    hit = (broken["unit"] == "cats") & (broken["layer"] == "3") & (broken["sweep"] == "single")
    broken.loc[hit & (broken["kind"] == "introspection") & (broken["injected_layers"] == "0"), "p_yes_shift"] = np.nan
    found = _heatmaps(_figures(broken)["lens_sweep_single"])["Introspection question"]
    assert np.isnan(found[0, -1])
    assert np.isfinite(found[1:]).all()


def test_output_is_the_last_layer_also_when_layers_have_two_digits(table: pd.DataFrame) -> None:
    deep = table.assign(layer=table["layer"].replace({"3": "10"}))
    title = _without_sweep(deep)["lens_overview"].layout.title.text.replace("<br>", " ")
    assert "from 0.10 to 0.50" in title
