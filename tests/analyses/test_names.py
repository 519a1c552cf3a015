"""What a figure or a set of conditions does not know is refused, never left out."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import pytest

from analyses.kit import shifts
from analyses.kit.dose import Dose
from analyses.kit.subject import Subject
from mechint import figures
from mechint.base.errors import UnknownNameError
from mechint.figures.names import check_names, mapped, only
from mechint.figures.style import SERIES

LOOKS = {name: SERIES[name] for name in ("clean", "injected")}
TEXTS = {"title": "t", "subtitle": "s"}


def _rows(series: list[object]) -> pd.DataFrame:
    numbers = dict.fromkeys(("mean", "low", "high", "value"), 1.0)
    return pd.DataFrame({"series": series}).assign(panel="p", row="r", unit="u", **numbers)


def _dots(rows: pd.DataFrame) -> go.Figure:
    return figures.dots(rows, rows, [figures.Panel("p", "", "")], LOOKS, **TEXTS)


def _small_dots(rows: pd.DataFrame) -> go.Figure:
    return figures.dots(rows[:1], rows, [figures.Panel("p", "", "")], LOOKS, **TEXTS)


@pytest.mark.parametrize("draw", [_dots, _small_dots])
@pytest.mark.parametrize("name", ["negated", "Injected", float("nan"), None])
def test_a_series_without_a_look_is_no_figure_without_it(
    draw: Callable[[pd.DataFrame], go.Figure], name: object
) -> None:
    assert draw(_rows(["clean", "injected"])).data
    with pytest.raises(UnknownNameError, match="allowed: clean, injected"):
        draw(_rows(["clean", name]))


def test_an_unknown_kind_of_vector_has_no_series() -> None:
    table = pd.DataFrame({"series": ["clean", "negated"], "kind": "introspection", "group": ""})
    with pytest.raises(UnknownNameError, match="unknown series 'negated'"):
        shifts.series_of(table)
    assert list(shifts.series_of(table.assign(series="swapped"))) == ["swapped", "swapped"]


def test_a_mistyped_kind_is_no_table_of_clean_rows() -> None:
    subject = Subject(None, None, Dose((0,), 1.0, None, ""), {}, {})  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"unknown series: concepts[\s\S]*injected, random"):
        subject.conditions(["concepts"])


def test_names_are_replaced_or_refused() -> None:
    column = pd.Series(["a", "b"])
    assert list(mapped(column, {"a": "x", "b": "y", "c": "z"}, "letter")) == ["x", "y"]
    with pytest.raises(UnknownNameError, match="unknown letter 'b'"):
        check_names(column, ["a"], "letter")


def test_series_that_a_figure_leaves_out_are_named() -> None:
    rows = _rows(["clean", "injected", "yes"])
    assert list(only(rows, LOOKS, ["yes", "no"])["series"]) == ["clean", "injected"]
    with pytest.raises(UnknownNameError, match="unknown series 'yes'"):
        only(rows, LOOKS, ["no"])
