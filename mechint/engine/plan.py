"""The plan of a table of (conversation x intervention): the passes to compute, each distinct one once.

Two ideas meet here. Conversations that begin alike share a node of the prefix tree, and what was cached for it. In a
node, interventions share rows below the first layer at which they differ.

Two chats, for example, share 40 tokens of a marked first turn and go on with 11 and 16 of their own; each is run clean
(intervention 0) and with a vector added at layer 0 (intervention 1). State 0 is the clean one in each of three steps:

    positions   cells and their states                       to_parent   reads            rows by level
    0:40        (0, 0): 0, (0, 1): 1, (1, 0): 0, (1, 1): 1   -1, -1      none             1, 2, 2, ...
    40:51       (0, 0): 0, (0, 1): 1                         0, 1        (0, 0), (0, 1)   1, 2, 2, ...
    40:56       (1, 0): 0, (1, 1): 1                         0, 1        (1, 0), (1, 1)   1, 2, 2, ...

Padding aside, block 0 is given 40 + 11 + 16 = 67 tokens and each later block 134; cell by cell each would be given
2 x (51 + 56) = 214.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mechint.chat.render import Rendered
from mechint.engine.branching import Branches, Indices, build_rows
from mechint.engine.effect import Effect, state_of, terms_of
from mechint.engine.prefix_tree import MIN_SHARED, Node, Path, build_tree
from mechint.interventions.specifications import Intervention

# (index of a conversation, index of an intervention)
Cell = tuple[int, int]


@dataclass(eq=False)
class Step:
    """The work at one node of the tree: its tokens, for each distinct state that cells bring to it.

    `to_parent[s]` is the parent's state that state `s` continues.
    """

    node: Node
    states: tuple[Effect, ...]
    rows: Branches
    cells: dict[Cell, int]
    parent: Step | None
    to_parent: Indices
    children: list[Step] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        """Tokens of one row."""
        return len(self.node.tokens)

    @cached_property
    def height(self) -> int:
        """How many levels of steps lie below this one."""
        return max((child.height + 1 for child in self.children), default=0)

    @cached_property
    def computed(self) -> tuple[int, ...]:
        """How many rows of each level a model computes; keys and values of the others are in files that were filled.

        Nothing is added to a row from a file, so that it is one row at all levels.
        """
        stored = {int(self.rows.level[s, 0]) for s, state in enumerate(self.states) if state.is_stored(self.node.start)}
        return tuple(count - len(stored) for count in self.rows.counts)

    @property
    def reads(self) -> dict[Cell, int]:
        """The cells that are read at the last position of this node, with their states."""
        ends = set(self.node.ends)
        return {cell: state for cell, state in self.cells.items() if cell[0] in ends}

    @cached_property
    def line(self) -> tuple[tuple[Step, Indices], ...]:
        """The steps before this one, first to last, with the state there of each state here."""
        if self.parent is None:
            return ()
        before = tuple((step, states[self.to_parent]) for step, states in self.parent.line)
        return (*before, (self.parent, self.to_parent))

    def past(self, level: int) -> Iterator[tuple[Step, Indices]]:
        """Yield the steps before this one with the row there that each row of a level continues."""
        example = self.rows.example(level)
        for step, states in self.line:
            yield step, step.rows.level[states[example], level]

    def walk(self) -> Iterator[Step]:
        """Yield this step and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Plan:
    """Steps that compute some cells, in blocks 0 to `depth`."""

    roots: tuple[Step, ...]
    depth: int

    def steps(self) -> Iterator[Step]:
        """Yield every step, parents first."""
        for root in self.roots:
            yield from root.walk()


