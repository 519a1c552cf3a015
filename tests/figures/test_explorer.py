"""The explorer: its grid is the lens of each cell, its sliders show what they say."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import conversation, vector

import mechint as mi
from mechint.base.errors import UsageError

WINDOWS, STRENGTHS = (range(0, 2), range(1, 3)), (0.1, 0.3)


@pytest.fixture(scope="module")
def grid(tiny_model) -> pd.DataFrame:
    model = tiny_model("qwen2")
    vectors = {name: vector(model, seed) for seed, name in enumerate(("cats", "bread"))}
    return mi.explorer.sweep(
        model, conversation(), vectors, WINDOWS, STRENGTHS, controls={"random-0": vector(model, 7)}
    )


def test_each_cell_is_the_lens_of_its_injection(grid: pd.DataFrame, model: mi.Model):
    assert len(grid) == (1 + 3 * len(WINDOWS) * len(STRENGTHS)) * (model.n_layers + 1)
    one = grid[(grid["concept"] == "bread") & (grid["first"] == 1) & (grid["strength"] == 0.3)]
    steer = mi.Injection(vector(model, 1), range(1, 3), relative_strength=0.3, name="bread")
    expected = mi.logit_lens(model, conversation(), steer)
    assert one["logit_diff"].tolist() == pytest.approx(expected["logit_diff"].tolist(), abs=1e-5)
    assert set(grid["kind"]) == {"clean", "concept", "random"}


def test_a_figure_shows_the_chosen_cell(grid: pd.DataFrame):
    figure = mi.explorer.draw(grid, (1, 2), 0.3)
    assert "1:3" in figure.layout.title.text
    chosen = grid[(grid["kind"] == "concept") & (grid["first"] == 1) & (grid["strength"] == 0.3)]
    expected = chosen.groupby("layer", sort=False)["logit_diff"].mean().tolist()
    curve = next(trace for trace in figure.data if trace.name == "concept injected" and trace.showlegend)
    assert list(curve.y) == pytest.approx(expected)


def test_all_cells_have_one_axis(grid: pd.DataFrame):
    ranges = {
        mi.explorer.draw(grid, window, dose).layout.yaxis.range for window in ((0, 1), (1, 2)) for dose in STRENGTHS
    }
    assert len(ranges) == 1
    low, high = ranges.pop()
    assert low < grid["logit_diff"].min() < grid["logit_diff"].max() < high


def test_what_users_have_called_things_is_no_markup(grid: pd.DataFrame):
    named = grid.rename(columns={"p_yes": "p_<b>yes</b>"})
    figure = mi.explorer.draw(named, (1, 2), 0.3, "p_<b>yes</b>")
    assert "p_&lt;b&gt;yes&lt;/b&gt;" in str(figure.layout)
    assert "<b>yes" not in str(figure.layout)


def test_sliders_choose_among_the_cells(grid: pd.DataFrame):
    pytest.importorskip("ipywidgets", reason="the explorer needs ipywidgets")
    layers, strengths, shown = mi.explorer.explore(grid, "p_yes").children
    assert [label for label, _ in layers.options] == ["0:2", "1:3"]
    assert (layers.value, strengths.value) == ((1, 2), 0.3), "in the middle at first"
    layers.value, strengths.value = (0, 1), 0.1
    assert (layers.value, strengths.value) == ((0, 1), 0.1)
    assert shown is not None


def test_bad_input(grid: pd.DataFrame, model: mi.Model):
    with pytest.raises(UsageError, match="window"):
        mi.explorer.draw(grid, (0, 3), 0.3)
    with pytest.raises(UsageError, match="nonsense"):
        mi.explorer.draw(grid, (0, 1), 0.3, "nonsense")
    with pytest.raises(UsageError, match=r"mi\.explorer\.sweep"):
        mi.explorer.explore(grid.drop(columns="first"))
    with pytest.raises(UsageError, match="empty window"):
        mi.explorer.sweep(model, conversation(), {"cats": vector(model)}, [range(2, 2)], [0.1])
