"""Adding vectors to the residual stream of some rows and positions, and counting what was touched."""

from __future__ import annotations

from collections.abc import Mapping
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
    activation: Float[Tensor, "row pos d_model"], changed: Float[Tensor, "row pos d_model"]
) -> tuple[Float[Tensor, "row pos"], Float[Tensor, "row pos"]]:
    """Return the norms of the stream before an addition and of its change by it, in float32."""
    before = torch.linalg.vector_norm(activation, dim=-1, dtype=torch.float32)
    change = (changed.float() - activation.float()).norm(dim=-1)
    return before.cpu(), change.cpu()


class _TermHook:
    """The hook of one layer: adds each term's vector at its row and positions."""

    def __init__(self, layer: int, shape: tuple[int, int, int], terms: list[Term]) -> None:
        self.layer, self.shape = layer, shape
        self.rows: Int[Tensor, " term"] = torch.tensor([term.row for term in terms])
        self.positions: Bool[Tensor, "term pos"] = torch.stack([term.positions for term in terms])
        self.vectors: Float[Tensor, "term d_model"] = torch.stack([term.vectors[layer] for term in terms])
        self.firings = 0
        self.touched: Bool[Tensor, "row pos"] = torch.zeros(shape[:2], dtype=torch.bool)
        self.change = self.before = torch.zeros(shape[:2])

    def __call__(self, activation: Tensor, /, *, hook: HookPoint) -> Tensor:
        return self.add(activation)

    def add(self, activation: Tensor) -> Tensor:
        self.firings += 1
        if tuple(activation.shape) != self.shape:
            raise ReceiptError(
                given=f"activations shaped {tuple(activation.shape)}",
                allowed=f"{self.shape}",
                advice="report this architecture",
            )
        delta = self._delta(activation)
        changed = activation + delta.to(activation.dtype)
        self.touched = delta.ne(0).any(-1).cpu()
        del delta  # as large as the stream itself
        self.before, self.change = norms_of(activation, changed)
        return changed

    def changes(self, row: int) -> StreamChange:
        """Return the measured change of one row."""
        places = self.touched[row].nonzero()[:, 0]
        return StreamChange(self.firings, places, self.change[row][places], self.before[row][places])

    def _delta(self, activation: Tensor) -> Float[Tensor, "row pos d_model"]:
        device = activation.device
        spread = self.positions.to(device)[..., None] * self.vectors.to(device)[:, None, :]
        return torch.zeros(self.shape, device=device).index_add_(0, self.rows.to(device), spread)
