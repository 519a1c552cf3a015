"""Prompts that are filled once for all replies to them: caches, and the logits of the first token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.files import JSON
from mechint.chat.render import Rendered
from mechint.engine.answers import AnswerIds, read_rows
from mechint.engine.replies import PromptKey, ReplyRow
from mechint.interventions.addition import Steering, Term
from mechint.interventions.prefill import prefill, reach_of
from mechint.interventions.receipts import Measured, Receipt, StreamChange
from mechint.interventions.specifications import CLEAN, Intervention
from mechint.interventions.steering_modes import prompt_positions
from mechint.models.block_run import run_blocks
from mechint.models.cache import KVCache
from mechint.models.capture import read_on
from mechint.models.model import Model


@dataclass(frozen=True)
class PromptState:
    """A prompt that has been read to its end by `reader`: its cache, the last block's `resid_post` and logits there.

    `changes` are those that were measured in it, by layer.
    """

    reader: Model
    cache: KVCache
    resid: Float[Tensor, " d_model"]
    logits: Float[Tensor, " d_vocab"]
    changes: Mapping[int, StreamChange] = field(default_factory=dict)

    @classmethod
    def of(cls, reader: Model, cache: KVCache, stream: Float[Tensor, "1 pos d_model"]) -> PromptState:
        """Return the state of one row from what `read_on` returns."""
        return cls(reader, cache, stream[0, -1], reader.readout.logits(stream[:, -1])[0])

    def answers(self, ids: AnswerIds | None) -> dict[str, float]:
        """Return the columns of `mi.score` where the first token is chosen; none where no answers are read."""
        return {} if ids is None else read_rows(self.reader.readout, self.resid[None], [ids])[0]


class PromptStates:
    """The prompts of some rows, which are asked for in the rows' order; each is filled when its first row comes.

    Prompts of the same tokens that are steered are filled together, at most `at_once`. A clean one is filled by itself,
    so that it is the same to the bit whatever else is asked for. One that no row needs any more is forgotten. Each that
    is filled is noted in `prefills`.
    """

    def __init__(
        self, model: Model, reader: Model, rows: Sequence[ReplyRow], at_once: int, prefills: list[dict[str, JSON]]
    ) -> None:
        self.model, self.reader, self.at_once, self.prefills = model, reader, at_once, prefills
        self._left = Counter(row.prompt for row in rows)
        self._first: dict[PromptKey, ReplyRow] = {}
        for row in rows:
            self._first.setdefault(row.prompt, row)
        self._states: dict[PromptKey, PromptState] = {}

    def of(self, row: ReplyRow) -> PromptState:
        """Return the state of a row's prompt."""
        if row.prompt not in self._states:
            self._fill(self._together(row.prompt))
        state = self._states[row.prompt]
        self._left[row.prompt] -= 1
        if not self._left[row.prompt]:
            del self._states[row.prompt]
        return state

    def _together(self, key: PromptKey) -> list[ReplyRow]:
        """Return the first rows of a prompt, and of those after it that can be filled with it."""
        first = self._first[key]
        if not key.changes:
            return [first]
        keys = list(self._first)
        following = keys[keys.index(key) :][: self.at_once]
        alike = [other.tokens == key.tokens and bool(other.changes) for other in following]
        stop = alike.index(False) if False in alike else len(alike)
        return [self._first[other] for other in following[:stop]]

    def _fill(self, rows: Sequence[ReplyRow]) -> None:
        swapped = rows[0].prompt.filled
        states = [_swapped(self.model, self.reader, rows[0])] if swapped else _steered(self.model, rows)
        for row, state in zip(rows, states, strict=True):
            cache = state.cache if self.reader is self.model else state.cache.to(self.reader.device)
            self._states[row.prompt] = replace(state, cache=cache)
            name = CLEAN.name if row.prompt.is_clean else row.intervention.name
            counts: dict[str, JSON] = {"tokens": len(row.prompt.tokens), "replies": self._left[row.prompt]}
            self.prefills.append({"conversation": row.rendered.label, "intervention": name, **counts})


