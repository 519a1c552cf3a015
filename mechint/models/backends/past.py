"""The caches of rows before a pass: pieces of earlier passes, put together only where attention asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

KeyValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Piece:
    """The caches of an earlier pass for a slice of rows: `source` says which of its rows each of them has.

    It lies at positions `start` and on.
    """

    cached: KeyValues
    source: Sequence[int]
    rows: slice
    start: int


@runtime_checkable
class SharedPrompts(Protocol):
    """Attention to prompts that several rows have before their own past."""

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scaling: float | None) -> Tensor:
        """Return the output of attention to the prompts, and to the keys and values of the rows themselves."""
        ...


@dataclass(frozen=True)
class Past:
    """The first `n_pos` positions of some rows; `padding` says how many of them are empty, by slices of rows.

    Where rows share prompts (`shared`, if the blocks can), these come before the past and are none of its positions.
    """

    n_pos: int
    pieces: Sequence[Piece]
    padding: Sequence[tuple[slice, int]] = ()
    shared: SharedPrompts | None = None

    def joined(self, new: KeyValues) -> KeyValues:
        """Return keys and values (`row heads pos d_head`) of the past and the new positions.

        A past is long and joined in every block, so it is written once, straight to where it is attended to.
        """
        keys, values = new
        return self._joined(0, keys), self._joined(1, values)

    def _joined(
        self, side: int, new: Float[Tensor, "row heads pos d_head"]
    ) -> Float[Tensor, "row heads all_pos d_head"]:
        n_rows, n_heads, n_new, width = new.shape
        whole = new.new_empty(n_rows, n_heads, self.n_pos + n_new, width)
        whole[:, :, self.n_pos :] = new
        for rows, count in self.padding:  # attention gives these no weight, but not even a zero times nan is zero
            whole[rows, :, :count] = 0
        for piece in self.pieces:
            cached = piece.cached[side]
            whole[piece.rows, :, piece.start : piece.start + cached.shape[2]] = take(cached, piece.source)
        return whole


def take(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """Return some rows; without copying where these are all rows in order, or one row over and over."""
    if len(rows) == len(tensor) and all(row == index for index, row in enumerate(rows)):
        return tensor
    if len(set(rows)) == 1:
        return tensor[rows[0] : rows[0] + 1].expand(len(rows), *tensor.shape[1:])
    if rows[-1] - rows[0] == len(rows) - 1 and all(row == rows[0] + index for index, row in enumerate(rows)):
        return tensor[rows[0] : rows[-1] + 1]
    return tensor.index_select(0, torch.tensor(rows, device=tensor.device))
