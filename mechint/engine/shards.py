"""Splitting a table's cells among several machines, the same way on each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechint.base.errors import UsageError
from mechint.base.signatures import checked

if TYPE_CHECKING:  # command lines check a shard before anything heavy is imported
    from mechint.chat.render import Rendered
    from mechint.engine.plan import Cell


@checked
@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise _bad(f"{self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that `i/n` names. Raises UsageError for anything else."""
        if (match := re.fullmatch(r"(\d+)/(\d+)", text.strip())) is None:
            raise _bad(text)
        return cls(int(match[1]), int(match[2]))

    def of(self, cells: Sequence[Cell], rendered: Sequence[Rendered]) -> list[Cell]:
        """Return this shard's cells.

        Cells with the same first turns and intervention stay together, as they share their prefill; those of one
        prefix lie next to each other, so that few shards fill the same clean cache.
        """
        prefix = {c: rendered[c].tokens[: rendered[c].prefix_length] for c, _ in cells}
        ordered = sorted(cells, key=lambda cell: (prefix[cell[0]], cell[1], cell[0]))
        units: dict[tuple[tuple[int, ...], int], list[Cell]] = {}
        for cell in ordered:
            units.setdefault((prefix[cell[0]], cell[1]), []).append(cell)
        groups = list(units.values())
        start = len(groups) * self.index // self.count
        stop = len(groups) * (self.index + 1) // self.count
        chosen = {cell for group in groups[start:stop] for cell in group}
        return [cell for cell in cells if cell in chosen]


def _bad(text: str) -> UsageError:
    return UsageError(f"shard {text!r}", "i/n with 0 <= i < n, for example 0/4", "number shards from 0")
