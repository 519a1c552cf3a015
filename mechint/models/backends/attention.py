"""Attention for running single blocks after a past, on CPUs.

transformers repeats grouped keys and values for every query head as soon as there is a mask, since kernels on GPUs want
it so. The kernel for CPUs takes them as they are, and copying a long past costs as much as attending to it. It also
computes everything that a mask hides, twice the work in a long pass after a short past: so no mask is made where each
position sees all before it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from mechint.models.backends.past import SharedPrompts

NAME = "sdpa_grouped"


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prompts: SharedPrompts | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Return the output of transformers' fused attention, without copies of keys and values for each query head.

    Without a mask, each position sees all before it and itself, the past among them. Prompts that rows share are
    attended to by themselves; the mask then is theirs who know them.
    """
    if shared_prompts is not None:
        return shared_prompts.attend(query, key, value, scaling), None
    asks_more = any(kwargs.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    n_new, n_past, grouped = query.shape[2], key.shape[2] - query.shape[2], query.shape[1] != key.shape[1]
    if attention_mask is None and n_past > 0 and n_new > 1:
        if n_past < n_new and not (dropout or asks_more):
            return after_short_past(query, key, value, scaling).transpose(1, 2).contiguous(), None
        attention_mask = after_past_mask(n_new, n_past, query.device)
    if attention_mask is None or dropout or asks_more or not grouped:
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return fused
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


def after_short_past(
    query: Float[Tensor, "row heads new d_head"],
    key: Float[Tensor, "row groups all d_head"],
    value: Float[Tensor, "row groups all d_value"],
    scaling: float | None,
) -> Float[Tensor, "row heads new d_value"]:
    """Return causal attention of the last positions to all: with queries of nothing for the past, as a whole pass.

    So the kernel leaves out what lies behind each position, which it cannot where there are fewer queries than keys.
    """
    n_past = key.shape[2] - query.shape[2]
    out = torch.nn.functional.scaled_dot_product_attention(
        torch.nn.functional.pad(query, (0, 0, n_past, 0)),
        key,
        value,
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out[:, :, n_past:]


def after_past_mask(n_new: int, n_past: int, device: torch.device) -> Bool[Tensor, "1 1 new all"]:
    """Return which positions the new ones see: the past, those before them and themselves."""
    return torch.ones(n_new, n_past + n_new, dtype=torch.bool, device=device).tril(n_past)[None, None]


def mask_if_needed(*args: object, **kwargs: object) -> Tensor | None:
    """Return the mask that transformers makes, but none where each position sees all before it."""
    if not args and _is_plain(**kwargs):
        return None
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


def _is_plain(**named: object) -> bool:
    """Whether nothing is padded, and the new positions are the last of those that are attended to."""
    is_causal = named.get("mask_function") is causal_mask_function and bool(named.get("allow_is_causal_skip"))
    if not is_causal or named.get("attention_mask") is not None:
        return False
    sizes = [named.get(name) for name in ("q_offset", "q_length", "kv_length", "kv_offset")]
    whole = [size for size in sizes if isinstance(size, int)]
    # Other versions of transformers have other names for them.
    return len(whole) == len(sizes) and whole[0] + whole[1] == whole[2] and whole[3] == 0


def register() -> str:
    """Make this attention known to transformers, and return the name under which models ask for it."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, mask_if_needed)
    return NAME
