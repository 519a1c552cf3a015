"""The writes of single attention heads into the residual stream, by TransformerLens' own arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.models.backends.base import Backend
from mechint.models.backends.bridge import BridgeBackend
from mechint.models.backends.hooked import HookedBackend


@torch.no_grad()
def head_outputs(
    backend: Backend, z: Mapping[int, Float[Tensor, "row head d_head"]]
) -> list[tuple[Float[Tensor, "row head d_model"], Float[Tensor, " d_model"]]] | None:
    """Return each head's write (`hook_z` through W_O), and b_O, for every layer, in float32.

    None where TransformerLens has no W_O by heads: weights that cannot be read (quantised), or attention of another
    kind. Whether these sum to what attention writes is for the caller to check: a norm may follow, or an adapter.
    """
    from transformer_lens import ActivationCache

    if not isinstance(backend, BridgeBackend | HookedBackend):
        return None
    model = backend.handle
    attention = [block.attn for block in model.blocks]
    try:
        weights = [attn.W_O for attn in attention]
        if any(weight.shape[:2] != z[layer].shape[1:] for layer, weight in enumerate(weights)):
            return None
        names = {
            f"blocks.{layer}.attn.hook_z": z[layer].to(weight.device, torch.float32)
            for layer, weight in enumerate(weights)
        }
        cache = ActivationCache(names, model)
        cache.compute_head_results()
    except (AttributeError, NotImplementedError):
        return None
    biases = [_bias(attn, backend.d_model) for attn in attention]
    return [(cache["result", layer, "attn"], bias) for layer, bias in enumerate(biases)]


def _bias(attention: torch.nn.Module, d_model: int) -> Float[Tensor, " d_model"]:
    bias = getattr(attention, "b_O", None)
    return torch.zeros(d_model) if bias is None else bias.detach().float()
