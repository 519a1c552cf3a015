"""Which rows a pass needs before each block: interventions part where they begin to differ, and not before.

Row `r` of level `l` is the residual stream before block `l` (level 0: the embedding). An injection at layer `l` makes a
row of its own at level `l + 1`; below that it shares the row of what it does not differ from.

Three states in blocks 0 and 1, for example, with one vector v of one strength:

    level                    0 (embedding)   1 (after block 0)   2 (after block 1)
    clean                          0                 0                   0
    v at layer 0                   0                 1                   1
    v at layers 0 and 1            0                 1                   2

Block 0 runs one row and block 1 two; `origin` is ([0, 0], [0, 1, 1]) and `steered` ({1: 1}, {2: 2}): row 2 of level 2
gets what state 2 adds. Later passes, where nothing is added, have the same rows, and `steered` is ({}, {}).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mechint.engine.effect import Effect

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Branches:
    """Rows of some states: `level[s, l]` is the row of state `s` before block `l`, up to one level after the last.

    `origin[l]` is the row of level `l` that each row of level `l + 1` comes from, and `steered[l]` gives, for the rows
    of level `l + 1` to which something is added, a state that says what.
    """

    level: Indices
    counts: tuple[int, ...]
    origin: tuple[Indices, ...]
    steered: tuple[dict[int, int], ...]

    def example(self, level: int) -> Indices:
        """Return one state for each row of a level."""
        _, first = np.unique(self.level[:, level], return_index=True)
        return first

    def of(self, states: Indices) -> Branches:
        """Return the rows of some states, numbered anew; `states` are ascending."""
        kept, level = zip(*(np.unique(rows, return_inverse=True) for rows in self.level[states].T), strict=True)
        origin, steered = [], []
        for layer, (below, above) in enumerate(pairwise(kept)):
            origin.append(np.searchsorted(below, self.origin[layer][above]))
            first = np.unique(level[layer + 1], return_index=True)[1]
            steered.append({r: int(first[r]) for r, row in enumerate(above.tolist()) if row in self.steered[layer]})
        return Branches(np.stack(level, axis=1), tuple(len(rows) for rows in kept), tuple(origin), tuple(steered))


def build_rows(states: Sequence[Effect], start: int, stop: int, depth: int) -> Branches:
    """Return the rows of a pass over positions `start` to `stop` in blocks 0 to `depth`.

    States are told apart by all that they do before `stop`: what was added before `start` is in the caches.
    """
    additions = [state.added(stop) for state in states]
    levels = [_numbered([(state.filler_key(stop),) for state in states])]
    origin, steered = [], []
    for layer in range(depth):
        below = levels[-1]
        keys = [(int(row), by_layer.get(layer)) for row, by_layer in zip(below, additions, strict=True)]
        above = _numbered(keys)
        first = {int(row): state for state, row in reversed(list(enumerate(above)))}
        origin.append(np.array([below[first[row]] for row in range(len(first))]))
        adding = {state for state, (_, added) in enumerate(keys) if added and any(bits >> start for bits, _ in added)}
        steered.append({row: state for row, state in sorted(first.items()) if state in adding})
        levels.append(above)
    counts = tuple(int(rows.max()) + 1 for rows in levels)
    return Branches(np.stack(levels, axis=1), counts, tuple(origin), tuple(steered))


def _numbered(keys: Sequence[tuple[object, ...]]) -> Indices:
    """Number keys by their first appearance."""
    numbers: dict[tuple[object, ...], int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])
