"""The note of figures whose intervals are over few units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechint import figures
from mechint.figures.plot.attribution import together
from mechint.figures.style import BLUE, Series
from mechint.figures.units import with_units

VALUES = np.random.default_rng(0).normal(size=(3, 4, 8))


def test_only_what_has_an_interval_counts() -> None:
    frame = pd.DataFrame({"low": [0.1, np.nan, 0.2, 0.0], "n": [8, 3, 4, 5]})
    assert "(4 to 5)" in with_units("s.", [frame])
    assert with_units("s.", [frame.iloc[:2]]) == "s."
    assert with_units("s.", [frame.drop(columns="n")]) == "s."


@pytest.mark.parametrize(("units", "told"), [(3, True), (8, False)])
def test_planes_waterfalls_and_curves_of_causes_say_so_too(units: int, told: bool) -> None:
    points = pd.DataFrame({"series": "a", "unit": range(units), "x": VALUES[0, 0, :units], "y": VALUES[0, 1, :units]})
    look = {"a": Series("a", BLUE, "solid", "circle")}
    bars = pd.DataFrame({"layer": [0, 1], "kind": "attn", "mean": 1.0, "low": 0.5, "high": 1.5, "n": units})
    of_sets = {"fraction": 0.5, "fraction_low": 0.4, "fraction_high": 0.6, "kind": "top", "n": units}
    curves = pd.DataFrame({"test": "necessity", "k": [1, 2], **of_sets})
    drawn = [
        figures.plane(points, look, x_label="", y_label="", diagonals=("", ""), title="t", subtitle="s"),
        figures.waterfall(bars, bars.drop(columns="kind"), title="t", subtitle="s", label=""),
        together(curves, "t", "s"),
    ]
    assert [("Few units" in figure.layout.title.subtitle.text) for figure in drawn] == [told] * 3