def make_plans(
    rendered: Sequence[Rendered],
    interventions: Sequence[Intervention],
    cells: Sequence[Cell],
    depth: int,
    max_states: int | None = None,
    min_shared: int = MIN_SHARED,
) -> list[Plan]:
    """Return plans that compute every cell; several where swaps are among them, or more than `max_states` states."""
    terms = [terms_of(intervention) for intervention in interventions]
    states = {(c, i): state_of(rendered[c], interventions[i], terms[i]) for c, i in cells}
    plans = []
    for planned in _parts(interventions, cells, max_states):
        chosen = {cell: states[cell] for cell in planned}
        plans.append(_make_plan(rendered, chosen, depth, min_shared))
    return plans


def _parts(interventions: Sequence[Intervention], cells: Sequence[Cell], size: int | None) -> Iterator[list[Cell]]:
    """Yield cells that are planned together: swaps apart from the rest, and each by at most `size` interventions."""
    used = sorted({i for _, i in cells}, key=lambda i: _order(interventions[i]))
    swaps = [i for i in used if interventions[i].filler is not None]
    for group in (swaps, [i for i in used if i not in set(swaps)]):
        step = max(1, len(group)) if size is None else size
        for start in range(0, len(group), step):
            together = set(group[start : start + step])
            yield [cell for cell in cells if cell[1] in together]


def _order(intervention: Intervention) -> tuple[object, ...]:
    """Put interventions next to each other that share most layers: same vector and strength, same first layer."""
    if not intervention.terms:
        return (0,)
    return (1, *((term.vector.fingerprint(), repr(term.strength), term.layers) for term in intervention.terms))


def _make_plan(rendered: Sequence[Rendered], states: dict[Cell, Effect], depth: int, min_shared: int) -> Plan:
    conversations = sorted({c for c, _ in states})
    cells: dict[int, list[Cell]] = {c: [] for c in conversations}
    for cell in states:
        cells[cell[0]].append(cell)
    paths = {c: _path(rendered[c], [states[cell] for cell in cells[c]], min_shared) for c in conversations}
    builder = _Builder(cells, states, depth)
    return Plan(tuple(builder.step(root, None) for root in build_tree(paths, min_shared)), depth)


def _path(rendered: Rendered, states: Sequence[Effect], min_shared: int) -> Path:
    """Return where a conversation is cut: where steering begins, where swaps change model, and before the read."""
    stop = rendered.prefix_length
    bits = {bits for state in states for bits in state.before(stop) if bits}
    cuts = {first for first in ((b & -b).bit_length() - 1 for b in bits) if first >= min_shared} | {stop}
    if any(state.filler is not None for state in states):
        marked = rendered.marked().tolist()
        cuts |= {position for position in range(1, stop) if marked[position] != marked[position - 1]}
    return Path(rendered.tokens, tuple(sorted(cuts - {0})))


@dataclass(frozen=True)
class _Builder:
    """Makes the steps of a tree."""

    cells: Mapping[int, Sequence[Cell]]
    states: Mapping[Cell, Effect]
    depth: int

    def step(self, node: Node, parent: Step | None) -> Step:
        """Return the step of a node, and with it all steps below."""
        by_key: dict[object, int] = {}
        by_signature: dict[object, int] = {}
        examples: list[Cell] = []
        cells: dict[Cell, int] = {}
        for cell in (cell for member in node.members for cell in self.cells[member]):
            state = self.states[cell]
            signature = (cell[1], state.before(node.stop), state.filler_key(node.stop))
            if signature not in by_signature:
                key = (signature[2], tuple(sorted(state.added(node.stop).items())))
                by_signature[signature] = by_key.setdefault(key, len(by_key))
                if by_signature[signature] == len(examples):
                    examples.append(cell)
            cells[cell] = by_signature[signature]
        distinct = tuple(self.states[cell] for cell in examples)
        to_parent = np.array([-1 if parent is None else parent.cells[cell] for cell in examples])
        rows = build_rows(distinct, node.start, node.stop, self.depth)
        step = Step(node, distinct, rows, cells, parent, to_parent)
        step.children = [self.step(child, step) for child in node.children]
        return step
