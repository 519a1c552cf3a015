"""mi.plot chooses by columns, and draws the numbers of the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import conversation, vector

import mechint as mi
from mechint.base.errors import UsageError


@pytest.fixture(scope="module")
def tables(tiny_model) -> dict[str, pd.DataFrame]:
    model = tiny_model("qwen2")
    chats = [conversation("one"), conversation("two", question="is the sea a cat?")]
    asked = [mi.CLEAN, mi.Injection(vector(model), [1], 2.0, name="cats")]
    return {
        "score": mi.score(model, chats, asked),
        "lens": mi.logit_lens(model, chats, asked),
        "options": mi.score(model, chats, asked, answers=mi.Answers.options([" yes", " no", " cat"])),
        "text": mi.generate(model, chats, asked, max_new_tokens=3),
        "loss": mi.text_loss(model, ["Tell me about cats.", "The sea is a cat."], asked),
    }


def test_a_score_table_becomes_dots_with_intervals(tables: dict[str, pd.DataFrame]):
    figure = mi.plot(tables["score"])
    large = {trace.name: trace for trace in figure.data if trace.error_x.array is not None}
    means = tables["score"].groupby("intervention")["logit_diff"].mean()
    assert float(np.ravel(large["clean"].x)[0]) == pytest.approx(means["clean"])
    assert float(np.ravel(large["intervention"].x)[0]) == pytest.approx(means["cats"])
    assert figure.layout.title.text.startswith("<b>logit(yes)")
    assert "2 conversations" in figure.layout.title.subtitle.text


def test_a_lens_table_becomes_curves(tables: dict[str, pd.DataFrame]):
    table = tables["lens"]
    figure = mi.plot(table, "p_yes_shift")
    curves = {trace.name: trace for trace in figure.data if trace.mode and "lines" in trace.mode and trace.showlegend}
    assert set(curves) == {"clean", "cats"}
    expected = table[table["intervention"] == "cats"].groupby("layer", sort=False)["p_yes_shift"].mean()
    assert list(curves["cats"].y) == pytest.approx(expected.tolist())
    assert figure.layout.title.text == "<b>Shift of P(yes) by layer</b>"
    assert len({trace.line.dash for trace in curves.values()}) == 2


def test_options_become_a_grid_and_replies_a_table(tables: dict[str, pd.DataFrame]):
    grid = mi.plot(tables["options"])
    expected = tables["options"].groupby("intervention", sort=False)[["p_ yes", "p_ no", "p_ cat"]].mean()
    assert np.asarray(grid.data[0].z) == pytest.approx(expected.to_numpy())
    texts = " ".join(note.text for note in mi.plot(tables["text"]).layout.annotations)
    assert "cats" in texts


def test_one_conversation_has_no_interval_and_says_so(tables: dict[str, pd.DataFrame]):
    one = tables["lens"][tables["lens"]["conversation"] == "one"]
    assert "no interval" in mi.plot(one).layout.title.subtitle.text


@pytest.mark.parametrize("kind", ["score", "lens", "options", "text", "loss"])
def test_an_unknown_metric_is_refused(tables: dict[str, pd.DataFrame], kind: str):
    with pytest.raises(UsageError, match="nonsense"):
        mi.plot(tables[kind], "nonsense")


def test_what_cannot_be_drawn_is_refused(tables: dict[str, pd.DataFrame]):
    with pytest.raises(UsageError, match="columns a"):
        mi.plot(pd.DataFrame({"a": [1]}))
    many = pd.concat([tables["lens"].assign(intervention=f"i{number}") for number in range(13)])
    with pytest.raises(UsageError, match="13 curves"):
        mi.plot(many)


def grouped(table: pd.DataFrame) -> pd.DataFrame:
    """Two more interventions of a group, so that the group has three."""
    cats = table[table["intervention"] == "cats"]
    more = [cats.assign(intervention=name, logit_diff=cats["logit_diff"] + at) for at, name in enumerate("ab", 1)]
    return pd.concat([table, *more], ignore_index=True).assign(
        kind=lambda rows: rows["intervention"].map(lambda name: "clean" if name == "clean" else "injected")
    )


def test_a_group_is_a_mean_over_its_interventions(tables: dict[str, pd.DataFrame]):
    table = grouped(tables["lens"])
    figure = mi.plot(table, by="kind")
    curve = next(trace for trace in figure.data if trace.name == "concept injected" and trace.showlegend)
    expected = table[table["kind"] == "injected"].groupby("layer", sort=False)["logit_diff"].mean()
    assert list(curve.y) == pytest.approx(expected.tolist())
    assert "over interventions; where there is only one" in figure.layout.title.subtitle.text
    dots = mi.plot(grouped(tables["score"]), by="kind")
    small = [len(trace.y) for trace in dots.data if trace.error_x.array is None and trace.y is not None]
    assert sorted(small)[-2:] == [2, 3], "clean over its conversations, injected over its interventions"


def test_clean_rows_of_a_group_stand_apart(tables: dict[str, pd.DataFrame]):
    figure = mi.plot(tables["lens"].assign(info="none"), by="info")
    curves = {trace.name: trace for trace in figure.data if trace.showlegend}
    assert set(curves) == {"none", "none, clean"}
    assert curves["none"].line.color == curves["none, clean"].line.color
    assert curves["none"].line.dash != curves["none, clean"].line.dash
    clean = tables["lens"][tables["lens"]["intervention"] == "clean"]
    expected = clean.groupby("layer", sort=False)["logit_diff"].mean().tolist()
    assert list(curves["none, clean"].y) == pytest.approx(expected)


def test_layers_that_were_injected_are_shaded(tables: dict[str, pd.DataFrame]):
    shaded = [shape for shape in mi.plot(tables["lens"]).layout.shapes if shape.type == "rect"]
    assert [(shape.x0, shape.x1) for shape in shaded] == [(0.5, 1.5)]
    unknown = tables["lens"].copy()
    unknown.attrs = {}
    assert not [shape for shape in mi.plot(unknown).layout.shapes if shape.type == "rect"]


def test_strengths_become_an_axis(tables: dict[str, pd.DataFrame]):
    cats = tables["score"][tables["score"]["intervention"] == "cats"]
    doses = [cats.assign(intervention=f"x{dose}", strength=dose, p_yes=dose / 10) for dose in (0.5, 1.0, 2.0)]
    table = pd.concat([tables["score"].assign(strength=0.0).iloc[:1], *doses]).assign(vector="cats")
    figure = mi.plot(table, "p_yes", by="vector")
    line = next(trace for trace in figure.data if trace.showlegend)
    assert (list(line.x), list(line.y)) == ([0.5, 1.0, 2.0], pytest.approx([0.05, 0.1, 0.2]))
    with pytest.raises(UsageError, match="no strength above zero"):
        mi.plot(table.assign(strength=0.0), by="vector")


def test_losses_of_texts_are_drawn_as_perplexity(tables: dict[str, pd.DataFrame]):
    figure = mi.plot(tables["loss"])
    large = {trace.name: trace for trace in figure.data if trace.error_x.array is not None}
    means = tables["loss"].groupby("intervention")["perplexity"].mean()
    assert float(np.ravel(large["intervention"].x)[0]) == pytest.approx(means["cats"])
    steered = tables["loss"].assign(
        strength=tables["loss"]["intervention"].map({"clean": 0.0, "cats": 2.0}), kind="all"
    )
    curves = mi.plot(steered, by="kind")
    assert "Dotted: clean." in curves.layout.title.subtitle.text
    assert any(shape.y0 == pytest.approx(means["clean"]) for shape in curves.layout.shapes)


def test_an_unknown_group_is_refused(tables: dict[str, pd.DataFrame]):
    with pytest.raises(UsageError, match="by='concept'"):
        mi.plot(tables["score"], by="concept")


def test_figures_fit_beside_the_sidebar_of_a_notebook(tables: dict[str, pd.DataFrame]):
    assert {mi.plot(table).layout.width for table in tables.values()} == {960}
