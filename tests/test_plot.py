"""mi.plot chooses by columns, and draws the numbers of the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import conversation, vector

import mechint as mi
from mechint.errors import UsageError


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


@pytest.mark.parametrize("kind", ["score", "lens", "options", "text"])
def test_an_unknown_metric_is_refused(tables: dict[str, pd.DataFrame], kind: str):
    with pytest.raises(UsageError, match="nonsense"):
        mi.plot(tables[kind], "nonsense")


def test_what_cannot_be_drawn_is_refused(tables: dict[str, pd.DataFrame]):
    with pytest.raises(UsageError, match="columns a"):
        mi.plot(pd.DataFrame({"a": [1]}))
    many = pd.concat([tables["lens"].assign(intervention=f"i{number}") for number in range(13)])
    with pytest.raises(UsageError, match="13 interventions"):
        mi.plot(many)
