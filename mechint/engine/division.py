"""Dividing steps so that they fit into memory: which are run together, and which states of one are carried on first.

A step with more states than fit is divided into parts, each of which is read to its end before the next begins. Parts
are made of states that share most, so that little is done twice: a part computes the rows that its states have in
common with those of other parts anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mechint.engine.branching import Indices
from mechint.engine.footprint import Footprint, Load
from mechint.engine.packing import packs_of
from mechint.engine.plan import Cell, Step
from mechint.models.memory import Room

# A part of this many times as many tokens as are computed at once gains next to nothing by being larger.
_ENOUGH = 32
# Such a share of the tokens computed at once is worth a pass; and so many of padding cost as much as another pass.
_WORTH, _PADDING = 4, 16


@dataclass(frozen=True)
class Visit:
    """Steps that are run together; `kept` are the bytes of all caches that stand while they run, their own included.

    `begins`: they are to be run; else everything that continues them has been read, and their caches can go. `packed`:
    in the rows of the first (see `packing`).
    """

    steps: Sequence[Step]
    load: Load
    kept: int
    begins: bool
    packed: bool = False

    @property
    def computed(self) -> list[int]:
        """How many rows of each level are computed."""
        owners = self.steps[:1] if self.packed else self.steps
        return [sum(counts) for counts in zip(*(step.computed for step in owners), strict=True)]


@dataclass(frozen=True)
class Division:
    """How steps are divided: `room` is the memory left beside caches of some bytes, `finished` cells are left out."""

    footprint: Footprint
    room: Callable[[int], Room]
    finished: Set[Cell]

    def visits(self, steps: Sequence[Step], kept: int = 0) -> Iterator[Visit]:
        """Yield visits depth first: all that continue a pass come before the next pass of its level."""
        packs, rest = self._packs(steps, kept)
        for packed, chunks in ((True, packs), (False, self._chunks(rest, kept))):
            for chunk, load in chunks:
                if all_finished(chunk, self.finished):
                    continue
                within = kept + self.footprint.kept(load)
                yield Visit(chunk, load, within, begins=True, packed=packed)
                yield from self.visits([child for step in chunk for child in step.children], within)
                yield Visit(chunk, load, within, begins=False, packed=packed)

    def _packs(self, steps: Sequence[Step], kept: int) -> tuple[list[tuple[list[Step], Load]], Sequence[Step]]:
        """Return the packs of steps that there is room for, and the steps that are in none."""
        if not self.footprint.packs:
            return [], steps
        packs, rest = packs_of(steps, self.footprint.budget.tokens)
        room, fitting = self.room(kept), list[tuple[list[Step], Load]]()
        for pack in packs:
            load = Load.packed(pack)
            if self._fits(load, room):
                fitting.append((pack, load))
            else:
                rest += pack
        return fitting, rest

    def _chunks(self, steps: Sequence[Step], kept: int) -> Iterator[tuple[list[Step], Load]]:
        """Yield steps that are run together: similar in length, and no more than there is room for."""
        waiting = deque(sorted(steps, key=lambda step: step.n_tokens))
        while waiting:
            room = self.room(kept)
            first, *rest = self._parts(waiting.popleft(), room)
            waiting.extendleft(reversed(rest))
            chunk, load = [first], Load.of(first)
            while waiting and self._joins(load, longer := load + Load.of(waiting[0]), room):
                chunk.append(waiting.popleft())
                load = longer
            yield chunk, load

    def _joins(self, load: Load, longer: Load, room: Room) -> bool:
        """Whether a longer step is run with others: not where a pass of its own costs less than padding all of them."""
        most, rows = self.footprint.budget.tokens, int(load.counts.max())
        apart = rows * load.n_pos >= most // _WORTH and rows * (longer.n_pos - load.n_pos) > most // _PADDING
        within = int(longer.counts.max()) * longer.n_pos <= most
        return within and not apart and self._fits(longer, room)

    def _fits(self, load: Load, room: Room) -> bool:
        return room.allows(self.footprint.kept(load), self.footprint.peak(load), load.height)

    def _parts(self, step: Step, room: Room) -> list[Step]:
        """Return a step as it is, or in parts that fit; a single state is never divided."""
        load, n_states = Load.of(step), len(step.states)
        if n_states == 1 or (self._enough(load) and self._fits(load, room)):
            return [step]
        order = np.lexsort(step.rows.level.T[::-1])
        # Neighbours in this order share the rows of all levels below the first at which they differ.
        fresh = np.diff(step.rows.level[order], axis=0, prepend=-1) != 0
        fresh_so_far = np.concatenate([np.zeros((1, fresh.shape[1]), dtype=np.int64), fresh.cumsum(axis=0)])

        def too_much(start: int, stop: int) -> bool:
            counts = fresh_so_far[stop] - fresh_so_far[start + 1] + 1
            part_load = replace(load, counts=counts, computed=int(counts.max()), reads=load.reads and int(counts[-1]))
            return not (self._enough(part_load) and self._fits(part_load, room))

        parts, start = [], 0
        while start < n_states:
            stop = bisect_left(range(n_states + 1), True, start + 2, key=partial(too_much, start)) - 1
            parts.append(part_of(step, np.sort(order[start:stop])))
            start = stop
        return parts

    def _enough(self, load: Load) -> bool:
        return int(load.counts.max()) * load.n_pos <= _ENOUGH * self.footprint.budget.tokens


def part_of(step: Step, states: Indices) -> Step:
    """Return a step, and all below it, with some of its states only; its parent stays the same."""
    return _restricted(step, states, step.parent, step.to_parent)


def all_finished(steps: Sequence[Step], finished: Set[Cell]) -> bool:
    """Whether every cell that some steps or the steps below them are for is finished."""
    return all(cell in finished for step in steps for cell in step.cells)


def _restricted(step: Step, states: Indices, parent: Step | None, to_parent: Indices) -> Step:
    place = {int(state): at for at, state in enumerate(states)}
    restricted = replace(
        step,
        states=tuple(step.states[state] for state in states),
        rows=step.rows.of(states),
        cells={cell: place[state] for cell, state in step.cells.items() if state in place},
        parent=parent,
        to_parent=to_parent[states],
        children=[],
    )
    for child in step.children:
        below = np.flatnonzero(np.isin(child.to_parent, states))
        if len(below):
            renumbered = np.array([place.get(int(state), -1) for state in child.to_parent])
            restricted.children.append(_restricted(child, below, restricted, renumbered))
    return restricted
