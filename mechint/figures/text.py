"""Tables of text as a figure, so that they stand in the gallery beside the others."""

from collections.abc import Sequence

import plotly.graph_objects as go

from mechint.figures.style import GRID, INK, finish

_CHARACTER, _LINE, _PADDING = 7.2, 19, 12  # pixels


def text_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str,
    subtitle: str,
    widths: Sequence[float] | None = None,
) -> go.Figure:
    """Return a table of texts, each row of it as high as its longest cell needs; `widths` are relative."""
    shares = list(widths) if widths is not None else _shares(headings, rows)
    heights = [_lines(row, shares) * _LINE + _PADDING for row in rows]
    table = go.Table(
        columnwidth=shares,
        header={
            "values": [f"<b>{heading}</b>" for heading in headings], "align": "left", "fill_color": "#F2F2F2",
            "line_color": GRID, "font": {"size": 13, "color": INK}, "height": _LINE + _PADDING,
        },
        cells={
            "values": [list(column) for column in zip(*rows, strict=True)], "align": "left", "fill_color": "white",
            "line_color": GRID, "font": {"size": 12, "color": INK}, "height": max(heights, default=_LINE),
        },
    )  # fmt: skip
    height = _LINE + _PADDING + len(rows) * max(heights, default=_LINE)
    done = finish(go.Figure(table), title, subtitle, height=height + 40, bottom=20)
    done.update_layout(margin={"l": 20, "r": 20})
    return done


def _shares(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[float]:
    """Return relative widths after the longest text of each column, none of them overwhelming."""
    longest = [max(len(text) for text in column) for column in zip(headings, *rows, strict=True)]
    return [float(min(max(length, 6), 60)) for length in longest]


def _lines(row: Sequence[str], shares: Sequence[float]) -> int:
    room = [share / sum(shares) * 1080 / _CHARACTER for share in shares]
    return max(
        sum(max(1, -(-len(part) // max(1, int(width)))) for part in text.split("<br>"))
        for text, width in zip(row, room, strict=True)
    )
