"""From the table of a sweep to what is drawn at each place: shifts, their difference, and whether text is coherent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from analyses.kit import plain_text
from mechint import stats
from mechint.stats.bands import BANDS, Marks
from mechint.stats.intervals import Interval, mean_interval

_SHIFTS = ("detection", "no", "yes", "random", "net")
_ANSWER_NO = ("no", "confusing-no")
Cube = Float[np.ndarray, "rows columns vectors"]


@dataclass(frozen=True)
class Places:
    """Measures at every place of a sweep, rows by columns (NaN where there is no place), with intervals over vectors.

    `detection`, `no`, `yes` and `random` are shifts of logit_diff: of introspection questions and of control questions
    answered no and yes under concepts, and of introspection questions under random vectors. `net` is detection less
    no, within concepts. `p_yes` is that of introspection questions under concepts; `text` and `random_text` are
    perplexities of text in units of the clean one, of the kind of text that suffers more. What the table lacks is left
    out. `marked` has the shifts again, with what marks a place among all: simultaneous bands, unless asked otherwise.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    measures: dict[str, Interval]
    marked: dict[str, Interval]

    @classmethod
    def of(cls, table: pd.DataFrame, rows: Sequence[str], columns: Sequence[str], marks: Marks) -> Places:
        """Return the measures of a table's steered rows, which name their place in `row` and `column`."""
        concept = table[table["series"] == "injected"]
        random = table[table["series"] == "random"]
        introspection = concept["kind"] == "introspection"
        parts = {
            "detection": (concept[introspection], "logit_diff_shift"),
            "no": (concept[concept["group"].isin(_ANSWER_NO)], "logit_diff_shift"),
            "yes": (concept[concept["group"] == "yes"], "logit_diff_shift"),
            "random": (random[random["kind"] == "introspection"], "logit_diff_shift"),
            "p_yes": (concept[introspection], "p_yes"),
            "text": (_texts(concept), "rise"),
            "random_text": (_texts(random), "rise"),
        }
        cubes = {name: _cube(rows_of, value, rows, columns) for name, (rows_of, value) in parts.items() if len(rows_of)}
        if "no" in cubes:
            cubes["net"] = cubes["detection"] - cubes["no"]
        measures = {name: mean_interval(cube) for name, cube in cubes.items()}
        for name in {"text", "random_text"} & set(measures):
            measures[name] = _ratio(measures[name])
        marked = {name: marks.mean(cubes[name]) for name in _SHIFTS if name in cubes}
        return cls(tuple(rows), tuple(columns), measures, marked)

    @property
    def lost(self) -> Bool[np.ndarray, "rows columns"]:
        """Places where text is no longer coherent under concepts."""
        return np.asarray(self.measures["text"].mean >= plain_text.COHERENT)

    def best(self) -> tuple[int, int] | None:
        """Return the place, among those with coherent text, where detection exceeds control most.

        None where it does so nowhere: where no such difference is above zero with its band (with its mean, if there are
        too few concepts for bands), or no control question was asked.
        """
        net = self.marked.get("net")
        if net is None:
            return None
        above = (net.mean if np.isnan(net.low).all() else net.low) > 0
        candidates = np.where(above & ~self.lost, net.mean, -np.inf)
        if not np.isfinite(candidates).any():
            return None
        row, column = np.unravel_index(int(candidates.argmax()), candidates.shape)
        return int(row), int(column)


def grid(table: pd.DataFrame, marks: Marks = BANDS) -> Places:
    """Return the measures of windows (rows) by strengths (columns)."""
    rows = _steered(table, "grid")
    placed = rows.assign(row=rows["injected_layers"], column=rows["strength"])
    by_strength = sorted(dict.fromkeys(placed["column"]), key=float)
    return Places.of(placed, list(dict.fromkeys(placed["row"])), by_strength, marks)


def ranges(table: pd.DataFrame, marks: Marks = BANDS) -> Places:
    """Return the measures of ranges by their first (rows) and last layer (columns)."""
    rows = _steered(table, "range")
    ends = [_ends(text) for text in rows["injected_layers"]]
    placed = rows.assign(row=[str(first) for first, _ in ends], column=[str(last) for _, last in ends])
    by_first = [str(layer) for layer in sorted({first for first, _ in ends})]
    by_last = [str(layer) for layer in sorted({last for _, last in ends})]
    return Places.of(placed, by_first, by_last, marks)


def _steered(table: pd.DataFrame, sweep: str) -> pd.DataFrame:
    """Return the rows of a sweep, those of plain text with `rise`."""
    rises = plain_text.rises(table)["rise"]
    rows = table[table["sweep"] == sweep]
    return rows.assign(rise=rises.reindex(rows.index))


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    return plain_text.worst(table[table["kind"] == plain_text.KIND], ["row", "column"])


def _ends(layers: str) -> tuple[int, int]:
    first, colon, stop = layers.partition(":")
    return int(first), int(stop) - 1 if colon else int(first)


def _cube(table: pd.DataFrame, value: str, rows: Sequence[str], columns: Sequence[str]) -> Cube:
    """Return values by place and vector, averaged over conversations or texts."""
    wide = stats.unit_means(table, ["row", "column"], value, "unit")
    wide = wide.reindex(pd.MultiIndex.from_product([rows, columns]))
    return np.asarray(wide, dtype=np.float64).reshape(len(rows), len(columns), -1)


def _ratio(rise: Interval) -> Interval:
    """Return a rise of the loss as perplexity in units of the clean one."""
    return Interval(plain_text.ratio(rise.mean), plain_text.ratio(rise.low), plain_text.ratio(rise.high), rise.n)
