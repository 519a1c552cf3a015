"""The caches of replies that are being said: one buffer for each block, whose rows all end at one place.

A row that is let in is laid so that its last token stands before the place that is written next; what lies before its
first is masked. So rows of any length share a pass, distances between positions are what they should be, and a pass
copies nothing: it writes one column. A row that ends makes place for the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.models.backends.past import KeyValues, Past
from mechint.models.cache import KVCache


@dataclass(frozen=True, kw_only=True)
class OpenPast(Past):
    """The past of rows in buffers that have a place for the new position."""

    keys: Float[Tensor, "row heads all_pos d_head"]
    values: Float[Tensor, "row heads all_pos d_head"]

    def joined(self, new: KeyValues) -> KeyValues:
        """Write new keys and values behind the past, and return both, without copying the past."""
        self.keys[:, :, self.n_pos :] = new[0]
        self.values[:, :, self.n_pos :] = new[1]
        return self.keys, self.values


class ReplyCaches:
    """Caches of up to `n_rows` rows of up to `n_pos` positions, after prompts of up to `n_prompt`."""

    def __init__(self, n_rows: int, n_pos: int, n_prompt: int) -> None:
        self.n_rows, self.n_pos, self.n_prompt = n_rows, n_pos, n_prompt
        self.lengths: list[int] = []
        self._end = n_prompt
        self._buffers: list[tuple[Tensor, Tensor]] = []

    @property
    def n_bytes(self) -> int:
        """The bytes of all buffers."""
        return sum(side.numel() * side.element_size() for buffers in self._buffers for side in buffers)

    def admit(self, prompt: KVCache) -> None:
        """Let a row in, with the cache of its prompt (one row)."""
        if not self._buffers:
            self._buffers = [(self._empty(k), self._empty(v)) for k, v in zip(prompt.keys, prompt.values, strict=True)]
        row, start = len(self.lengths), self._end - prompt.n_pos
        for buffers, cached in zip(self._buffers, zip(prompt.keys, prompt.values, strict=True), strict=True):
            for buffer, side in zip(buffers, cached, strict=True):
                # Attention gives the masked no weight, but not even a zero times nan is zero.
                buffer[row, :, :start] = 0
                buffer[row, :, start : self._end] = side[0]
        self.lengths.append(prompt.n_pos)

    def remove(self, row: int) -> None:
        """Forget a row; the last takes its place."""
        last = len(self.lengths) - 1
        if row < last:
            for buffers in self._buffers:
                for buffer in buffers:
                    buffer[row, :, : self._end] = buffer[last, :, : self._end]
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def past(self, layer: int) -> Past:
        """Return the past of all rows at a layer, with room for one position."""
        longest = max(self.lengths)
        keys, values = self._buffers[layer]
        places = (slice(len(self.lengths)), slice(None), slice(self._end - longest, self._end + 1))
        return OpenPast(n_pos=longest, pieces=(), keys=keys[places], values=values[places])

    def advance(self) -> None:
        """Count the position that every row has just read."""
        self._end += 1
        self.lengths = [length + 1 for length in self.lengths]
        if self._end == self.n_pos:
            self._move_back()

    def _move_back(self) -> None:
        """Move all rows to the left, as far as the longest of them and of the prompts to come allows."""
        end = max(*self.lengths, self.n_prompt)
        for buffers in self._buffers:
            for buffer in buffers:
                rows = buffer[: len(self.lengths)]
                rows[:, :, :end] = rows[:, :, self._end - end : self._end].clone()
        self._end = end

    def _empty(self, like: Tensor) -> Tensor:
        _, n_heads, _, width = like.shape
        return torch.zeros(self.n_rows, n_heads, self.n_pos, width, dtype=like.dtype, device=like.device)
