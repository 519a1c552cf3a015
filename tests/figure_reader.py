"""What a reader sees in a figure: texts, curves, bands and shades, without a word of how Plotly stores them."""

from __future__ import annotations

import plotly.graph_objects as go


def title(figure: go.Figure) -> str:
    """Return the title in one line."""
    return str(figure.layout.title.text).replace("<br>", " ").removeprefix("<b>").removesuffix("</b>")


def subtitle(figure: go.Figure) -> str:
    """Return the subtitle in one line."""
    return str(figure.layout.title.subtitle.text).replace("<br>", " ")


def panel_titles(figure: go.Figure) -> list[str]:
    """Return the titles of panels, and whatever else is written over a figure."""
    return [note.text.removeprefix("<b>").removesuffix("</b>") for note in figure.layout.annotations]


def legend(figure: go.Figure) -> list[str]:
    """Return the names in the legend."""
    return [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]


def axis(figure: go.Figure, letter: str, panel: int = 0) -> go.layout.XAxis | go.layout.YAxis:
    """Return the x or y axis of a panel, which are counted from 0."""
    return figure.layout[f"{letter}axis{panel + 1 if panel else ''}"]


def ticks(figure: go.Figure, letter: str = "x", panel: int = 0) -> dict[str, float]:
    """Return what stands at an axis, and where."""
    of = axis(figure, letter, panel)
    return dict(zip(of.ticktext, of.tickvals, strict=True))


def in_panel(figure: go.Figure, panel: int = 0) -> list[go.Scatter]:
    """Return the traces of a panel."""
    return [trace for trace in figure.data if (trace.xaxis or "x") == f"x{panel + 1 if panel else ''}"]


def points(figure: go.Figure, name: str, panel: int = 0) -> list[tuple[float, float]]:
    """Return the points of a series in a panel."""
    (trace,) = [trace for trace in in_panel(figure, panel) if trace.name == name]
    return list(zip(trace.x, trace.y, strict=True))


def bands(figure: go.Figure, panel: int = 0) -> list[list[tuple[float, float]]]:
    """Return the lower and upper end of each band of a panel at each of its places."""
    filled = [trace.y for trace in in_panel(figure, panel) if trace.fill]
    return [list(zip(y[: len(y) // 2 - 1 : -1], y[: len(y) // 2], strict=True)) for y in filled]


def shaded(figure: go.Figure) -> set[tuple[float, float]]:
    """Return from where to where panels are shaded."""
    return {(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"}
