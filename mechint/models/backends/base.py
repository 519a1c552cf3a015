"""The interface of a backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.base.files import JSON
from mechint.models.backends.blocks import Blocks
from mechint.models.backends.context import ContextLimit
from mechint.models.cache import KVCache
from mechint.models.readout import Readout

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint


@runtime_checkable
class HookFn(Protocol):
    """A TransformerLens hook: gets an activation, returns a replacement or None to leave it."""

    def __call__(self, activation: Tensor, /, *, hook: HookPoint) -> Tensor | None: ...


Hook = tuple[str, HookFn]


@runtime_checkable
class Backend(Protocol):
    """A causal language model that fills and continues KV caches under scoped hooks."""

    kind: str
    n_layers: int
    d_model: int
    d_mlp: int
    d_vocab: int
    context: ContextLimit
    device: torch.device
    dtype: torch.dtype
    readout: Readout

    @property
    def blocks(self) -> Blocks:
        """The model, run block by block."""
        ...

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        cache: KVCache,
        mask: Bool[Tensor, "batch pos"] | None,
        hooks: Sequence[Hook],
    ) -> KVCache:
        """Run `tokens` after `cache` and return the longer cache; `mask` is False at padding among `tokens`."""
        ...

    def logits(
        self, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the model's own logits, in its own dtype, without a cache."""
        ...

    def hook_names(self) -> frozenset[str]:
        """Names that a hook can be set on."""
        ...

    def live_hooks(self) -> list[str]:
        """Names of hook points that carry a hook right now."""
        ...

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every weight."""
        ...

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every other tensor that the model computes with."""
        ...

    def shared(self) -> Iterator[Tensor]:
        """Every tensor that `blocks` and `readout` took from the model when it was loaded."""
        ...

    def settings(self) -> dict[str, JSON]:
        """The settings, besides the tensors, that decide what the model computes."""
        ...


def extended_mask(
    cache: KVCache, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None
) -> Bool[Tensor, "batch all_pos"] | None:
    """Attention mask over cached and new positions, or None where nothing is padded."""
    if mask is None and cache.mask is None:
        return None
    past = tokens.new_ones((len(tokens), cache.n_pos), dtype=torch.bool) if cache.mask is None else cache.mask
    new = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(tokens.device)
    return torch.cat([past.to(tokens.device), new], dim=1)
