"""From coarse to fine: windows of layers and positions that cover a cache once, and the cells of those that matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from mechint.attribution.kv.slices import DIRECTIONS, SIDES, CacheSlice, CacheSlices, Side, patch
from mechint.attribution.reading import Reading
from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.interventions.listing import check_at_least

BOTH, EVERY = "both", -1  # in a table: keys and values, all key-value heads


@checked
@dataclass(frozen=True)
class Window:
    """Layers `layer_start:layer_stop` of a cache at positions `pos_start:pos_stop`."""

    layer_start: int
    layer_stop: int
    pos_start: int
    pos_stop: int

    @property
    def size(self) -> int:
        """Number of its cells (one layer at one position)."""
        return (self.layer_stop - self.layer_start) * (self.pos_stop - self.pos_start)

    def cache_slice(self, side: str = BOTH, head: int = EVERY) -> CacheSlice:
        """Return the slice of a cache that the window covers, or its keys or values alone, or a single head of it."""
        sides: tuple[Side, ...] = tuple(name for name in SIDES if side in (name, BOTH))
        heads = None if head == EVERY else (head,)
        return CacheSlice(range(self.layer_start, self.layer_stop), range(self.pos_start, self.pos_stop), sides, heads)


@checked
def windows(reading: Reading, layers: int, positions: int | None = None) -> list[Window]:
    """Return windows of at most `layers` layers and `positions` positions that cover the filled cache once.

    No window has positions of two messages: each is divided into pieces of nearly equal length. With None all positions
    are in one window. Raises UsageError for numbers below 1, and where nothing is filled.
    """
    check_at_least("layers", layers)
    if positions is not None:
        check_at_least("positions", positions)
    if not (length := reading.rendered.prefix_length):
        raise UsageError("no filled cache", "a conversation with marked turns", "mark turns with add_injection")
    spans = [(s.start, min(s.stop, length)) for s in reading.rendered.segments if s.start < length]
    across = [(0, length)] if positions is None else [piece for span in spans for piece in _pieces(*span, positions)]
    return [Window(*deep, *wide) for deep in _pieces(0, reading.model.n_layers, layers) for wide in across]


@checked
def cells(window: Window) -> list[Window]:
    """Return the single cells of a window, one layer at one position each."""
    return [
        Window(layer, layer + 1, position, position + 1)
        for layer in range(window.layer_start, window.layer_stop)
        for position in range(window.pos_start, window.pos_stop)
    ]


@checked
def effects(
    reading: Reading,
    clean: int,
    injected: int,
    chosen: Sequence[Window],
    level: str,
    *,
    by_side: bool = False,
    by_head: bool = False,
) -> pd.DataFrame:
    """Return the effect of each window, in both directions, with the columns of `attribute`.

    With `by_side` also its keys and its values alone, with `by_head` each head alone; with both, each head's keys and
    values.
    """
    splits = list(_splits(reading, by_side=by_side, by_head=by_head))
    rows = [(window, *split) for window in chosen for split in splits]
    carried = _carried(reading, clean, injected, [window.cache_slice(side, head) for window, side, head in rows])
    places = pd.DataFrame([vars(window) for window, _, _ in rows])
    places = places.assign(side=[side for _, side, _ in rows], head=[head for _, _, head in rows])
    steered = reading.rendered.marked().numpy()
    marked = [steered[window.pos_start : window.pos_stop].mean() for window, _, _ in rows]
    table = pd.concat([places.assign(**frame.to_dict("series"), marked=marked) for frame in carried], ignore_index=True)
    return _named(reading, injected, table, level)


@checked
def curve(
    reading: Reading, clean: int, injected: int, ordered: Sequence[Window], counts: Sequence[int], level: str = "curve"
) -> pd.DataFrame:
    """Return the joint effect of the first `counts[k]` windows of an order, in both directions.

    Columns: those of `attribute` that tell no place, `n_windows` (how many are replaced), `n_cells` (how many layers x
    positions these have).
    """
    carried = _carried(
        reading, clean, injected, [[window.cache_slice() for window in ordered[:count]] for count in counts]
    )
    sizes = [sum(window.size for window in ordered[:count]) for count in counts]
    table = pd.concat([frame.assign(n_windows=list(counts), n_cells=sizes) for frame in carried], ignore_index=True)
    return _named(reading, injected, table, level)


@checked
def strongest(table: pd.DataFrame, least: float, most: int) -> list[Window]:
    """Return the windows whose effect, inserted or removed, is at least `least` of the shift: the `most` largest ones.

    `table` is of `effects`, of one injection or several: the means of |effect| and of |shift| count.
    """
    whole = table[(table["side"] == BOTH) & (table["head"] == EVERY)]
    keys = ["layer_start", "layer_stop", "pos_start", "pos_stop"]
    sizes = whole.assign(effect=whole["effect"].abs()).groupby([*keys, "direction"], sort=False)["effect"].mean()
    larger = sizes.groupby(level=keys, sort=False).max().sort_values(ascending=False, kind="stable")
    enough = larger[(larger > 0) & (larger >= least * whole["shift"].abs().mean())]
    return [Window(*(int(number) for number in key)) for key in enough.index[:most]]


@checked
def attribute(
    reading: Reading,
    clean: int,
    injected: int,
    *,
    window: tuple[int, int | None] = (1, 8),
    finer: float | None = 0.1,
    most: int = 8,
    by_side: bool = False,
    by_head: bool = False,
) -> pd.DataFrame:
    """Return how much of the shift slices of a cache carry, between rows `clean` and `injected` of `reading`.

    First windows of so many layers and positions (see `windows`), then, if `finer` is given, the single cells of those
    that carry at least that share of the shift, but of no more than `most`.

    Columns: `conversation`, `intervention`, `level` (cache: all of it at once, window, cell), `layer_start`,
    `layer_stop`, `pos_start`, `pos_stop` (ends not included), `side` (keys, values, both), `head` (-1: all),
    `direction` (insert, remove), `logit_diff` (with the slice replaced), `effect` (logits: what inserting it adds to
    the clean logit_diff, what removing it takes from the injected one; the whole cache has the whole shift in both),
    `shift` (logit_diff injected - clean), `fraction` (effect / shift), `marked` (share of its positions that were
    steered). `attrs["logit_diff_shift"]` is the shift. Effects need not add up: slices can stand in for each other, or
    act only together.
    """
    every = windows(reading, *window)
    split = {"by_side": by_side, "by_head": by_head}
    tables = [
        effects(reading, clean, injected, windows(reading, reading.model.n_layers), "cache", **split),
        effects(reading, clean, injected, every, "window", **split),
    ]
    chosen = [] if finer is None else strongest(tables[1], finer, most)
    if chosen:
        small = [cell for coarse in chosen for cell in cells(coarse)]
        tables.append(effects(reading, clean, injected, small, "cell", **split))
    table = pd.concat(tables, ignore_index=True)
    table.attrs["logit_diff_shift"] = float(table["shift"].iloc[0])
    return table


def _carried(reading: Reading, clean: int, injected: int, slices: Sequence[CacheSlices]) -> list[pd.DataFrame]:
    """Return the effect of each slice, in their order, as one table for each direction."""
    # Read one by one, as `patch` reads what it begins from: what changes nothing has an effect of exactly zero.
    before, after = reading.logit_diffs([clean]).item(), reading.logit_diffs([injected]).item()
    shift, frames = after - before, []
    for direction in DIRECTIONS:
        read = patch(reading, clean, injected, slices, direction=direction).double().cpu().numpy()
        effect = read - before if direction == "insert" else after - read
        share = effect / shift if shift else np.full_like(effect, np.nan)
        columns = {"logit_diff": read, "effect": effect, "shift": shift, "fraction": share}
        frames.append(pd.DataFrame({"direction": direction, **columns}))
    return frames


def _named(reading: Reading, injected: int, table: pd.DataFrame, level: str) -> pd.DataFrame:
    subject = {"conversation": reading.rendered.label, "intervention": reading.names[injected], "level": level}
    return table.assign(**subject)[[*subject, *table.columns]]


def _pieces(start: int, stop: int, width: int) -> list[tuple[int, int]]:
    """Divide `start:stop` into pieces of at most `width`, as equal as can be."""
    count = -(-(stop - start) // width)
    edges = [start + (stop - start) * number // count for number in range(count + 1)] if count else []
    return list(pairwise(edges))


def _splits(reading: Reading, *, by_side: bool, by_head: bool) -> Iterator[tuple[str, int]]:
    """Yield the sides and heads that are replaced alone, all of them together first."""
    sides = [BOTH, *SIDES] if by_side else [BOTH]
    n_heads = reading.cache.keys[0].shape[1]
    heads = [EVERY, *range(n_heads)] if by_head else [EVERY]
    yield from ((side, head) for side in sides for head in heads)
