"""The weights of a GGUF model under transformers' names, with the changes of llama.cpp's conversion undone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.models.gguf_models import GGUFModel
from mechint.models.gguf_rotary import ROPE_FREQS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_BLOCK = _BLOCK | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_IN_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")


def weights_of(model: GGUFModel, config: PretrainedConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return all weights by transformers' names in `dtype`; raises ValueError for a tensor that has no place."""
    gemma = config.model_type.startswith("gemma")
    weights: dict[str, Tensor] = {}
    for name in model.tensors:
        if name == ROPE_FREQS:  # went into the configuration
            continue
        weight = model.read(name)
        if config.model_type == "llama" and ".attn_q." in name:
            weight = _in_halves(weight, config.num_attention_heads)
        if config.model_type == "llama" and ".attn_k." in name:
            weight = _in_halves(weight, config.num_key_value_heads)
        if gemma and name.endswith("norm.weight"):  # Gemma's norms multiply by 1 + weight, llama.cpp's by the weight
            weight = weight - 1
        weights[_name(name, _GEMMA_BLOCK if gemma else _BLOCK)] = weight.to(dtype)
    return weights


def _name(name: str, block: dict[str, str]) -> str:
    stem, _, leaf = name.rpartition(".")
    match = _IN_BLOCK.fullmatch(stem)
    place = _ENDS.get(stem) if match is None else block.get(match[2])
    if place is None or leaf not in ("weight", "bias"):
        raise ValueError(f"its tensor {name[:80]!r} has no place in this architecture")
    return f"{place}.{leaf}" if match is None else f"model.layers.{match[1]}.{place}.{leaf}"


def _in_halves(weight: Float[Tensor, "rows ..."], n_heads: int) -> Float[Tensor, "rows ..."]:
    """Return rows of queries or keys as transformers rotates them: all first numbers of the pairs, then all second.

    llama.cpp has the two of each pair side by side (convert_hf_to_gguf.py, LlamaModel.permute).
    """
    pairs = weight.reshape(n_heads, -1, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)
