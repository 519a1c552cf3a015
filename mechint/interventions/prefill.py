"""Filling the KV cache of a conversation's first turns under interventions, with a receipt of what was touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from mechint.base.errors import (
    ConversationError,
    ReceiptError,
    UsageError,
)
from mechint.base.signatures import checked
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered, render
from mechint.interventions.addition import Steering, Term
from mechint.interventions.receipts import Measured, Receipt, StreamChange
from mechint.interventions.specifications import Injection, Intervention, check_form
from mechint.models.cache import KVCache, concatenate
from mechint.models.capture import check_layers
from mechint.models.model import Model

if TYPE_CHECKING:
    from mechint.models.backends.base import Hook


@dataclass(frozen=True)
class Prefilled:
    """A filled cache, one row for each intervention, and the receipt of each."""

    rendered: Rendered
    cache: KVCache
    receipts: tuple[Receipt, ...]


@checked
def prefill(model: Model, conversation: Conversation | Rendered, interventions: Sequence[Intervention]) -> Prefilled:
    """Fill the cache up to the end of the last marked segment, one row for each intervention.

    Raises ConversationError if nothing is marked or nothing is left to read, LayerRangeError, VectorMismatchError,
    SwapError, and ReceiptError if what was touched is not what was asked for.
    """
    rendered = conversation if isinstance(conversation, Rendered) else render(model, conversation)
    check_readable(rendered, interventions)
    model.backend.context.check(len(rendered.tokens), f"conversation {rendered.label!r}")
    for intervention in interventions:
        check_fits(model, intervention)
    rows = range(len(interventions))
    steered = [row for row in rows if interventions[row].filler is None]
    swapped = [row for row in rows if row not in steered]
    fills = [_fill_steered(model, rendered, [interventions[row] for row in steered])] if steered else []
    fills += [_fill_swapped(model, rendered, interventions[row]) for row in swapped]
    filled = [*steered, *swapped]
    cache, receipts = _in_order(fills, [filled.index(row) for row in rows])
    return Prefilled(rendered, cache, tuple(replace(receipt, row=row) for row, receipt in enumerate(receipts)))


def check_readable(rendered: Rendered, interventions: Sequence[Intervention]) -> None:
    """Raise ConversationError if there is nothing to intervene on, nothing left to read, or nothing filled for it."""
    if rendered.prefix_length == 0 and any(i.kind != "clean" for i in interventions):
        raise ConversationError(
            given=f"conversation {rendered.label!r}: no message is marked add_injection",
            allowed="one or more marked messages for any intervention but clean",
            advice="mark the turns whose KV cache is to be filled under the intervention",
        )
    if rendered.prefix_length == len(rendered.tokens):
        raise ConversationError(
            given=f"conversation {rendered.label!r}: its last message is marked add_injection",
            allowed="an unmarked end, which is read after the intervention has been removed",
            advice="unmark the last message: what is read must not be steered itself",
        )
    for intervention in interventions:
        if intervention.filler is not None:
            intervention.filler.for_conversation(rendered)


def check_fits(model: Model, intervention: Intervention) -> None:
    """Raise a MechintError for vectors and fillers that do not fit this model, and for an invalid intervention."""
    check_form(intervention)
    for term in intervention.terms:
        term.vector.check_fits(model.d_model, model.n_layers)
        check_layers(term.layers or (), model.n_layers)
    if intervention.filler is not None:
        intervention.filler.check_fits(model)


def injected_positions(rendered: Rendered, term: Injection) -> Bool[Tensor, " pos"]:
    """True at the positions that an injection touches. Raises UsageError for positions that are not marked."""
    marked = rendered.marked()
    if term.positions is None and term.segments is None:
        return marked
    chosen = torch.zeros_like(marked)
    for index in term.segments or ():
        if not 0 <= index < len(rendered.segments):
            raise _not_marked(rendered, f"segment {index}")
        chosen[rendered.segments[index].start : rendered.segments[index].stop] = True
    for position in term.positions or ():
        if not 0 <= position < len(marked):
            raise _not_marked(rendered, f"position {position}")
        chosen[position] = True
    if (chosen & ~marked).any():
        raise _not_marked(rendered, f"positions {(chosen & ~marked).nonzero()[:, 0].tolist()[:5]}")
    return chosen


def reach_of(model: Model, rendered: Rendered, intervention: Intervention) -> int | None:
    """Return the last position that an intervention can change, if sliding windows end it; else None.

    The last block alone hands on nothing, with or without windows; that is no limit of theirs.
    """
    windows = model.blocks.windows
    if not windows.is_limited:
        return None
    if intervention.filler is not None:
        return windows.farthest([(-1, rendered.prefix_length - 1)])
    changes: list[tuple[int, int]] = []
    for term in intervention.terms:
        touched = injected_positions(rendered, term).nonzero()[:, 0].tolist()
        changes += [(layer, max(touched)) for layer in term.layers or () if touched and layer + 1 < model.n_layers]
    return windows.farthest(changes)


def _fill_steered(
    model: Model, rendered: Rendered, interventions: Sequence[Intervention]
) -> tuple[KVCache, list[Receipt]]:
    """Fill clean and injected rows in one batch; the position masks make one pass equal to one pass per segment."""
    n_pos = rendered.prefix_length
    steering = Steering(len(interventions), n_pos, model.d_model)
    for row, intervention in enumerate(interventions):
        for injection in intervention.terms:
            steering.add(_term(model, rendered, injection, row))
    hooks: list[Hook] = [(model.resid_post(layer), hook_fn) for layer, hook_fn in steering.hooks().items()]
    tokens = rendered.token_tensor()[:, :n_pos].expand(len(interventions), n_pos)
    cache = model.forward(tokens, hooks=hooks) if n_pos else KVCache()
    steering.check()
    receipts = [_steered_receipt(model, rendered, i, steering.changes(row)) for row, i in enumerate(interventions)]
    return cache, receipts


def _term(model: Model, rendered: Rendered, injection: Injection, row: int) -> Term:
    amounts = {layer: injection.amount(layer, model) for layer in injection.layers or ()}
    return Term(row, injected_positions(rendered, injection)[: rendered.prefix_length], amounts)


def _fill_swapped(model: Model, rendered: Rendered, swap: Intervention) -> tuple[KVCache, list[Receipt]]:
    """Return a cache whose marked segments the intervention's filler fills, with its receipt."""
    assert swap.filler is not None  # the others are filled in one batch
    cache = swap.filler.cache(model, rendered)
    if cache.n_pos != rendered.prefix_length or cache.n_layers != model.n_layers:
        filled_wrongly = f"a swap that filled {cache.n_pos} positions of {cache.n_layers} layers"
        raise ReceiptError(filled_wrongly, f"{rendered.prefix_length} of {model.n_layers}", "report this model")
    filled = tuple(rendered.marked().nonzero()[:, 0].tolist())
    reach = reach_of(model, rendered, swap)
    return cache, [Receipt(rendered.label, swap.name, swap.kind, cache.n_pos, filled, (), reach=reach)]


