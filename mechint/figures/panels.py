"""What figures of several panels share: what a panel is, where each stands, the lines and shades behind its curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.style import INK

Place = dict[str, int]
_BESIDE, _GAP = 60, 80  # pixels: for what stands around the panels, and between two lines of them
DOTTED = {"color": INK, "width": 1, "dash": "dot"}
SHADE = {"fillcolor": "#999999", "opacity": 0.16, "line_width": 0, "layer": "below"}


@checked
@dataclass(frozen=True)
class Panel:
    """One panel of curves or of dots: `key` finds its rows in a table, `label` names the axis of its values.

    The axis can be logarithmic, or that of log-odds for probabilities. Dotted lines are drawn at the `references`.

    `arrows` joins series of dots by lines, two by two, e.g. clean and injected, which then share a lane in every panel.
    A panel of curves is `height` pixels high, or somewhat less; a `wide` one has a line for itself.
    """

    key: str
    title: str
    label: str
    scale: Literal["linear", "log", "log-odds"] = "linear"
    references: Sequence[float] = (0.0,)
    arrows: Sequence[str] = ()
    height: int = 240
    wide: bool = False

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The series that lines join: where each begins and where it ends."""
        return list(zip(self.arrows[::2], self.arrows[1::2], strict=True))

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table that belong to this panel."""
        return table[table["panel"] == self.key]


def places(panels: Sequence[Panel], columns: int) -> list[Place]:
    """Return row and column of each panel, line by line."""
    cells: list[Place] = []
    row, column = 1, 0
    for panel in panels:
        column += 1
        if column > columns or (panel.wide and column > 1):
            row, column = row + 1, 1
        cells.append({"row": row, "col": column})
        if panel.wide:
            column = columns
    return cells


def lowest(panels: Sequence[Panel], where: Sequence[Place]) -> list[Place]:
    """Return the places below which there is no other panel."""
    lowest_rows: dict[int, int] = {}
    for panel, place in zip(panels, where, strict=True):
        columns = {other["col"] for other in where} if panel.wide else {place["col"]}
        lowest_rows |= dict.fromkeys(columns, place["row"])
    return [place for place in where if place["row"] == lowest_rows[place["col"]]]


def empty_panels(panels: Sequence[Panel], where: Sequence[Place], columns: int) -> tuple[go.Figure, int]:
    """Return a figure with its panels, each line of which has one y axis, and the height of all in pixels.

    The y axis is named at the first panel of a line, and again at those that show other values.
    """
    n_lines = where[-1]["row"]
    specs: list[list[dict[str, int] | None]] = [[None] * columns for _ in range(n_lines)]
    heights = [0] * n_lines
    firsts = {place["row"]: panel.label for panel, place in zip(panels, where, strict=True) if place["col"] == 1}
    for panel, place in zip(panels, where, strict=True):
        line = place["row"] - 1
        specs[line][place["col"] - 1] = {"colspan": columns} if panel.wide else {}
        heights[line] = max(heights[line], panel.height)
    others = [panel.label != firsts[place["row"]] for panel, place in zip(panels, where, strict=True)]
    height = sum(heights) + _BESIDE
    figure = make_subplots(
        rows=n_lines,
        cols=columns,
        specs=specs,
        shared_yaxes=True,
        row_heights=heights,
        horizontal_spacing=0.09 if any(others) else 0.05,
        vertical_spacing=_GAP / height,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )
    for panel, place, other in zip(panels, where, others, strict=True):
        if other or place["col"] == 1:
            figure.update_yaxes(title_text=panel.label, showticklabels=True, **place)
    return figure, height


def shade_layers(figure: go.Figure, layers: Iterable[int]) -> None:
    """Shade layers in all panels."""
    for layer in sorted(set(layers)):
        figure.add_vrect(x0=layer - 0.5, x1=layer + 0.5, **SHADE)


def guide(x: Iterable[object], y: Iterable[object], width: float, dash: str = "solid", color: str = INK) -> go.Scatter:
    """Return a line that is no data: a frame, a diagonal, where values are zero."""
    line = {"color": color, "width": width, "dash": dash}
    return go.Scatter(x=list(x), y=list(y), mode="lines", line=line, hoverinfo="skip", showlegend=False)


def whiskers(
    up: Iterable[object], down: Iterable[object], color: str, thickness: float, width: float
) -> dict[str, object]:
    """Return error bars of some lengths."""
    lengths = {"type": "data", "symmetric": False, "array": list(up), "arrayminus": list(down)}
    return {**lengths, "color": color, "thickness": thickness, "width": width}
