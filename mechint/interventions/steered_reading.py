"""Active steering: adding vectors at every position that a model reads or writes, and counting what was touched.

Here the intervention is on while the text goes on, as in most work on steering; a prefill takes it away before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.base.errors import ReceiptError, UsageError
from mechint.interventions.addition import norms_of
from mechint.interventions.receipts import StreamChange
from mechint.interventions.specifications import Intervention
from mechint.models.cache import KVCache
from mechint.models.capture import read_on
from mechint.models.model import Model

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from mechint.models.backends.base import Hook


@dataclass(frozen=True)
class SteeredRow:
    """A row with the vector that is added at each layer, everywhere, and its measured changes in each pass so far.

    Positions are counted from the first that was steered; a layer where zeros are added has no changes.
    """

    added: Mapping[int, Float[Tensor, " d_model"]] = field(default_factory=dict)
    changes: dict[int, tuple[StreamChange, ...]] = field(default_factory=dict)

    def copy(self) -> SteeredRow:
        """Return a row with the same past that counts on by itself."""
        return SteeredRow(self.added, dict(self.changes))


class ActiveSteering:
    """Rows of a batch that are read with vectors added at all of their positions."""

    def __init__(self, rows: Sequence[SteeredRow]) -> None:
        self.rows = tuple(rows)
        layers = sorted({layer for row in rows for layer in row.added})
        self._additions = {layer: _RowHook(_stacked(rows, layer)) for layer in layers}

    def select(self, rows: Sequence[int]) -> ActiveSteering:
        """Return the steering of some of the rows, which go on counting."""
        return ActiveSteering([self.rows[row] for row in rows])

    def read(
        self, model: Model, tokens: Int[Tensor, "batch pos"], cache: KVCache | None = None
    ) -> tuple[KVCache, Float[Tensor, "batch pos d_model"]]:
        """Return the longer cache and the last block's `resid_post` after one pass with the vectors added.

        Raises ReceiptError unless each layer that is steered ran once over all rows and positions.
        """
        for layer, addition in self._additions.items():
            addition.begin(layer, tokens.shape[1])
        hooks: list[Hook] = [(model.resid_post(layer), addition) for layer, addition in self._additions.items()]
        extended, resid = read_on(model, tokens, cache, hooks)
        for layer, addition in self._additions.items():
            self._count(layer, addition)
        return extended, resid

    def _count(self, layer: int, addition: _RowHook) -> None:
        if addition.firings != 1:
            raise _not_as_asked(layer, f"{addition.firings} firings")
        for number, row in enumerate(self.rows):
            if layer in row.added:
                earlier = row.changes.get(layer, ())
                start = int(earlier[-1].positions[-1]) + 1 if earlier else 0
                row.changes[layer] = (*earlier, *addition.changes(number, start))


def added_vectors(model: Model, intervention: Intervention) -> dict[int, Float[Tensor, " d_model"]]:
    """Return the sum of an intervention's injections at each layer of `model`; nothing for any other intervention."""
    total: dict[int, Tensor] = {}
    for term in intervention.terms:
        for layer in term.layers or ():
            amount = term.amount(layer, model)
            total[layer] = total[layer] + amount if layer in total else amount
    return total


def reader_of(model: Model, intervention: Intervention) -> Model:
    """Return the model that reads a text under an intervention: the other one, for a swap whose model is loaded."""
    filler = intervention.filler
    return model if filler is None or filler.model is None else filler.model


def check_everywhere(interventions: Sequence[Intervention]) -> None:
    """Raise UsageError for interventions that cannot act at every position: stored caches, narrowed injections."""
    for intervention in interventions:
        if intervention.filler is not None and intervention.filler.model is None:
            raise UsageError(
                given=f"{intervention.name}: caches that were filled before",
                allowed="clean, injections, and swaps whose model is loaded",
                advice="use mi.Swap with the model that filled them",
            )
        for term in intervention.terms:
            if term.positions is not None or term.segments is not None:
                raise UsageError(
                    given=f"{term.name}: narrowed to {'positions' if term.segments is None else 'segments'}",
                    allowed="injections that act at every position",
                    advice="leave out positions= and segments=",
                )


def _stacked(rows: Sequence[SteeredRow], layer: int) -> Float[Tensor, "batch d_model"]:
    """Return the vector added to each row at one layer; zeros for rows without one."""
    nothing = torch.zeros_like(next(row.added[layer] for row in rows if layer in row.added))
    return torch.stack([row.added.get(layer, nothing) for row in rows])


def _not_as_asked(layer: int, counted: str) -> ReceiptError:
    return ReceiptError(
        given=f"layer {layer}: {counted} in one pass of active steering",
        allowed="one firing, over all rows and positions",
        advice="the model does not run its blocks once: report its architecture",
    )


class _RowHook:
    """The hook of one layer: adds each row's vector at all positions of the pass."""

    def __init__(self, vectors: Float[Tensor, "batch d_model"]) -> None:
        self.vectors, self.live = vectors, vectors.ne(0).any(-1).tolist()
        self.layer, self.n_pos, self.firings = 0, 0, 0
        self.change = self.before = torch.zeros(len(vectors), 0)

    def begin(self, layer: int, n_pos: int) -> None:
        """Forget the last pass; the next has `n_pos` positions."""
        self.layer, self.n_pos, self.firings = layer, n_pos, 0

    def __call__(self, activation: Tensor, /, *, hook: HookPoint) -> Tensor:
        self.firings += 1
        if activation.shape != (len(self.vectors), self.n_pos, self.vectors.shape[1]):
            raise _not_as_asked(self.layer, f"activations shaped {tuple(activation.shape)}")
        self.vectors = self.vectors.to(activation.device)
        changed: Tensor = activation + self.vectors[:, None].to(activation.dtype)
        self.before, self.change = norms_of(activation, changed)
        return changed

    def changes(self, row: int, start: int) -> list[StreamChange]:
        """Return the measured change of one row in the last pass, which began at `start`; none for a row of zeros."""
        if not self.live[row]:
            return []
        places = torch.arange(start, start + self.n_pos)
        return [StreamChange(self.firings, places, self.change[row], self.before[row])]
