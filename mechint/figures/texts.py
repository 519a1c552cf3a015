"""Tables of longer texts: every cell wraps, a row is as high as its longest cell needs, words can stand out."""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from mechint.base.signatures import checked
from mechint.figures.style import GRID, INK, WIDTH, finish

_MARGIN, _PADDING, _LINE = 20, 9, 17  # pixels
_LONGEST = 60  # characters that a column is given room for
_TITLES = 30  # pixels that other figures have for the titles of panels
# Widths of letters at 12 pixels, by kind; what is not named has that of "".
_WIDTHS = {"iljtfr.,:;'|!()[] ": 3.9, "mwMW@%": 10.5, "ABCDEFGHIJKLNOPQRSTUVXYZ": 8.6, "": 6.8}


@checked
@dataclass(frozen=True)
class TextCell:
    """A text; what a regular expression finds in it (in any case) is bold."""

    text: str
    bold: str = ""


@checked
def text_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str | TextCell]],
    *,
    title: str,
    subtitle: str,
    widths: Sequence[float] | None = None,
    rules: Sequence[int] = (),
) -> go.Figure:
    """Return a table of texts; a thicker line stands above each row whose number is in `rules`.

    `widths` of columns are relative; where None, columns are as wide as their longest text, within reason.
    """
    table = [[TextCell(heading, ".+") for heading in headings]]
    table += [[TextCell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    if widths is None:
        longest = [max(len(cell.text) for cell in column) for column in zip(*table, strict=True)]
        widths = [float(min(max(length, 8), _LONGEST)) for length in longest]
    shares = [width / sum(widths) for width in widths]
    starts = [sum(shares[:at], 0.0) for at in range(len(shares))]
    cells = [[_lines(cell, share) for cell, share in zip(row, shares, strict=True)] for row in table]
    heights = [max(map(len, row)) * _LINE + 2 * _PADDING for row in cells]
    tops = [sum(heights[:at]) for at in range(len(heights) + 1)]
    notes = [
        _note(lines, x, top)
        for row, top in zip(cells, tops, strict=False)
        for lines, x in zip(row, starts, strict=True)
    ]
    thick = {1, *(rule + 1 for rule in rules)}
    lines = [_rule(y, 1.5 if at in thick else 1.0, INK if at in thick else GRID) for at, y in enumerate(tops)]
    figure = go.Figure().update_layout(annotations=notes, shapes=lines)
    done = finish(figure, title, subtitle, height=tops[-1], bottom=_MARGIN)
    done.update_xaxes(range=[0, 1], visible=False)
    done.update_yaxes(range=[tops[-1], 0], visible=False)
    # No panel titles stand above a table.
    top = int(done.layout.margin.t) - _TITLES
    height = int(done.layout.height) - _TITLES
    return done.update_layout(margin={"l": _MARGIN, "r": _MARGIN, "t": top}, height=height)


def _lines(cell: TextCell, share: float) -> list[str]:
    """Return a cell's text in lines that fit, marked up."""
    room = share * (WIDTH - 2 * _MARGIN) - 2 * _PADDING
    lines = [line for text in cell.text.split("\n") for line in _wrapped(text, room)]
    return [_marked(line, cell.bold) for line in lines]


def _wrapped(text: str, room: float) -> list[str]:
    """Return a text in lines of `room` pixels, broken at spaces, or anywhere in a word that is longer."""
    lines = [""]
    for piece in re.findall(r"\s*\S+", text):
        word = piece if lines[-1] else piece.lstrip()
        if lines[-1] and text_width(lines[-1] + word) > room:
            lines.append("")
            word = piece.lstrip()
        for letter in word:
            if lines[-1] and text_width(lines[-1] + letter) > room:
                lines.append("")
            lines[-1] += letter
    return lines


def text_width(text: str) -> float:
    """Return about how many pixels a text is wide at 12 pixels."""
    return sum(_of_letter(letter) for letter in text)


def _of_letter(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 12.5
    return next(width for kind, width in _WIDTHS.items() if letter in kind or not kind)


def _marked(text: str, bold: str) -> str:
    """Escape a text and mark what is to be bold."""
    if not bold:
        return html.escape(text, quote=False)
    fragments = re.split(f"({bold})", text, flags=re.IGNORECASE)
    pieces = [html.escape(piece, quote=False) for piece in fragments]
    return "".join(f"<b>{piece}</b>" if at % 2 else piece for at, piece in enumerate(pieces) if piece)


def _note(lines: Sequence[str], x: float, top: int) -> dict[str, object]:
    place = {"x": x, "y": top + _PADDING - 3, "xref": "x", "yref": "y", "xshift": _PADDING}
    sides = {"xanchor": "left", "yanchor": "top", "align": "left"}
    return {**place, **sides, "text": "<br>".join(lines), "showarrow": False, "font": {"size": 12, "color": INK}}


def _rule(y: int, width: float, color: str) -> dict[str, object]:
    place = {"x0": 0, "x1": 1, "y0": y, "y1": y, "xref": "x", "yref": "y"}
    return {"type": "line", **place, "line": {"color": color, "width": width}}
