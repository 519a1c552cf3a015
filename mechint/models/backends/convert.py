"""Converting a loaded Hugging Face model to a HookedTransformer.

TransformerLens refuses local directories and unlisted names, so the configuration is made here from the checkpoint's
own; the weights go through TransformerLens' converters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mechint.base.errors import ModelValidationError
from mechint.models.backends.hooked import build
from mechint.models.backends.versions import require_hooked

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformers import PretrainedConfig, PreTrainedModel

Setting = str | int | float | bool | None | list[str] | torch.dtype
Settings = dict[str, Setting]

_ROPE_TYPES = ("default", "llama3")


def to_hooked(model: PreTrainedModel, device: torch.device) -> HookedTransformer:
    """Return a HookedTransformer whose logits equal those of `model`. Both are in memory until `model` is dropped.

    Raises ModelValidationError for an architecture or a rotary scaling that is not converted, and PrerequisiteError.
    """
    require_hooked()
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    architecture = type(model).__name__
    if architecture not in _FAMILIES:
        raise ModelValidationError(
            given=f"architecture {architecture} with backend='hooked'",
            allowed=", ".join(sorted(_FAMILIES)),
            advice="use backend='bridge', or convert it yourself and pass the HookedTransformer to mi.wrap()",
        )
    converter, settings_of = _FAMILIES[architecture]
    source: PretrainedConfig = model.config.get_text_config()
    settings = {**settings_of(source), "original_architecture": architecture, "dtype": model.dtype}
    settings |= {"device": str(device), "init_weights": False, "model_name": architecture}
    config = HookedTransformerConfig.from_dict(settings)
    state = getattr(weight_conversions, converter)(model, config)
    # Some converters work in float32 (Gemma's norms); the model is to keep one dtype.
    return build(config, {name: tensor.to(model.dtype) for name, tensor in state.items()})


def _gpt2(source: PretrainedConfig) -> Settings:
    if source.scale_attn_by_inverse_layer_idx or source.n_inner not in (None, 4 * source.n_embd):
        _refuse("GPT-2 with n_inner or inverse-layer scaling", "the standard GPT-2 layout")
    return {
        "n_layers": source.n_layer,
        "d_model": source.n_embd,
        "n_heads": source.n_head,
        "d_head": source.n_embd // source.n_head,
        "d_mlp": 4 * source.n_embd,
        "d_vocab": source.vocab_size,
        "n_ctx": source.n_positions,
        "eps": source.layer_norm_epsilon,
        "act_fn": source.activation_function,
        "normalization_type": "LN",
    }


def _rotary(source: PretrainedConfig) -> Settings:
    """Return the settings that all models with rotary positions have in common."""
    rope = _rope_parameters(source)
    d_head = getattr(source, "head_dim", None) or source.hidden_size // source.num_attention_heads
    return {
        "n_layers": source.num_hidden_layers,
        "d_model": source.hidden_size,
        "n_heads": source.num_attention_heads,
        "d_head": d_head,
        "d_mlp": source.intermediate_size,
        "d_vocab": source.vocab_size,
        # Rotary tables grow on demand, so a generous limit costs nothing.
        "n_ctx": max(source.max_position_embeddings, 8192),
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_dim": int(d_head * float(rope.get("partial_rotary_factor") or 1.0)),
        "rotary_base": float(rope.get("rope_theta") or 10_000.0),
        "act_fn": getattr(source, "hidden_activation", None) or source.hidden_act,
        "default_prepend_bos": False,
        **_llama3_scaling(rope, source.max_position_embeddings),
    }


def _neox(source: PretrainedConfig) -> Settings:
    return {
        **_rotary(source),
        "eps": source.layer_norm_eps,
        "normalization_type": "LN",
        "parallel_attn_mlp": source.use_parallel_residual,
    }


def _llama_like(source: PretrainedConfig) -> Settings:
    """Return the settings of Llama, Mistral and Qwen2: RMS norms, gated MLPs, grouped keys, some sliding windows."""
    groups: int = source.num_key_value_heads
    return {
        **_rotary(source),
        "eps": source.rms_norm_eps,
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "n_key_value_heads": groups if groups != source.num_attention_heads else None,
        **_windows(source),
    }


def _grouped(source: PretrainedConfig) -> Settings:
    """Return the settings of `_llama_like` with the number of key-value heads, even where it equals that of heads."""
    return {**_llama_like(source), "n_key_value_heads": source.num_key_value_heads}


def _gemma2(source: PretrainedConfig) -> Settings:
    return {
        **_grouped(source),
        "attn_scale": float(source.query_pre_attn_scalar) ** 0.5,
        "attn_scores_soft_cap": source.attn_logit_softcapping or -1.0,
        "output_logits_soft_cap": source.final_logit_softcapping or -1.0,
        "use_normalization_before_and_after": True,
    }


def _gemma3(source: PretrainedConfig) -> Settings:
    local = _rope_parameters(source, "sliding_attention")
    return {
        **_grouped(source),
        "attn_scale": float(source.query_pre_attn_scalar) ** 0.5,
        "rotary_base_local": float(local.get("rope_theta") or 10_000.0),
        "output_logits_soft_cap": source.final_logit_softcapping or -1.0,
        "use_normalization_before_and_after": True,
        "use_qk_norm": True,
    }


def _windows(source: PretrainedConfig) -> Settings:
    """Return the settings of sliding-window attention, by layer, where the checkpoint uses it."""
    window = getattr(source, "sliding_window", None)
    if not window or getattr(source, "use_sliding_window", True) is False:
        return {}
    kinds = getattr(source, "layer_types", None) or ["sliding_attention"] * source.num_hidden_layers
    types = ["local" if kind == "sliding_attention" else "global" for kind in kinds]
    return {"use_local_attn": True, "window_size": window, "attn_types": types}


def _rope_parameters(source: PretrainedConfig, kind: str = "full_attention") -> dict[str, str | float]:
    parameters = getattr(source, "rope_parameters", None) or {}
    parameters = parameters.get(kind, parameters)
    if parameters.get("rope_type", "default") not in _ROPE_TYPES:
        _refuse(f"rotary scaling {parameters['rope_type']!r}", " or ".join(_ROPE_TYPES))
    return dict(parameters)


def _llama3_scaling(rope: dict[str, str | float], n_ctx: int) -> Settings:
    if rope.get("rope_type", "default") != "llama3":
        return {}
    return {
        "use_NTK_by_parts_rope": True,
        "NTK_original_ctx_len": int(rope.get("original_max_position_embeddings", n_ctx)),
        "NTK_by_parts_low_freq_factor": rope.get("low_freq_factor", 1.0),
        "NTK_by_parts_high_freq_factor": rope.get("high_freq_factor", 4.0),
        "NTK_by_parts_factor": rope.get("factor", 1.0),
    }


def _refuse(feature: str, allowed: str) -> None:
    raise ModelValidationError(f"{feature} with backend='hooked'", allowed, "use backend='bridge'")


_FAMILIES: dict[str, tuple[str, Callable[[PretrainedConfig], Settings]]] = {
    "GPT2LMHeadModel": ("convert_gpt2_weights", _gpt2),
    "GPTNeoXForCausalLM": ("convert_neox_weights", _neox),
    "LlamaForCausalLM": ("convert_llama_weights", _llama_like),
    "MistralForCausalLM": ("convert_mistral_weights", _grouped),
    "Qwen2ForCausalLM": ("convert_qwen2_weights", _grouped),
    "Gemma2ForCausalLM": ("convert_gemma_weights", _gemma2),
    "Gemma3ForCausalLM": ("convert_gemma_weights", _gemma3),
}
