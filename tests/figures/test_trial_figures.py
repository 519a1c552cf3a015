"""Stacked bars and hits against false alarms: what is drawn is what was given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mechint import figures
from mechint.base.errors import UnknownNameError
from mechint.figures import Hatch
from mechint.figures.style import SERIES

PARTS = {"a": Hatch("first", "#FFFFFF"), "b": Hatch("second", "#000000", "/"), "c": Hatch("third", "#777777")}
TEXT = {"title": "t", "subtitle": "s"}


def shares() -> pd.DataFrame:
    """Two groups, with two rows and one."""
    rows = [("g", "one", 7), ("g", "two", 1200), ("h", "one", 3)]
    values = {"a": 0.5, "b": 0.46, "c": 0.04}
    return pd.DataFrame(
        [
            {"group": group, "row": row, "n": n, "part": part, "share": share}
            for group, row, n in rows
            for part, share in values.items()
        ]
    )


def test_stacks_have_every_share_and_numbers_where_they_can_be_read() -> None:
    figure = figures.stacks(shares(), PARTS, label="share", counted="replies", **TEXT)
    assert [list(trace.x) for trace in figure.data] == [[0.5] * 3, [0.46] * 3, [0.04] * 3]
    assert list(figure.data[0].text) == ["50%"] * 3
    assert set(figure.data[1].text) | set(figure.data[2].text) == {""}  # hatched, and too narrow
    places = list(figure.data[0].y)
    assert places[0] - places[1] == 1
    assert places[1] - places[2] > 1  # another group
    texts = [note.text for note in figure.layout.annotations]
    assert {"1,200", "7", "3", "<b>g</b>", "<b>h</b>", "replies"} <= set(texts)
    assert texts.count("one") == 2


def test_stacks_refuse_parts_without_a_look() -> None:
    with pytest.raises(UnknownNameError, match="b"):
        figures.stacks(shares(), {"a": PARTS["a"], "c": PARTS["c"]}, label="share", counted="replies", **TEXT)


def test_lines_have_one_d_prime_and_points_stand_where_they_are() -> None:
    points = pd.DataFrame(
        [{"series": "injected", "unit": "plain", "x": 0.2, "x_low": np.nan, "x_high": np.nan, "y": 0.7}]
    ).assign(y_low=0.6, y_high=0.9)
    figure = figures.hits_and_alarms(points, SERIES, x_label="x", y_label="y", **TEXT)
    for expected, line in enumerate(figure.data[:4]):
        inside = slice(60, 140)
        x, y = np.array(line.x)[inside], np.array(line.y)[inside]
        np.testing.assert_allclose(stats.norm.ppf(y) - stats.norm.ppf(x), expected, atol=1e-6)
    dots = figure.data[4]
    assert (dots.x[0], dots.y[0], dots.text[0]) == (0.2, 0.7, "plain")
    assert list(dots.error_y.array) == pytest.approx([0.2])
    assert list(dots.error_x.array) == [0.0]
