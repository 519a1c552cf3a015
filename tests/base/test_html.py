"""What objects show of themselves in a notebook."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import conversation, parsed, vector

import mechint as mi
from mechint.base import html


def test_a_conversation_shows_which_turns_are_filled_under_the_intervention():
    chat = conversation(setup="1 < 2 & <script>alert(1)</script>")
    markup = chat._repr_html_()
    parsed(markup)
    assert "<script>" not in markup
    assert markup.count("filled under the intervention") == sum(m.add_injection for m in chat.messages) == 2
    assert markup.count("the answer follows") == 1
    assert "(empty)" in markup
    assert "&#x27; yes&#x27;" in markup


def test_a_vector_shows_its_norms_by_layer(model: mi.Model):
    markup = vector(model)._repr_html_()
    parsed(markup)
    assert "<polyline" in markup
    assert "layers 0:4" in markup
    assert repr(vector(model)) == "ConceptVector('v0', layers=0:4, d_model=32)"


def test_a_sparkline_keeps_gaps_and_its_range():
    line = html.sparkline({0: 1.0, 1: 3.0, 4: 2.0, 5: float("nan")}, n=6)
    parsed(line)
    assert line.count("<polyline") == line.count("<circle") == 1
    assert "layers 0:2, 4; 1 to 3" in line
    points = re.search(r'points="([^"]+)"', line)
    assert points
    first, second = points[1].split()
    first_x, first_y = first.split(",")
    second_x, second_y = second.split(",")
    assert float(first_x) < float(second_x)
    assert float(first_y) > float(second_y), "higher values stand higher"
    assert html.sparkline({}) == "<i>no values</i>"


def test_numbers_in_short():
    assert html.spans([3, 1, 2, 7]) == "1:4, 7"
    assert html.spans([]) == ""


def test_receipts_and_costs_show_themselves(model: mi.Model):
    steer = mi.Injection(vector(model), [1, 2], 2.0, name="a<b")
    clean, injected = mi.prefill(model, conversation(), [mi.CLEAN, steer]).receipts
    for markup in (clean._repr_html_(), injected._repr_html_()):
        parsed(markup)
    assert "nothing" in clean._repr_html_()
    assert "a&lt;b" in injected._repr_html_()
    assert f"{2 * len(injected.positions)} additions at 2 layers" in injected._repr_html_()
    cost = mi.explain(model, conversation(), [mi.CLEAN, steer])
    parsed(cost._repr_html_())
    assert "work saved" in cost._repr_html_()


@pytest.mark.parametrize("values", [{0: 0.0}, {0: -1.0, 1: -2.0}, {0: 5.0, 1: 5.0}])
def test_any_values_are_drawn_inside_the_picture(values: dict[int, float]):
    numbers = [
        float(n) for n in re.findall(r"[\d.]+(?=[, \"])", html.sparkline(values).split("</svg>")[0].split(">", 1)[1])
    ]
    assert torch.tensor(numbers).isfinite().all()
    assert max(numbers) <= 180
