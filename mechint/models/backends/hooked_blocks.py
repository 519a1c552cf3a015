"""A HookedTransformer run block by block."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.models.backends.blocks import KeysFound, attended, taken, tracked
from mechint.models.backends.past import KeyValues, Past
from mechint.models.backends.windows import Windows

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


class HookedBlocks:
    """Runs the blocks of a HookedTransformer."""

    def __init__(self, model: HookedTransformer) -> None:
        self.model = model

    @property
    def windows(self) -> Windows:
        """How far attention of each block looks back."""
        cfg = self.model.cfg
        kinds = (cfg.attn_types or []) if cfg.use_local_attn else []
        sizes = [cfg.window_size if kind == "local" else None for kind in kinds]
        return Windows(tuple(sizes) or (None,) * cfg.n_layers)

    @property
    def packs(self) -> bool:
        """False: TransformerLens makes the positions and the mask of a row itself."""
        return False

    def packed(self, continuations: Sequence[Sequence[int]], past: int) -> HookedPass:
        """Refuse; see `packs`."""
        raise NotImplementedError

    @property
    def shares_prompts(self) -> bool:
        """Whether rows may share a prompt: its attention knows nothing of that."""
        return False

    def begin(self, tokens: Int[Tensor, "row pos"], past: Int[Tensor, " row"]) -> HookedPass:
        """Embed the tokens at their positions."""
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        model, longest = self.model, int(past.max())
        device = model.W_U.device
        mask = attended(tokens, past)
        if mask is None:
            mask = torch.ones((len(tokens), longest + tokens.shape[1]), dtype=torch.bool)
        native = TransformerLensKeyValueCache.init_cache(model.cfg, device, len(tokens))
        for entry in native.entries:  # embedding asks only how long they are
            rows, _, n_heads, d_head = entry.past_keys.shape
            entry.past_keys = entry.past_keys.new_zeros(1, 1, 1, 1).expand(rows, longest, n_heads, d_head)
        native.previous_attention_mask = mask[:, :longest].to(device, torch.int)
        with torch.no_grad():
            resid, _, shortformer, whole = model.input_to_embed(
                tokens.to(device), attention_mask=mask[:, longest:].to(device).long(), past_kv_cache=native
            )
        return HookedPass(resid, model, shortformer, whole)


@dataclass
class HookedPass:
    """One pass of a HookedTransformer."""

    resid: Float[Tensor, "row pos d_model"]
    model: HookedTransformer
    shortformer: Tensor | None
    mask: Tensor

    def block(
        self,
        layer: int,
        resid: Float[Tensor, "out pos d_model"],
        rows: Int[Tensor, " out"],
        past: Past | None,
        *,
        keys_only: bool = False,
    ) -> tuple[Float[Tensor, "out pos d_model"] | None, KeyValues]:
        """Return `resid_post` of a block (None if `keys_only`), and the keys and values of the new positions."""
        from mechint.models.backends.hooked_cache import entry_of

        entry = entry_of(self.model, len(resid), past, keys_only=keys_only)
        out: Tensor | None = None
        with torch.set_grad_enabled(tracked(resid, past)), suppress(KeysFound):
            out = self.model.blocks[layer](
                resid,
                past_kv_cache_entry=entry,
                shortformer_pos_embed=taken(self.shortformer, rows, len(self.resid)),
                attention_mask=self.mask.index_select(0, rows.to(self.mask.device)),
            )
        return out, entry.new
