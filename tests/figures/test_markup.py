"""Texts of users and models are drawn to the letter: no link, no vanished name, no value of a hover text."""

from __future__ import annotations

import dataclasses
import html
import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mechint as mi
from analyses.gallery.page import _caption, _markdown
from mechint import figures
from mechint.figures.markup import OWN_TAGS, drawable, literal, plain
from mechint.figures.readable import readable_json

TAG = re.compile(r"<[^>]*>")
HOSTILE = [
    "<a href='https://example.org'>here</a>",
    "<x>",
    "a < b & c",
    "&lt;kept&gt;",
    "<b>not bold</b>",
    "%{x}",
    "<br>",
]


def shown(text: str) -> str:
    """What Plotly draws of a text: tags vanish, entities are the characters they stand for."""
    return html.unescape(TAG.sub("", text))


@given(st.text())
def test_a_literal_text_is_drawn_as_it_is(text):
    written = drawable(literal(text))
    assert shown(written) == text
    assert "%{" not in written
    assert plain(literal(text)) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_literal_text_keeps_its_length(text):
    assert len(literal(text)) == len(text)


def test_the_words_of_a_figure_keep_their_markup():
    own = "".join(f"<{tag}>x</{tag}>" for tag in OWN_TAGS) + "<br>%{x:.2f}"
    assert drawable(own) == own


@pytest.mark.parametrize("text", ["<a href='x'>link</a>", "<x>", '<span style="color:red">x</span>', "<B onclick=1>"])
def test_a_text_that_came_past_the_boundary_can_still_be_no_link_and_cannot_vanish(text):
    assert shown(drawable(text)) == text


@dataclasses.dataclass(frozen=True)
class Options:
    concepts: tuple[str, ...]
    seed: int


def test_tables_mappings_and_options_are_taken_in_whole():
    table = pd.DataFrame({"vector": ["<x>", "cats"], "p_<x>": [0.1, 0.2], "kind": pd.Categorical(["<x>", "b"])})
    taken = literal({"table": {"rows": ["<x>", ("<x>", 1)]}, "options": "<x>"})
    assert "<" not in json.dumps(taken)
    assert literal(Options(("<x>",), 3)) == Options((literal("<x>"),), 3)
    drawn = literal(table)
    assert list(drawn["vector"]) == [literal("<x>"), "cats"]
    assert f"p_{literal('<x>')}" in drawn
    assert isinstance(drawn["kind"].dtype, pd.CategoricalDtype)
    assert list(table["vector"]) == ["<x>", "cats"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_plot_shows_names_to_the_letter(name):
    rows = [
        {"conversation": label, "intervention": which, "layer": layer, "logit_diff": 0.1 * layer}
        for label in (f"chat {name}", "other")
        for which in ("clean", name)
        for layer in range(3)
    ]
    figure = mi.plot(pd.DataFrame(rows))
    assert name in [shown(trace.name) for trace in figure.data if trace.name]
    assert not re.search(r"<(?!/?(b|br|i|extra)>)", readable_json(figure))


def test_replies_of_a_model_are_drawn_to_the_letter():
    replies = pd.DataFrame(
        {"conversation": ["a"], "intervention": ["clean"], "text": ["see <a href='x'>this</a> & <b>"]}
    )
    notes = [shown(note.text) for note in mi.plot(replies).layout.annotations]
    assert "see <a href='x'>this</a> & <b>" in notes


def test_the_page_and_the_overview_of_a_gallery_keep_names_in_angle_brackets(tmp_path):
    figure = figures.text_table(["a"], [["b"]], title=f"Most with: {literal('<x> *and* <b>')}", subtitle="s")
    figures.save(figure, tmp_path / "f", png=False)
    title, _ = _caption(tmp_path / "f.json")
    assert html.unescape(title) == "Most with: <x> *and* <b>"
    assert _markdown(title) == r"Most with: &lt;x&gt; \*and\* &lt;b&gt;"
