"""The cache beside its text: what every window carries, and every cell of those that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.kv_attribution.facts import Text
from mechint import figures as draw
from mechint import stats
from mechint.figures import Lattice, Line, TilePanel
from mechint.figures.style import METRICS, MINUS
from mechint.figures.words import signed
from mechint.stats.bands import Marks
from mechint.stats.intervals import Interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLACE = ["layer_start", "layer_stop", "pos_start", "pos_stop"]
_KINDS = {"injected": "Concepts", "random": "Random"}
_WORDS = {"insert": "inserted", "remove": "removed"}
LEAST = 0.25  # logits: less than that moves no probability by more than 0.07
Edges = tuple[int, int]
Side = Literal["left", "right"]
Place = tuple[int, int, int, int]


@dataclass(frozen=True)
class Layout:
    """Where everything stands: the lines of the text, and the edge of each position, in lines from the top."""

    lines: Sequence[Line]
    edges: Mapping[int, int]

    @classmethod
    def of(cls, text: Text, windows: Sequence[Edges], taken_apart: Sequence[Edges]) -> Layout:
        """Give each window a line, or one to each of its positions where it was taken apart, below headings."""
        lines: list[Line] = []
        edges: dict[int, int] = {}
        for message in text.messages:
            lines.append(Line(f"{message.role}, {'steered' if message.marked else 'not steered'}", heading=True))
            for start, stop in windows:
                if message.start <= start < message.stop:
                    small = (start, stop) in taken_apart
                    pieces = [(at, at + 1) for at in range(start, stop)] if small else [(start, stop)]
                    for first, last in pieces:
                        edges[first] = len(lines)
                        lines.append(Line(text.piece(first, last), detail=small))
        return cls(lines, edges)

    def rows(self, starts: Sequence[int], stop: int) -> list[int]:
        """Return the edges of neighbouring pieces that begin at `starts`, the last of which ends before `stop`."""
        last = max(edge for at, edge in self.edges.items() if at < stop)
        return [*(self.edges[start] for start in starts), last + 1]


def cache_map(table: pd.DataFrame, text: Text, title: str, caption: str, marks: Marks) -> go.Figure:
    """Return layers by positions, inserted and removed, for concepts and random vectors, on one colour scale."""
    rows_of_text = table[(table["conversation"] == text.conversation) & table["level"].isin(["window", "cell"])]
    windows = rows_of_text[rows_of_text["level"] == "window"]
    apart = _taken_apart(rows_of_text)
    spans = sorted(set(zip(windows["pos_start"], windows["pos_stop"], strict=True)))
    layout = Layout.of(text, spans, [(start, stop) for _, _, start, stop in apart])
    panels = []
    for name, kind in _KINDS.items():
        for direction, word in _WORDS.items():
            rows = rows_of_text[(rows_of_text["series"] == name) & (rows_of_text["direction"] == direction)]
            if len(rows):
                panels.append(TilePanel(f"{kind} {word}", _lattices(rows, layout, text, apart, marks)))
    n_layers = int(rows_of_text["layer_stop"].max())
    return draw.tiles(
        panels,
        layout.lines,
        [str(layer) for layer in range(n_layers)],
        column_label="layer of the cache",
        label=f"part of the shift of<br>{METRICS['logit_diff']}",
        title=title,
        least=LEAST,
        subtitle=f"{caption} Each tile is one part of the cache that was replaced; windows that carry most are taken "
        "apart into single tokens (framed, with what the whole window carries). Inserted: into the clean cache; "
        "removed: from the injected one. Random: vectors of equal norm. Means over vectors; + and "
        f"{MINUS}: tiles whose {marks.caption}.",
    )


def _taken_apart(rows: pd.DataFrame) -> list[Place]:
    """Return the windows of which single cells are in the table."""
    small = rows[rows["level"] == "cell"]
    cells = set(zip(small["layer_start"], small["pos_start"], strict=True))
    windows = rows.loc[rows["level"] == "window", PLACE].drop_duplicates().to_numpy()
    places = [(int(first), int(last), int(start), int(stop)) for first, last, start, stop in windows]
    return [place for place in places if (place[0], place[2]) in cells]


@dataclass(frozen=True)
class _Framed:
    """Rows of one lattice, and how it is framed: with a label at one of its sides, or not."""

    rows: pd.DataFrame
    framed: bool = False
    label: str = ""
    side: Side = "right"


def _lattices(rows: pd.DataFrame, layout: Layout, text: Text, apart: Sequence[Place], marks: Marks) -> list[Lattice]:
    """Return the windows of each message, and the cells of those that were taken apart in their place."""
    windows, cells = rows[rows["level"] == "window"], rows[rows["level"] == "cell"]
    parts = [*_of_messages(windows, text, apart), *_taken(windows, cells, apart)]
    cubes = [_cube(framed.rows) for framed in parts]
    # Bands hold for all tiles at once.
    together = marks.mean(np.concatenate([cube.reshape(-1, cube.shape[-1]) for cube in cubes]))
    lattices, start = [], 0
    for framed, cube in zip(parts, cubes, strict=True):
        tiles = slice(start, start + cube[..., 0].size)
        start = tiles.stop
        layers, lines = _edges(framed.rows, layout)
        interval = _shaped(together, tiles, cube.shape[:-1])
        lattices.append(Lattice(layers, lines, interval, framed.framed, framed.label, framed.side))
    return lattices


def _shaped(interval: Interval, tiles: slice, shape: tuple[int, ...]) -> Interval:
    """Return some tiles of an interval of all, as a lattice."""
    mean, low, high = interval.mean[tiles], interval.low[tiles], interval.high[tiles]
    return Interval(mean.reshape(shape), low.reshape(shape), high.reshape(shape), interval.n)


def _of_messages(windows: pd.DataFrame, text: Text, apart: Sequence[Place]) -> list[_Framed]:
    """Return the windows of each message; where one was taken apart, a missing value leaves its tile empty."""
    hidden = pd.MultiIndex.from_frame(windows[PLACE]).isin(apart)
    visible = windows.assign(effect=windows["effect"].where(~hidden))
    return [
        _Framed(visible[visible["pos_start"].between(message.start, message.stop - 1)]) for message in text.messages
    ]


def _taken(windows: pd.DataFrame, cells: pd.DataFrame, apart: Sequence[Place]) -> list[_Framed]:
    """Return the cells of windows that were taken apart, labelled with what the whole window carries."""
    whole = windows.groupby(PLACE)["effect"].mean()
    corners = {(layer_start, pos_start) for layer_start, _, pos_start, _ in apart}
    parts = []
    for place in apart:
        layer_start, layer_stop, pos_start, pos_stop = place
        inside = cells["layer_start"].between(layer_start, layer_stop - 1)
        inside &= cells["pos_start"].between(pos_start, pos_stop - 1)
        no_room = (layer_stop, pos_start) in corners or layer_stop == windows["layer_stop"].max()
        parts.append(_Framed(cells[inside], True, _number(float(whole[place])), "left" if no_room else "right"))
    return parts


def _cube(rows: pd.DataFrame) -> Float[np.ndarray, "positions layers vectors"]:
    wide = stats.unit_means(rows, ["pos_start", "layer_start"], "effect", "unit").sort_index()
    shape = (rows["pos_start"].nunique(), rows["layer_start"].nunique(), -1)
    return np.asarray(wide, dtype=np.float64).reshape(shape)


def _edges(rows: pd.DataFrame, layout: Layout) -> tuple[list[int], Sequence[int]]:
    """Return where the tiles begin and end: layers, and lines of the text."""
    layers, starts = sorted(set(rows["layer_start"])), sorted(set(rows["pos_start"]))
    return [*layers, int(rows["layer_stop"].max())], layout.rows(starts, int(rows["pos_stop"].max()))


def _number(value: float) -> str:
    return signed(value) if abs(value) >= 0.005 else "0"
