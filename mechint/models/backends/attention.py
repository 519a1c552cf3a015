"""Attention for running single blocks, where rows are padded and so always carry a mask.

transformers repeats grouped keys and values for every query head as soon as there is a mask, since kernels on GPUs want
it so. The kernel for CPUs takes them as they are, and copying a long past costs as much as attending to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

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

    Prompts that rows share are attended to by themselves; the mask then is theirs who know them.
    """
    if shared_prompts is not None:
        return shared_prompts.attend(query, key, value, scaling), None
    asks_more = any(kwargs.get(name) is not None for name in ("position_bias", "softcap", "cache"))
    if attention_mask is None or dropout or asks_more or query.shape[1] == key.shape[1]:
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return fused
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).contiguous(), None


def register() -> str:
    """Make this attention known to transformers, and return the name under which models ask for it."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
