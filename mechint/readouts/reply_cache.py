"""The caches of replies that are being said: one buffer for each block, whose rows all end at one place.

A row that is let in is laid so that its last token stands before the place that is written next; what lies before its
first is masked. So rows of any length share a pass, distances between positions are what they should be, and a pass
copies nothing: it writes one column. A row that ends makes place for the last one. A prompt that many rows go on from
can be kept once, outside of the buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.models.backends.past import KeyValues, Past
from mechint.models.backends.shared_prompts import Prompt, PromptAttention
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


_NO_PROMPT = KVCache()


class _Step:
    """What all layers of one pass have in common: the longest row, and which rows share which prompt."""

    def __init__(self, own: Sequence[int], prompts: Sequence[KVCache]) -> None:
        self.own, self.prompts, self.longest = torch.tensor(own), prompts, max(own)

    def attention(self, layer: int) -> PromptAttention:
        """Return the attention of rows to their prompts, and to those of their own positions that are theirs."""
        shared = [Prompt((cache.keys[layer], cache.values[layer]), rows) for cache, rows in self._groups.items()]
        return PromptAttention(shared, self._visible)

    @cached_property
    def _groups(self) -> dict[KVCache, Int[Tensor, " row"]]:
        rows: dict[KVCache, list[int]] = {}
        for row, cache in enumerate(self.prompts):
            rows.setdefault(cache, []).append(row)
        return {cache: torch.tensor(of_cache) for cache, of_cache in rows.items()}

    @cached_property
    def _visible(self) -> Bool[Tensor, "row own"]:
        return torch.arange(self.longest + 1) >= (self.longest - self.own)[:, None]


class ReplyCaches:
    """Caches of up to `n_rows` rows of up to `n_pos` positions, after prompts of up to `n_prompt`.

    If prompts are `shared`, rows keep only what comes after them.
    """

    def __init__(self, n_rows: int, n_pos: int, n_prompt: int, *, shared: bool = False) -> None:
        self.n_rows, self.n_pos, self.n_prompt, self.shared = n_rows, n_pos, 0 if shared else n_prompt, shared
        self._own: list[int] = []
        self._prompts: list[KVCache] = []
        self._end = self.n_prompt
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._step: _Step | None = None

    @property
    def n_bytes(self) -> int:
        """The bytes of all buffers."""
        return sum(side.numel() * side.element_size() for buffers in self._buffers for side in buffers)

    @property
    def lengths(self) -> list[int]:
        """How many positions each row has, its prompt among them."""
        return [prompt.n_pos + own for prompt, own in zip(self._prompts, self._own, strict=True)]

    def admit(self, prompt: KVCache) -> None:
        """Let a row in, with the cache of its prompt (one row)."""
        if not self._buffers:
            self._buffers = [(self._empty(k), self._empty(v)) for k, v in zip(prompt.keys, prompt.values, strict=True)]
        copied = prompt.crop(0) if self.shared else prompt
        row, start = len(self._own), self._end - copied.n_pos
        for buffers, cached in zip(self._buffers, zip(copied.keys, copied.values, strict=True), strict=True):
            for buffer, side in zip(buffers, cached, strict=True):
                # Attention gives the masked no weight, but not even a zero times nan is zero.
                buffer[row, :, :start] = 0
                buffer[row, :, start : self._end] = side[0]
        self._own.append(copied.n_pos)
        # What was copied need not be held: of an empty prompt nothing is counted.
        self._prompts.append(prompt if self.shared else _NO_PROMPT)
        self._step = None

    def remove(self, row: int) -> None:
        """Forget a row; the last takes its place."""
        last = len(self._own) - 1
        if row < last:
            for buffers in self._buffers:
                for buffer in buffers:
                    buffer[row, :, : self._end] = buffer[last, :, : self._end]
        self._own[row], self._prompts[row] = self._own[last], self._prompts[last]
        self._own.pop()
        self._prompts.pop()
        self._step = None

    def past(self, layer: int) -> Past:
        """Return the past of all rows at a layer, with room for one position."""
        if self._step is None:
            self._step = _Step(self._own, self._prompts)
        longest = self._step.longest
        keys, values = self._buffers[layer]
        places = (slice(len(self._own)), slice(None), slice(self._end - longest, self._end + 1))
        shared = self._step.attention(layer) if self.shared else None
        return OpenPast(n_pos=longest, pieces=(), keys=keys[places], values=values[places], shared=shared)

    def advance(self) -> None:
        """Count the position that every row has just read."""
        self._end += 1
        self._own = [length + 1 for length in self._own]
        self._step = None
        if self._end == self.n_pos:
            self._move_back()

    def _move_back(self) -> None:
        """Move all rows to the left, as far as the longest of them and of the prompts to come allows."""
        end = max(*self._own, self.n_prompt)
        for buffers in self._buffers:
            for buffer in buffers:
                rows = buffer[: len(self._own)]
                rows[:, :, :end] = rows[:, :, self._end - end : self._end].clone()
        self._end = end

    def _empty(self, like: Tensor) -> Tensor:
        _, n_heads, _, width = like.shape
        return torch.zeros(self.n_rows, n_heads, self.n_pos, width, dtype=like.dtype, device=like.device)
