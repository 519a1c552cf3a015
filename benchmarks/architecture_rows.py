"""Which checkpoints the page of models is made from: each architecture of transformers, and settings that matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.tiny_models import Settings

ARCHITECTURES, WRAPPERS, SETTINGS = "architectures", "wrappers", "settings"

# What people call the models of an architecture.
FAMILIES: Mapping[str, str] = {
    "afmoe": "Trinity",
    "apertus": "Apertus",
    "bamba": "Bamba",
    "bloom": "BLOOM",
    "codegen": "CodeGen",
    "cohere": "Command-R, Command-R+, Aya",
    "cohere2": "Command-R7B, Command-A",
    "deepseek_v2": "DeepSeek-V2, V2-Lite",
    "deepseek_v3": "DeepSeek-V3, R1",
    "ernie4_5": "ERNIE 4.5",
    "ernie4_5_moe": "ERNIE 4.5 MoE",
    "exaone4": "EXAONE 4",
    "falcon": "Falcon",
    "falcon_h1": "Falcon-H1",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3, 4B to 27B",
    "gemma3_text": "Gemma 3, 1B",
    "gemma3n_text": "Gemma 3n",
    "glm": "GLM-4 9B",
    "glm4": "GLM-4-0414",
    "glm4_moe": "GLM-4.5, 4.6",
    "gpt2": "GPT-2",
    "gpt_bigcode": "StarCoder, SantaCoder",
    "gpt_neo": "GPT-Neo",
    "gpt_neox": "Pythia, GPT-NeoX",
    "gpt_oss": "gpt-oss",
    "gptj": "GPT-J",
    "granite": "Granite 3",
    "granitemoe": "Granite 3 MoE",
    "granitemoehybrid": "Granite 4",
    "hunyuan_v1_dense": "Hunyuan",
    "jamba": "Jamba",
    "lfm2": "LFM2",
    "llama": "Llama 2, 3, 3.1, 3.2, DeepSeek-R1-Distill-Llama, SmolLM2, Yi, Vicuna",
    "llama4_text": "Llama 4",
    "mamba": "Mamba",
    "mistral": "Mistral 7B, Nemo, Small 2409",
    "mistral3": "Mistral Small 3.1, 3.2",
    "mixtral": "Mixtral",
    "mpt": "MPT",
    "nemotron": "Nemotron-4, Minitron",
    "nemotron_h": "Nemotron-H, Nemotron Nano 2",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "olmoe": "OLMoE",
    "opt": "OPT",
    "phi": "Phi-1, 1.5, 2",
    "phi3": "Phi-3, Phi-3.5-mini, Phi-4, Phi-4-mini",
    "phimoe": "Phi-3.5-MoE",
    "qwen2": "Qwen1.5, Qwen2, Qwen2.5, QwQ, DeepSeek-R1-Distill-Qwen",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_moe": "Qwen1.5-MoE, Qwen2-57B-A14B",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3-30B-A3B, 235B-A22B",
    "qwen3_next": "Qwen3-Next",
    "qwen3_5": "Qwen3.5",
    "qwen3_5_text": "Qwen3.5",
    "qwen3_vl": "Qwen3-VL",
    "recurrent_gemma": "RecurrentGemma",
    "rwkv": "RWKV",
    "seed_oss": "Seed-OSS",
    "smollm3": "SmolLM3",
    "stablelm": "StableLM",
    "starcoder2": "StarCoder2",
}


@dataclass(frozen=True)
class Row:
    """One checkpoint: an architecture by transformers' name, with settings of its own."""

    label: str
    model_type: str
    group: str = ARCHITECTURES
    settings: Settings = field(default_factory=dict)


def rows() -> list[Row]:
    """Return every causal language model that transformers has, those inside models that see, and settings."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    models = [Row(name, name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    inside = [
        name for name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    ]
    return [*models, *(Row(name, name, WRAPPERS) for name in inside), *_settings()]


def _settings() -> list[Row]:
    return [Row(label, kind, SETTINGS, settings) for label, (kind, settings) in _SETTINGS.items()]


def _rope(kind: str, **more: object) -> Settings:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **more}}


_LONG: Settings = {"short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [4.0, 5.0, 6.0, 8.0]}
_YARN: Settings = {"factor": 4.0, "original_max_position_embeddings": 64}
_LLAMA3: Settings = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_SETTINGS: Mapping[str, tuple[str, Settings]] = {
    "rope type linear": ("llama", _rope("linear", factor=4.0)),
    "rope type llama3": ("llama", _rope("llama3", original_max_position_embeddings=64, **_LLAMA3)),
    "rope type yarn": ("qwen2", _rope("yarn", **_YARN)),
    "rope type proportional": ("llama", _rope("proportional", partial_rotary_factor=0.5)),
    "partial rotation": ("stablelm", _rope("default", partial_rotary_factor=0.25)),
    "rope type dynamic, up to its threshold": ("llama", _rope("dynamic", factor=4.0)),
    "rope type dynamic, beyond it": ("llama", {"max_position_embeddings": 64, **_rope("dynamic", factor=4.0)}),
    "rope type longrope, up to its threshold": (
        "phi3",
        {"original_max_position_embeddings": 256, **_rope("longrope", **_LONG)},
    ),
    "rope type longrope, beyond it": (
        "phi3",
        {"original_max_position_embeddings": 64, **_rope("longrope", **_LONG)},
    ),
    "sliding window of 12 in every layer": ("mistral", {"sliding_window": 12}),
    "sliding window in some layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 12, "layer_types": ["full_attention", "sliding_attention"] * 2},
    ),
    "experts, two of four for each token": ("mixtral", {}),
    "experts with a shared one": ("qwen2_moe", {}),
    "latent attention (MLA)": ("deepseek_v3", {}),
    "attention sinks": ("gpt_oss", {}),
    "tied embeddings": ("llama", {"tie_word_embeddings": True}),
    "soft caps of attention and logits": ("gemma2", {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "scaled logits and residuals": ("granite", {"logits_scaling": 4.0, "residual_multiplier": 0.3}),
    "parallel attention and MLP": ("gpt_neox", {"use_parallel_residual": True}),
    "biases of distance (ALiBi)": ("bloom", {}),
    "biases of distance in Falcon-RW": (
        "falcon",
        {"alibi": True, "multi_query": False, "parallel_attn": False, "num_kv_heads": 4},
    ),
    "Falcon-40B's decoder": (
        "falcon",
        {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2, "alibi": False},
    ),
    "Command-R+'s norms of queries and keys": ("cohere", {"use_qk_norm": True}),
    "norms of queries and keys": ("qwen3", {}),
    "one key-value head": ("llama", {"num_key_value_heads": 1}),
    "biases in attention and MLP": ("llama", {"attention_bias": True, "mlp_bias": True}),
}
