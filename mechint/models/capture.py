"""Reading the residual stream, after an optional cache: at chosen positions with no intervention, or going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.base.errors import HookError, LayerRangeError
from mechint.models.cache import KVCache
from mechint.models.model import EMBED_HOOK, Model

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from mechint.models.backends.base import Hook

# The residual stream before the first block, as a layer number; tables label it "embed".
EMBED = -1


def residuals(
    model: Model,
    tokens: Int[Tensor, "batch pos"],
    positions: Sequence[Sequence[int]],
    layers: Sequence[int],
    cache: KVCache | None = None,
) -> Float[Tensor, "layer batch d_model"]:
    """Return `resid_post` of `layers` (EMBED for the stream before block 0), float32, at positions of rows of `tokens`.

    Of several positions it is the mean, of one what stands there. Rows may be padded on the right: causal attention
    keeps padding from mattering to what stands before it.
    """
    check_layers(layers, model.n_layers, lowest=EMBED)
    store: dict[int, Tensor] = {}
    model.forward(tokens, cache, hooks=[_keep(model, layer, positions, store) for layer in sorted(set(layers))])
    if missing := set(layers) - set(store):
        raise HookError(f"layers {sorted(missing)} did not fire", "every layer once", "report this architecture")
    return torch.stack([store[layer].to(model.device) for layer in layers])


def read_on(
    model: Model, tokens: Int[Tensor, "batch pos"], cache: KVCache | None = None, hooks: Sequence[Hook] = ()
) -> tuple[KVCache, Float[Tensor, "batch pos d_model"]]:
    """Return the longer cache and `resid_post` of the last block at all positions of `tokens`.

    `hooks` are set for this pass alone; what they add at the last block is seen.
    """
    outputs: list[Tensor] = []

    def keep(activation: Tensor, /, *, hook: HookPoint) -> None:
        outputs.append(activation)

    extended = model.forward(tokens, cache, hooks=[*hooks, (model.resid_post(model.n_layers - 1), keep)])
    if len(outputs) != 1:
        raise HookError(f"the last layer fired {len(outputs)} times", "every layer once", "report this architecture")
    return extended, outputs[0]


def check_layers(layers: Sequence[int], n_layers: int, lowest: int = 0) -> None:
    """Raise LayerRangeError unless there are layers and each lies in lowest:n_layers."""
    outside = sorted({layer for layer in layers if not lowest <= layer < n_layers})
    if outside or not layers:
        raise LayerRangeError(
            given=f"layers {outside or 'none'}",
            allowed=f"layers 0:{n_layers} of this model",
            advice="choose layers inside the model; an empty or reversed range holds none",
        )


def _keep(model: Model, layer: int, positions: Sequence[Sequence[int]], store: dict[int, Tensor]) -> Hook:
    def hook_fn(activation: Tensor, /, *, hook: HookPoint) -> None:
        means = [row[list(at)].float().mean(0) for row, at in zip(activation, positions, strict=True)]
        store[layer] = torch.stack(means)

    return (EMBED_HOOK if layer == EMBED else model.resid_post(layer)), hook_fn
