"""TransformerLens' cache of one block; imported late, since it needs TransformerLens."""

from __future__ import annotations

from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry

from mechint.backends.blocks import KeysFound, KeyValues


class Entry(TransformerLensKeyValueCacheEntry):  # type: ignore[misc]
    """The cache of one block: gives its attention the past and the new positions, and keeps the new ones."""

    new: KeyValues
    keys_only: bool = False

    def append(self, new_keys: Tensor, new_values: Tensor) -> KeyValues:
        """Return keys and values of all positions. Raises KeysFound if nothing else is wanted."""
        self.new = (new_keys.transpose(1, 2), new_values.transpose(1, 2))
        if self.keys_only:
            raise KeysFound
        whole: KeyValues = super().append(new_keys, new_values)
        return whole


def entry_of(model: HookedTransformer, rows: int, past: KeyValues | None, *, keys_only: bool) -> Entry:
    """Return the cache of a block for some rows, with their past (`row heads past d_head`)."""
    blank = TransformerLensKeyValueCacheEntry.init_cache_entry(model.cfg, model.W_U.device, rows)
    keys, values = (blank.past_keys, blank.past_values) if past is None else (side.transpose(1, 2) for side in past)
    entry = Entry(keys, values)
    entry.keys_only = keys_only
    return entry
