"""What figures of contrasts share: points, looks, and what is said where the data do not carry a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mechint.figures.style import BLUE, BROWN, GREEN, INK, ORANGE, PURPLE, VERMILION, VIOLET, Series

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLUMNS = ["panel", "row", "series", "mean", "low", "high", "n"]
UNITS = ["panel", "row", "series", "unit", "value"]
LABELS = {"net": "share of claims above that of clean replies", "hits": "share of replies that claim something"}
HEADS = {"net": "Net detection", "hits": "Hits: claims under concepts", "coherence": "Can be read"}
LARGE_SMALL = "Large: means over concepts with 95% intervals; small: single concepts"
# Filled and open shapes by turns, dark and light colours, so that neighbours differ in grey too.
_LOOKS = (
    (VERMILION, "circle"),
    (BLUE, "square-open"),
    (GREEN, "diamond"),
    (BROWN, "triangle-up-open"),
    (ORANGE, "triangle-down"),
    (VIOLET, "star-open"),
    (PURPLE, "x"),
    (INK, "hexagon-open"),
)


@dataclass(frozen=True)
class Drawing:
    """A figure, and the points in it."""

    figure: go.Figure
    points: pd.DataFrame


@dataclass(frozen=True)
class NotDrawn:
    """Why there is no such figure."""

    reason: str


def looks(names: Sequence[str]) -> dict[str, Series]:
    """Return a look for each name; after eight of them shapes and colours come again."""
    chosen = [_LOOKS[at % len(_LOOKS)] for at in range(len(names))]
    return {name: Series(name, color, "solid", symbol) for name, (color, symbol) in zip(names, chosen, strict=True)}


def means(
    rates: pd.DataFrame, *, panel: str, row: str, series: str, measure: str, refusals: str = "in"
) -> pd.DataFrame:
    """Return the points of one measure for `dots`; `row` and `series` are columns of a table of rates."""
    rows = rates[(rates["measure"] == measure) & (rates["refusals"] == refusals)]
    columns = {"panel": panel, "row": rows[row], "series": rows[series], "mean": rows["value"]}
    return pd.DataFrame({**columns, "low": rows["low"], "high": rows["high"], "n": rows["n_concepts"]}, columns=COLUMNS)


def units_of(values: pd.DataFrame, *, panel: str, row: str, series: str) -> pd.DataFrame:
    """Return the values of single concepts for `dots`; `row` and `series` are columns of theirs."""
    columns = {"panel": panel, "row": values[row], "series": values[series], "unit": values["concept"]}
    return pd.DataFrame({**columns, "value": values["value"]}, columns=UNITS)


def ordered(rows: pd.DataFrame, column: str, order: Sequence[str]) -> pd.DataFrame:
    """Return rows by the place of a column's values in an order."""
    places = {name: at for at, name in enumerate(order)}
    return rows.sort_values(column, key=lambda names: names.map(places), kind="stable", ignore_index=True)
