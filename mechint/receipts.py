"""Receipts: what was done to the cache of a conversation's first turns, as measured while it was filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mechint.errors import ReceiptError
from mechint.interventions import Clean, Filled, Intervention, Swap
from mechint.passes import Done
from mechint.plan import Cell, Step
from mechint.prefill import Receipt
from mechint.render import Rendered
from mechint.states import as_positions, state_of, terms_of
from mechint.steering import LayerTouch


def receipts_of(
    step: Step, done: Mapping[Step, Done], rendered: Sequence[Rendered], interventions: Sequence[Intervention]
) -> list[Receipt]:
    """Return the receipts of all prefills that a step completes: one for each distinct prefix and intervention.

    Raises ReceiptError if what was touched is not what was asked for.
    """
    cells = _first_of_each_prefix(step, rendered)
    return [_receipt(step, done, cell, rendered[cell[0]], interventions[cell[1]]) for cell in cells]


def _first_of_each_prefix(step: Step, rendered: Sequence[Rendered]) -> list[Cell]:
    """Return one cell for each intervention and each set of marks, among those whose prefill ends with this step."""
    found: dict[tuple[object, int], Cell] = {}
    for cell in sorted(step.cells):
        n_pos = rendered[cell[0]].prefix_length
        ends_here = step.node.stop == n_pos if n_pos else step.node.start == 0
        if ends_here:
            marks = tuple((s.stop, s.add_injection) for s in rendered[cell[0]].segments if s.stop <= n_pos)
            found.setdefault((marks, cell[1]), cell)
    return sorted(found.values())


def _receipt(
    step: Step, done: Mapping[Step, Done], cell: Cell, rendered: Rendered, intervention: Intervention
) -> Receipt:
    name, n_pos = (rendered.label, intervention.name), rendered.prefix_length
    if isinstance(intervention, Clean):
        return Receipt(*name, "clean", n_pos, (), ())
    state = state_of(rendered, intervention, terms_of(intervention))
    if isinstance(intervention, Swap | Filled):
        return Receipt(*name, "swapped", n_pos, tuple(as_positions(state.swapped)), ())
    touched = 0
    for positions in state.positions:
        touched |= positions
    layers = sorted({layer for term in intervention.terms for layer in term.layers or ()})
    found = tuple(_touch(step, done, step.cells[cell], layer) for layer in layers)
    for touch in found:
        asked = [p for t, p in zip(state.terms, state.positions, strict=True) if touch.layer in t.keys]
        if len(asked) == 1 and touch.positions != asked[0].bit_count():
            raise ReceiptError(
                given=f"{' of '.join(name[::-1])}: {touch.positions} positions were touched at layer {touch.layer}",
                allowed=f"{asked[0].bit_count()} positions, as it asks",
                advice="report this model's architecture with this message",
            )
    return Receipt(*name, "injected", n_pos, tuple(as_positions(touched)), found)


def _touch(step: Step, done: Mapping[Step, Done], state: int, layer: int) -> LayerTouch:
    """Return what was added at one layer in all steps up to this one: norms are means over the touched positions."""
    line = [*((before, states[state]) for before, states in step.line), (step, state)]
    rows = [(before, int(before.rows.level[there, layer + 1])) for before, there in line]
    touches = [done[before].touches[layer, row] for before, row in rows if (layer, row) in done[before].touches]
    count = sum(touch.positions for touch in touches)
    if not count:
        return LayerTouch(layer, 1, 0, 0.0, 0.0, 0.0)
    change, before_it = (
        sum(getattr(touch, norm) * touch.positions for touch in touches) / count
        for norm in ("vector_norm", "residual_norm")
    )
    return LayerTouch(layer, 1, count, change, before_it, change / before_it if before_it else 0.0)
