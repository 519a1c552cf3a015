"""Hugging Face caches for running single blocks; imported late, since it needs transformers."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from mechint.models.backends.blocks import KeysFound
from mechint.models.backends.past import KeyValues, Past


class Appending(DynamicCache):  # type: ignore[misc]
    """The cache of one block: gives its attention the past and the new positions, and keeps the new ones."""

    def __init__(self, past: Past | None, *, keys_only: bool) -> None:
        super().__init__()
        self._past, self._keys_only = past, keys_only
        self.new: KeyValues | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> KeyValues:
        """Return keys and values of all positions. Raises KeysFound if nothing else is wanted."""
        self.new = (key_states, value_states)
        if self._keys_only:
            raise KeysFound
        return self.new if self._past is None else self._past.joined(self.new)


def pretended(n_pos: int, n_layers: int) -> DynamicCache:
    """Return a cache that only looks as if each layer held `n_pos` positions."""
    cache = DynamicCache()
    if n_pos:
        nothing = torch.zeros(1, 1, 1, 1).expand(1, 1, n_pos, 1)
        for _ in range(n_layers):
            layer = DynamicLayer()
            layer.keys, layer.values, layer.is_initialized = nothing, nothing, True
            cache.layers.append(layer)
    return cache
