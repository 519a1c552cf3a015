"""TransformerLens' cache of one block; imported late, since it needs TransformerLens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry

from mechint.models.backends.blocks import KeysFound
from mechint.models.backends.past import KeyValues, Past

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


class Entry(TransformerLensKeyValueCacheEntry):  # type: ignore[misc]
    """The cache of one block: gives its attention the past and the new positions, and keeps the new ones."""

    new: KeyValues
    past: Past | None = None
    keys_only: bool = False

    def append(self, new_keys: Tensor, new_values: Tensor) -> KeyValues:
        """Return keys and values of all positions. Raises KeysFound if nothing else is wanted."""
        self.new = (new_keys.transpose(1, 2), new_values.transpose(1, 2))
        if self.keys_only:
            raise KeysFound
        if self.past is None:
            return new_keys, new_values
        keys, values = self.past.joined(self.new)
        return keys.transpose(1, 2), values.transpose(1, 2)


def entry_of(model: HookedTransformer, rows: int, past: Past | None, *, keys_only: bool) -> Entry:
    """Return the cache of a block for some rows with a past; all that it shows of that is how long it is."""
    n_heads, n_pos = model.cfg.n_key_value_heads or model.cfg.n_heads, 0 if past is None else past.n_pos
    length = model.W_U.new_zeros(1, 1, 1, 1).expand(rows, n_pos, n_heads, model.cfg.d_head)
    entry = Entry(length, length)
    entry.past, entry.keys_only = past, keys_only
    return entry
