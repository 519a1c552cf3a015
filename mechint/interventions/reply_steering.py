"""Vectors added to replies while they are said, a row of a batch each, counted and measured step by step.

Rows come and go: a row that has ended makes place for the last one. What is meant to happen to a row is kept apart from
the tensors that are added, and each step is held against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.base.errors import ReceiptError
from mechint.interventions.addition import norms_of
from mechint.interventions.receipts import StreamChange

Added = Mapping[int, Float[Tensor, " d_model"]]


@dataclass
class _SteeredReply:
    """One row: the vectors that are not zero, by layer, and at how many positions each was counted."""

    added: Added
    counts: dict[int, int]


class ReplySteering:
    """Additions to up to `n_rows` rows that are read one token at a time, at `layers`, for `n_steps` tokens at most."""

    def __init__(self, layers: Sequence[int], n_rows: int, n_steps: int, d_model: int) -> None:
        self.place = {layer: place for place, layer in enumerate(sorted(layers))}
        self.rows: list[_SteeredReply] = []
        self._vectors = {layer: torch.zeros(n_rows, d_model) for layer in self.place}
        # Norms of the change, and of the stream before it.
        self._norms: Float[Tensor, "2 layer row step"] = torch.zeros(2, len(self.place), n_rows, max(1, n_steps))

    def admit(self, added: Added) -> None:
        """Let a row speak, with vectors by layer; zeros are none."""
        live = _live(added)
        row = len(self.rows)
        self.rows.append(_SteeredReply(live, dict.fromkeys(live, 0)))
        for layer, vectors in self._vectors.items():
            vectors[row] = live[layer].to(vectors) if layer in live else 0.0

    def remove(self, row: int) -> None:
        """Forget a row; the last takes its place."""
        last = len(self.rows) - 1
        self.rows[row] = self.rows[last]
        self.rows.pop()
        for vectors in self._vectors.values():
            vectors[row] = vectors[last]
        self._norms[:, :, row] = self._norms[:, :, last]

    def add(
        self, layer: int, activation: Float[Tensor, "row 1 d_model"], steps: Int[Tensor, " row"]
    ) -> Float[Tensor, "row 1 d_model"]:
        """Return the stream with each row's vector added; `steps` says which token of its reply each row reads.

        Raises ReceiptError if a row was changed that should not be, or not all that should be were added to.
        """
        place = self.place.get(layer)
        if place is None:
            return activation
        n_rows = len(self.rows)
        if self._vectors[layer].device != activation.device:
            self._vectors[layer] = self._vectors[layer].to(activation.device)
        delta = self._vectors[layer][:n_rows, None]
        changed = activation + delta.to(activation.dtype)
        self._check(layer, activation, changed, delta)
        before, change = norms_of(activation, changed)
        self._norms[0, place, torch.arange(n_rows), steps] = change[:, 0]
        self._norms[1, place, torch.arange(n_rows), steps] = before[:, 0]
        for row in self.rows:
            if layer in row.counts:
                row.counts[layer] += 1
        return changed

    def changes(self, row: int, added: Added, start: int, n_read: int) -> dict[int, list[StreamChange]]:
        """Return the measured changes of a row that has read `n_read` tokens, the first of them at position `start`.

        Raises ReceiptError unless each vector of `added`, and nothing else, was added at each of these positions.
        """
        steered, positions = self.rows[row], torch.arange(start, start + n_read)
        meant = _live(added)
        if meant.keys() != steered.added.keys():
            raise _unintended(sorted({*meant, *steered.added})[0], "the vectors of another reply were added")
        changes: dict[int, list[StreamChange]] = {}
        for layer, count in steered.counts.items():
            if not torch.equal(meant[layer], steered.added[layer]):
                raise _unintended(layer, "the vector of another reply was added")
            if count != n_read:
                raise _unintended(layer, f"{count} of the {n_read} tokens of a reply were steered")
            change, before = self._norms[:, self.place[layer], row, :n_read].clone()
            changes[layer] = [StreamChange(1, positions, change, before)] if n_read else []
        return changes

    def _check(self, layer: int, activation: Tensor, changed: Tensor, delta: Tensor) -> None:
        expected = torch.tensor([layer in row.added for row in self.rows])
        if activation.shape != (len(self.rows), 1, delta.shape[-1]):
            raise _unintended(layer, f"activations shaped {tuple(activation.shape)}")
        # What is no number is not equal to itself either; the readout refuses it.
        moved = (changed.ne(activation) & activation.eq(activation)).flatten(1).any(-1).cpu()
        added = delta.ne(0).flatten(1).any(-1).cpu()
        if not torch.equal(added, expected) or bool((moved & ~expected).any()):
            raise _unintended(layer, f"{int(added.sum())} rows were added to, and {int(moved.sum())} changed")


def _live(added: Added) -> Added:
    """Return the vectors that are not zero."""
    return {layer: vector for layer, vector in added.items() if bool(vector.ne(0).any())}


def _unintended(layer: int, counted: str) -> ReceiptError:
    return ReceiptError(
        given=f"layer {layer}: {counted}",
        allowed="the rows that are steered there, once for each token that they read",
        advice="the model does not run its blocks once: report its architecture",
    )