def _in_order(fills: Sequence[tuple[KVCache, list[Receipt]]], order: Sequence[int]) -> tuple[KVCache, list[Receipt]]:
    """Join filled caches and their receipts, and put the rows into `order`."""
    receipts = [receipt for _, of_fill in fills for receipt in of_fill]
    cache = fills[0][0] if len(fills) == 1 else concatenate([cache for cache, _ in fills])
    if list(order) != list(range(len(order))):
        cache = cache.select(torch.tensor(order))
    return cache, [receipts[row] for row in order]


def _steered_receipt(
    model: Model, rendered: Rendered, intervention: Intervention, changes: Mapping[int, StreamChange]
) -> Receipt:
    touched = torch.zeros(len(rendered.tokens), dtype=torch.bool)
    for term in intervention.terms:
        touched |= injected_positions(rendered, term)
    names, positions = (rendered.label, intervention.name), touched.nonzero()[:, 0].tolist()
    passes = {layer: [once] for layer, once in changes.items()}
    receipt = Measured(model, rendered.tokens).receipt(
        names, intervention.kind, rendered.prefix_length, positions, passes
    )
    return replace(receipt, reach=reach_of(model, rendered, intervention))


def _not_marked(rendered: Rendered, place: str) -> UsageError:
    return UsageError(
        given=f"{place} of conversation {rendered.label!r}",
        allowed="positions inside segments that are marked add_injection",
        advice="narrow the injection to marked positions",
    )
