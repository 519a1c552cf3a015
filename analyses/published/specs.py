"""What figures of published values share: who has published, points with exact intervals, numbers beside the dots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mechint import figures as draw
from mechint.figures import Panel, published
from mechint.figures.style import BLUE, GREEN, INK, MINUS, ORANGE, PURPLE, VERMILION, Series
from mechint.stats import intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

NO_INTERVAL = "No interval published"
COLUMNS = ["panel", "row", "series", "mean", "low", "high"]
LOOKS = {
    "control": Series("control trials: false positives", INK, "dot", "circle-open"),
    "injected": Series("injection trials: passed", VERMILION, "solid", "circle"),
    "net": Series(f"net detection: passed {MINUS} false positives", BLUE, "solid", "diamond"),
    "refusals": Series("refusals", ORANGE, "dash", "triangle-up"),
}
MODELS = {
    "mean of 3B, 7B, 14B": Series("mean of 3B, 7B and 14B", INK, "solid", "circle-open"),
    "14B": Series("14B", GREEN, "dash", "square"),
    "32B-Base": Series("32B-Base, refusals excluded", VERMILION, "solid", "circle"),
    "32B-Coder": Series("32B-Coder", BLUE, "dashdot", "diamond"),
    "32B-Insecure": Series("32B-Insecure", PURPLE, "dot", "triangle-down"),
}
BASE = "32B-Base is Qwen2.5-32B-Instruct, 32B-Coder is Qwen2.5-Coder-32B-Instruct"
INSECURE = ", 32B-Insecure a finetune of the latter"


@dataclass(frozen=True)
class Picture:
    """A figure and the values in it: panel, row, series, mean, low, high; `source` says who has published them."""

    figure: go.Figure
    values: pd.DataFrame
    source: str


def citation(*names: str) -> str:
    """Return what a title says of the write-ups that some tables are from."""
    project = published.load("sources").set_index("source")["project"]
    sources = list(dict.fromkeys(source for name in names for source in published.load(name)["source"]))
    quoted = ", ".join(f"“{source}”" for source in sources)
    return f"Published in {quoted} ({', '.join(dict.fromkeys(project[sources]))})"


def points(
    table: pd.DataFrame, *, panel: str, row: str, series: str, value: str, trials: str | None = None
) -> pd.DataFrame:
    """Return points of one column for `dots`, all of one series; where `trials` has a number, with an exact interval.

    Rows without a value are left out.
    """
    rows = table[table[value].notna()]
    counts = rows[trials] if trials is not None else pd.Series(np.nan, rows.index)
    bounds = [exact(rate, n) for rate, n in zip(rows[value], counts, strict=True)]
    low, high = np.reshape(bounds, (-1, 2)).T
    columns = {"panel": panel, "row": rows[row], "series": series, "mean": rows[value], "low": low, "high": high}
    return pd.DataFrame(columns, columns=COLUMNS)


def points_by(table: pd.DataFrame, by: str, *, panel: str, row: str, value: str) -> pd.DataFrame:
    """Return points as `points` does, a series for each value of the column `by`."""
    groups = table.groupby(by, sort=False)
    parts = [points(rows, panel=panel, row=row, series=str(name), value=value) for name, rows in groups]
    return pd.concat(parts, ignore_index=True)


def exact(rate: float, trials: float) -> tuple[float, float]:
    """Return the exact 95% interval of a published rate over its trials; NaN where their number is."""
    if np.isnan(trials):
        return np.nan, np.nan
    interval = intervals.binomial_interval(round(rate * trials), round(trials))
    return float(interval.low), float(interval.high)


def share_dots(
    values: pd.DataFrame,
    panels: Sequence[Panel],
    looks: Mapping[str, Series],
    *,
    title: str,
    subtitle: str,
    numbers: Sequence[str],
    of: str,
) -> Picture:
    """Return rows of dots on axes in percent; dots of the panels `numbers` have their value beside them.

    `of` is the source of the values.
    """
    units = labelled(values[values["panel"].isin(numbers)], with_digits)
    figure = draw.dots(values, units, panels, looks, title=title, subtitle=subtitle, packed=True)
    with_room(figure, values, panels, numbers)
    return Picture(figure.update_xaxes(tickformat=".0%"), values, of)


def labelled(values: pd.DataFrame, write: Callable[[float], str]) -> pd.DataFrame:
    """Return values as units of `dots`, each with its number on the side away from zero."""
    units = values.rename(columns={"mean": "value"}).assign(unit="published")
    text = [f"\u2003{write(value)}\u2003" for value in units["value"]]  # clear of the large dot on either side
    return units.assign(label=text, side=np.where(units["value"] < 0, "left", "right"))


def with_room(figure: go.Figure, values: pd.DataFrame, panels: Sequence[Panel], numbers: Sequence[str]) -> None:
    """Let every axis show zero, and leave room for whole dots and for the numbers beside them."""
    for column, panel in enumerate(panels, start=1):
        values_of_panel = values[values["panel"] == panel.key]
        low, high = (
            min(0.0, values_of_panel[["mean", "low"]].min().min()),
            max(0.0, values_of_panel[["mean", "high"]].max().max()),
        )
        room = 0.1 * len(panels) if panel.key in numbers else 0.05
        left, right = (room if end else 0.05 for end in (low, high))
        figure.update_xaxes(range=[low - left * (high - low), high + right * (high - low)], row=1, col=column)


def with_digits(value: float) -> str:
    """Return a share with the digits it was published with, but no zeros after the point: 41.1%, 79%."""
    return f"{100 * value:.3g}%".replace("-", MINUS)


def source(*tables: pd.DataFrame) -> str:
    """Return the write-ups that some tables are from."""
    return "; ".join(dict.fromkeys(str(name) for table in tables for name in table["source"]))


def percent(value: float) -> str:
    """Return a share or a difference of shares as the write-ups have them: 41.1%, with a minus sign where below 0."""
    return f"{value:.1%}".replace("-", MINUS)


def in_points(value: float) -> str:
    """Return how large a difference of shares is, without its sign: 21.1 points."""
    return f"{100 * abs(value):.1f} points"


def signed(value: float) -> str:
    """Return a difference as the write-ups have it, with its sign."""
    return f"{value:+.1%}".replace("-", MINUS)
