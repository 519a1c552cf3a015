"""Receipts of the engine's prefills, each put together from the steps that fill a conversation's first turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mechint.base.errors import ReceiptError
from mechint.chat.render import Rendered
from mechint.engine.effect import Effect, as_positions, state_of, terms_of
from mechint.engine.passes import StepResult
from mechint.engine.plan import Cell, Step
from mechint.interventions.prefill import reach_of
from mechint.interventions.receipts import Measured, Receipt, StreamChange
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model

# The steps that a prefill is made of, with the state in each of the row that is looked at.
Line = Sequence[tuple[Step, int]]


def receipts_of(
    model: Model,
    step: Step,
    done: Mapping[Step, StepResult],
    rendered: Sequence[Rendered],
    interventions: Sequence[Intervention],
) -> dict[Cell, Receipt]:
    """Return the receipts of all prefills that a step completes, by the first cell with each: one for each distinct
    prefix and intervention.

    Raises ReceiptError if what was touched is not what was asked for.
    """
    receipts: dict[Cell, Receipt] = {}
    for cell in _first_of_each_prefix(step, rendered):
        item, intervention = rendered[cell[0]], interventions[cell[1]]
        reach = reach_of(model, item, intervention)
        receipts[cell] = replace(_receipt(model, step, done, cell, item, intervention), reach=reach)
    return receipts


def _first_of_each_prefix(step: Step, rendered: Sequence[Rendered]) -> list[Cell]:
    """Return one cell for each intervention and each set of marks, among those whose prefill ends with this step."""
    first: dict[tuple[object, int], Cell] = {}
    for cell in sorted(step.cells):
        n_pos = rendered[cell[0]].prefix_length
        ends_here = step.node.stop == n_pos if n_pos else step.node.start == 0
        if ends_here:
            marks = tuple((s.stop, s.add_injection) for s in rendered[cell[0]].segments if s.stop <= n_pos)
            first.setdefault((marks, cell[1]), cell)
    return sorted(first.values())


def _receipt(
    model: Model,
    step: Step,
    done: Mapping[Step, StepResult],
    cell: Cell,
    rendered: Rendered,
    intervention: Intervention,
) -> Receipt:
    names, n_pos, kind = (rendered.label, intervention.name), rendered.prefix_length, intervention.kind
    state = state_of(rendered, intervention, terms_of(intervention))
    if state.filler is not None:
        return Receipt(*names, kind, n_pos, tuple(as_positions(state.swapped)), ())
    touched = 0
    for positions in state.positions:
        touched |= positions
    layers = sorted({layer for term in intervention.terms for layer in term.layers or ()})
    line = [*((before, int(states[step.cells[cell]])) for before, states in step.line), (step, int(step.cells[cell]))]
    changes = {layer: _changes(line, done, layer) for layer in layers}
    for layer in layers:
        _check(names, layer, changes[layer], _term_bits(state, layer), line)
    passes = {layer: list(of_layer.values()) for layer, of_layer in changes.items()}
    return Measured(model, rendered.tokens).receipt(names, kind, n_pos, as_positions(touched), passes)


def _changes(line: Line, done: Mapping[Step, StepResult], layer: int) -> dict[Step, StreamChange]:
    """Return the measured changes of a row (by its state in each step) at one layer, by the step that made them."""
    rows = {step: int(step.rows.level[state, layer + 1]) for step, state in line}
    return {step: done[step].changes[layer, row] for step, row in rows.items() if (layer, row) in done[step].changes}


def _term_bits(state: Effect, layer: int) -> list[int]:
    """Return the positions of each term that adds something at a layer, as bits."""
    return [bits for term, bits in zip(state.terms, state.positions, strict=True) if layer in term.keys]


def _check(
    names: tuple[str, str],
    layer: int,
    changes: Mapping[Step, StreamChange],
    term_bits: Sequence[int],
    line: Line,
) -> None:
    """Raise ReceiptError unless each position that is asked for was touched once, and no other.

    Terms that cancel each other touch nothing. Which these are the pass itself has checked: of several terms it is
    asked here that each step to which they add something has a record, and that of nowhere else.
    """
    places = [position for of_step in changes.values() for position in of_step.positions.tolist()]
    expected = {position for bits in term_bits for position in as_positions(bits)}
    unseen = [
        step for step, _ in line if step not in changes and expected & set(range(step.node.start, step.node.stop))
    ]
    wrong = set(places) != expected if len(term_bits) == 1 else not set(places) <= expected
    if unseen or wrong or len(set(places)) != len(places) or any(of_step.firings != 1 for of_step in changes.values()):
        raise ReceiptError(
            given=f"{' of '.join(names[::-1])}: {len(places)} positions were touched at layer {layer}",
            allowed=f"{len(expected)} positions, each once, as it asks",
            advice="report this model's architecture with this message",
        )
