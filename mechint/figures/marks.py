"""Marks on figures of rows of dots: what each row is to be held against, such as its chance level."""

from collections.abc import Sequence

import plotly.graph_objects as go

from mechint.base.signatures import checked
from mechint.figures.style import INK


@checked
def mark_rows(figure: go.Figure, values: Sequence[float], label: str, *, column: int = 1) -> go.Figure:
    """Draw a vertical line at a value in each row of a panel of `dots`, the first row at the top; returns the figure.

    `label` names the lines in the legend, once for each label.
    """
    labelled = any(trace.name == label for trace in figure.data)
    x: list[float | None] = []
    y: list[float | None] = []
    for at, value in enumerate(values):
        height = len(values) - 1 - at
        x += [value, value, None]
        y += [height - 0.5, height + 0.5, None]
    line = go.Scatter(
        x=x, y=y, mode="lines", name=label, legendgroup=label, showlegend=not labelled,
        line={"color": INK, "width": 2, "dash": "dash"}, hoverinfo="skip",
    )  # fmt: skip
    return figure.add_trace(line, row=1, col=column)
