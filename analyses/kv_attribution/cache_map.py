"""The cache beside its text: what every window carries, and every cell of those that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint import figures as draw
from mechint import stats
from mechint.figures import Lattice, Line, TilePanel
from mechint.figures.style import METRICS, MINUS
from mechint.stats.bands import Marks
from mechint.stats.intervals import Interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from mechint.base.files import JSON

PLACE = ["layer_start", "layer_stop", "pos_start", "pos_stop"]
_KINDS = {"concept": "Concepts", "random": "Random"}
_WORDS = {"insert": "inserted", "remove": "removed"}
LEAST = 0.25  # logits: less than that moves no probability by more than 0.07
_LONGEST = 38  # characters of a line
Edges = tuple[int, int]
Side = Literal["left", "right"]
Place = tuple[int, int, int, int]


@dataclass(frozen=True)
class Text:
    """The cached tokens of one conversation, and its messages: role, first position, end, whether it is steered."""

    conversation: str
    tokens: Sequence[str]
    messages: Sequence[tuple[str, int, int, bool]]

    @classmethod
    def of(cls, record: JSON) -> Text:
        """Return the text that a record tells of."""
        fields = record if isinstance(record, dict) else {}
        tokens, messages = fields["tokens"], fields["messages"]
        assert isinstance(tokens, list)
        assert isinstance(messages, list)
        spans = [
            (str(message["role"]), int(str(message["start"])), int(str(message["stop"])), bool(message["marked"]))
            for message in messages
            if isinstance(message, dict)
        ]
        return cls(str(fields["conversation"]), [str(token) for token in tokens], spans)

    def piece(self, start: int, stop: int) -> str:
        """Return the text at some positions on one line, cut to what there is room for."""
        whole = " ".join("".join(self.tokens[start:stop]).split()) or "(line break)"
        return whole if len(whole) <= _LONGEST else whole[: _LONGEST - 1].rstrip() + "…"


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
        for role, first, last, marked in text.messages:
            lines.append(Line(f"{role}, {'steered' if marked else 'not steered'}", heading=True))
            for start, stop in windows:
                if first <= start < last:
                    small = (start, stop) in taken_apart
                    pieces = [(at, at + 1) for at in range(start, stop)] if small else [(start, stop)]
                    for piece in pieces:
                        edges[piece[0]] = len(lines)
                        lines.append(Line(text.piece(*piece), detail=small))
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
    panels = [
        TilePanel(f"{kind} {_WORDS[direction]}", _lattices(rows, layout, text, apart, marks))
        for name, kind in _KINDS.items()
        for direction in _WORDS
        if len(rows := rows_of_text[(rows_of_text["vector_kind"] == name) & (rows_of_text["direction"] == direction)])
    ]
    n_layers = int(rows_of_text["layer_stop"].max())
    return draw.tiles(
        panels, layout.lines, [str(layer) for layer in range(n_layers)], column_label="layer of the cache",
        label=f"part of the shift of<br>{METRICS['logit_diff']}", title=title, least=LEAST,
        subtitle=f"{caption} Each tile is one part of the cache that was replaced; windows that carry most are taken "
        "apart into single tokens (framed, with what the whole window carries). Inserted: into the clean cache; "
        "removed: from the injected one. Random: vectors of equal norm. Means over vectors; + and "
        f"{MINUS}: tiles whose {marks.caption}.",
    )  # fmt: skip


def _taken_apart(rows: pd.DataFrame) -> list[Place]:
    """Return the windows of which single cells are in the table."""
    small = rows[rows["level"] == "cell"]
    cells = set(zip(small["layer_start"], small["pos_start"], strict=True))
    windows = rows.loc[rows["level"] == "window", PLACE].drop_duplicates().to_numpy()
    places = [(int(first), int(last), int(start), int(stop)) for first, last, start, stop in windows]
    return [place for place in places if (place[0], place[2]) in cells]


def _lattices(rows: pd.DataFrame, layout: Layout, text: Text, apart: Sequence[Place], marks: Marks) -> list[Lattice]:
    """Return the windows of each message, and the cells of those that were taken apart in their place."""
    windows, cells = rows[rows["level"] == "window"], rows[rows["level"] == "cell"]
    whole = windows.groupby(PLACE)["effect"].mean()
    # A missing value leaves a cell empty.
    visible = windows.assign(effect=windows["effect"].where(~pd.MultiIndex.from_frame(windows[PLACE]).isin(apart)))
    parts = [visible[visible["pos_start"].between(first, last - 1)] for _, first, last, _ in text.messages]
    frames: list[tuple[bool, str, Side]] = [(False, "", "right") for _ in parts]
    for place in apart:
        layers, positions = (
            cells[name].between(place[at], place[at + 1] - 1) for at, name in ((0, PLACE[0]), (2, PLACE[2]))
        )
        parts.append(cells[layers & positions])
        beside = (
            any(frame[0] == place[1] and frame[2] == place[2] for frame in apart)
            or place[1] == windows["layer_stop"].max()
        )
        side: Side = "left" if beside else "right"
        frames.append((True, _number(float(whole[place])), side))
    cubes = [_cube(rows) for rows in parts]
    together = marks.mean(np.concatenate([cube.reshape(-1, cube.shape[-1]) for cube in cubes]))
    ends = np.cumsum([cube[..., 0].size for cube in cubes])[:-1]
    bounds = [np.split(values, ends) for values in (together.mean, together.low, together.high)]
    return [
        replace(
            Lattice(*_edges(rows, layout), _shaped(interval, cube.shape[:-1], together.n)),
            framed=framed,
            label=label,
            label_side=side,
        )
        for rows, cube, (framed, label, side), interval in zip(
            parts, cubes, frames, zip(*bounds, strict=True), strict=True
        )
    ]


def _shaped(parts: Sequence[np.ndarray], shape: tuple[int, ...], n: int) -> Interval:
    mean, low, high = (bound.reshape(shape) for bound in parts)
    return Interval(mean, low, high, n)


def _cube(rows: pd.DataFrame) -> Float[np.ndarray, "positions layers vectors"]:
    wide = stats.unit_means(rows, ["pos_start", "layer_start"], "effect", "vector").sort_index()
    starts, layers = (sorted(set(rows[name])) for name in ("pos_start", "layer_start"))
    return np.asarray(wide, dtype=np.float64).reshape(len(starts), len(layers), -1)


def _edges(rows: pd.DataFrame, layout: Layout) -> tuple[list[int], Sequence[int]]:
    """Return where the tiles begin and end: layers, and lines of the text."""
    starts, layers = (sorted(set(rows[name])) for name in ("pos_start", "layer_start"))
    return [*layers, int(rows["layer_stop"].max())], layout.rows(starts, int(rows["pos_stop"].max()))


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS) if abs(value) >= 0.005 else "0"