def prompt_receipt(
    model: Model, row: ReplyRow, changes: Mapping[int, StreamChange], units: Sequence[float | None] | None
) -> Receipt:
    """Return the receipt of a row's prompt, in which nothing else is changed than what was measured."""
    rendered, steer = row.rendered, row.request.steer
    intervention: Intervention = CLEAN if steer == "reply" else row.intervention
    touched = torch.zeros(len(rendered.tokens), dtype=torch.bool)
    for term in intervention.terms:
        touched |= prompt_positions(model, rendered, steer, term)
    if intervention.filler is not None:
        touched = prompt_positions(model, rendered, steer)
    layers = {layer for term in intervention.terms for layer in term.layers or ()}
    passes = {layer: [changes[layer]] if layer in changes else [] for layer in layers}
    positions = touched.nonzero()[:, 0].tolist()
    n_pos, reach = len(rendered.tokens), None
    if steer == "prefill":
        n_pos, reach = rendered.prefix_length, reach_of(model, rendered, intervention)
    names = (rendered.label, intervention.name)
    receipt = Measured(model, rendered.tokens, units).receipt(names, intervention.kind, n_pos, positions, passes)
    return replace(receipt, reach=reach)


def _steered(model: Model, rows: Sequence[ReplyRow]) -> list[PromptState]:
    """Fill prompts of the same tokens in one pass, one row for each; the first turns and the rest are read at once."""
    tokens = rows[0].rendered.token_tensor()
    steering = Steering(len(rows), tokens.shape[1], model.d_model)
    for number, row in enumerate(rows):
        for term in row.intervention.terms if row.prompt.changes else ():
            positions = prompt_positions(model, row.rendered, row.request.steer, term)
            amounts = {layer: term.amount(layer, model) for layer in term.layers or ()}
            steering.add(Term(number, positions, amounts))
    layers = frozenset(layer for term in steering.terms for layer in term.vectors)

    def change(layer: int, resid: Tensor) -> Tensor:
        return steering.apply(layer, resid) if layer in layers else resid

    cached, resid = run_blocks(model, tokens, torch.zeros(1, dtype=torch.long), change, n_rows=len(rows))
    steering.check()
    logits = model.readout.logits(resid[:, -1])
    cache = KVCache(tuple(keys for keys, _ in cached), tuple(values for _, values in cached))
    alone = [torch.tensor([number]) for number in range(len(rows))]
    caches = [cache] if len(rows) == 1 else [cache.select(number) for number in alone]
    last = resid[:, -1].clone()
    return [
        PromptState(model, caches[at], last[at], logits[at].clone(), steering.changes(at)) for at in range(len(rows))
    ]


def _swapped(model: Model, reader: Model, row: ReplyRow) -> PromptState:
    """Fill a prompt some of whose positions another model, or its files, fill."""
    rendered, intervention = row.rendered, row.intervention
    if row.request.steer == "prefill":
        filled = prefill(model, rendered, [intervention])
        cache, stream = read_on(model, rendered.token_tensor()[:, rendered.prefix_length :], filled.cache)
        return PromptState.of(model, cache, stream)
    positions = prompt_positions(model, rendered, row.request.steer)
    return _read_by_turns(model, reader, rendered, positions.tolist())


def _read_by_turns(model: Model, other: Model, rendered: Rendered, theirs: Sequence[bool]) -> PromptState:
    """Let `other` read the positions that are `theirs`, and `model` the rest."""
    tokens, cache = rendered.token_tensor(), KVCache()
    for is_theirs, run in groupby(range(len(theirs)), lambda position: theirs[position]):
        positions = list(run)
        reading = other if is_theirs else model
        span = tokens[:, positions[0] : positions[-1] + 1]
        cache, stream = read_on(reading, span, cache.to(reading.device))
    return PromptState.of(reading, cache, stream)
