"""Adding vectors to the residual stream of some rows and positions, and counting what was touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.base.errors import ReceiptError
from mechint.interventions.receipts import StreamChange

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from mechint.models.backends.base import HookFn


@dataclass(frozen=True)
class Term:
    """An addition to one row: a vector for each layer, at the positions where `positions` is True."""

    row: int
    positions: Bool[Tensor, " pos"]
    vectors: Mapping[int, Float[Tensor, " d_model"]]


class Steering:
    """Terms for a batch of rows, the hooks that add them, and the counts of their firings and changes."""

    def __init__(self, n_rows: int, n_pos: int, d_model: int) -> None:
        self.shape = (n_rows, n_pos, d_model)
        self.terms: list[Term] = []
        self._additions: dict[int, _TermHook] = {}

    def add(self, term: Term) -> None:
        """Add a term; several for one row and layer are summed."""
        self.terms.append(term)

    def hooks(self) -> dict[int, HookFn]:
        """Return one hook for each layer that is to be touched, and forget earlier counts."""
        layers = sorted({layer for term in self.terms for layer in term.vectors})
        self._additions = {layer: _TermHook(layer, self.shape, self._at(layer)) for layer in layers}
        return dict(self._additions)

    def apply(self, layer: int, activation: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """Return activations of one layer with its terms added, counted as a hook counts."""
        self._additions[layer] = _TermHook(layer, self.shape, self._at(layer))
        return self._additions[layer].add(activation)

    def apply_to(self, layer: int, rows: Sequence[Float[Tensor, "pos d_model"]]) -> None:
        """Add the terms of one layer to the rows themselves, counted as a hook counts."""
        self._additions[layer] = _TermHook(layer, self.shape, self._at(layer))
        self._additions[layer].add_to(rows)

    def check(self) -> None:
        """Raise ReceiptError unless each hook fired once, on the whole batch, and touched exactly its terms' places."""
        for layer, addition in self._additions.items():
            expected = self._expected(layer)
            if addition.firings != 1 or not torch.equal(addition.touched, expected):
                raise ReceiptError(
                    given=f"layer {layer}: the hook fired {addition.firings} times and touched "
                    f"{int(addition.touched.sum())} of its (row, position) pairs",
                    allowed=f"one firing that touches {int(expected.sum())} pairs, as the interventions ask",
                    advice="the model does not run its blocks once, over all positions: report its architecture",
                )

    def changes(self, row: int) -> dict[int, StreamChange]:
        """Return the measured change of `row` at each layer that its own terms name."""
        layers = sorted({layer for term in self.terms if term.row == row for layer in term.vectors})
        return {layer: self._additions[layer].changes(row) for layer in layers}

    def _at(self, layer: int) -> list[Term]:
        return [term for term in self.terms if layer in term.vectors]

    def _expected(self, layer: int) -> Bool[Tensor, "row pos"]:
        """Pairs that must change: where the terms' sum is not zero, worked out apart from the hook's own arithmetic."""
        expected = torch.zeros(self.shape[:2], dtype=torch.bool)
        for row in range(self.shape[0]):
            terms = [term for term in self._at(layer) if term.row == row]
            if not terms:
                continue
            if len(terms) == 1:  # as in most tables; telling patterns of positions apart takes time
                expected[row] = terms[0].positions & bool(terms[0].vectors[layer].ne(0).any())
                continue
            masks = torch.stack([term.positions for term in terms])
            patterns, which = torch.unique(masks, dim=1, return_inverse=True)
            sums = [torch.stack([term.vectors[layer] for term in terms])[on].sum(0) for on in patterns.T]
            expected[row] = torch.tensor([bool(total.ne(0).any()) for total in sums])[which]
        return expected


def norms_of(
    activation: Float[Tensor, "*batch pos d_model"], changed: Float[Tensor, "*batch pos d_model"]
) -> tuple[Float[Tensor, "*batch pos"], Float[Tensor, "*batch pos"]]:
    """Return the norms of the stream before an addition and of its change by it, in float32."""
    before = torch.linalg.vector_norm(activation, dim=-1, dtype=torch.float32)
    change = (changed.float() - activation.float()).norm(dim=-1)
    return before.cpu(), change.cpu()


class _TermHook:
    """The hook of one layer: adds each term's vector at its row and positions.

    Each row is read and written where something is added to it, and nowhere else: the stream is the largest thing in a
    pass, and a sum over all of it would move it through memory several times.
    """

    def __init__(self, layer: int, shape: tuple[int, int, int], terms: list[Term]) -> None:
        self.layer, self.shape = layer, shape
        self.terms: dict[int, list[Term]] = {}
        for term in terms:
            self.terms.setdefault(term.row, []).append(term)
        self.firings = 0
        self.touched: Bool[Tensor, "row pos"] = torch.zeros(shape[:2], dtype=torch.bool)
        self.change, self.before = torch.zeros(shape[:2]), torch.zeros(shape[:2])

    def __call__(self, activation: Tensor, /, *, hook: HookPoint) -> Tensor:
        return self.add(activation)

    def add(self, activation: Tensor) -> Tensor:
        """Return a copy of the activation with all terms added."""
        if tuple(activation.shape) != self.shape:
            raise _shaped_otherwise(activation.shape, self.shape)
        changed = activation.clone()
        self.add_to([changed[row] for row in range(len(changed))])
        return changed

    def add_to(self, rows: Sequence[Float[Tensor, "pos d_model"]]) -> None:
        """Add all terms to the rows themselves."""
        self.firings += 1
        if len(rows) != self.shape[0] or any(tuple(row.shape) != self.shape[1:] for row in rows):
            raise _shaped_otherwise((len(rows), *rows[0].shape), self.shape)
        for number, terms in self.terms.items():
            self._add_to_row(number, rows[number], terms)

    def _add_to_row(self, number: int, row: Float[Tensor, "pos d_model"], terms: Sequence[Term]) -> None:
        places = torch.stack([term.positions for term in terms]).any(0).nonzero()[:, 0]
        if not len(places):
            return
        first, last = int(places[0]), int(places[-1])
        where = slice(first, last + 1) if last - first + 1 == len(places) else places.to(row.device)
        delta = self._delta(terms, places)
        before = row[where]
        changed = before + delta.to(row.device, row.dtype)
        self.before[number, places], self.change[number, places] = norms_of(before.detach(), changed.detach())
        self.touched[number, places] = delta.ne(0).any(-1).cpu()
        row[where] = changed

    def changes(self, row: int) -> StreamChange:
        """Return the measured change of one row."""
        places = self.touched[row].nonzero()[:, 0]
        return StreamChange(self.firings, places, self.change[row][places], self.before[row][places])

    def _delta(self, terms: Sequence[Term], places: Int[Tensor, " place"]) -> Float[Tensor, "sum d_model"]:
        """Return the sum of the terms at each of some places, or once for all of them where it is the same."""
        if all(bool(term.positions[places].all()) for term in terms):
            return torch.stack([term.vectors[self.layer] for term in terms]).sum(0, keepdim=True)
        delta = torch.zeros(len(places), self.shape[2], device=terms[0].vectors[self.layer].device)
        for term in terms:
            delta[term.positions[places]] += term.vectors[self.layer]
        return delta


def _shaped_otherwise(shape: Sequence[int], expected: Sequence[int]) -> ReceiptError:
    return ReceiptError(
        given=f"activations shaped {tuple(shape)}", allowed=f"{tuple(expected)}", advice="report this architecture"
    )
