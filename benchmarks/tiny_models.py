"""Random checkpoints of any architecture that transformers has, small enough to be run in a second.

A configuration begins as the architecture's own default, so that its kinds of layers, norms and scalings stay, and its
sizes are made small by their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from mechint.models.backends.wrappers import auto_class
from mechint.organisms import organism_path

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

Value = object
Settings = dict[str, Value]

N_LAYERS, D_MODEL = 4, 32
_LARGEST = 6_000_000

# Sizes by the names that configurations have for them.
_SIZES: Mapping[int, str] = {
    1: "n_group topk_group first_k_dense_replace n_shared_experts num_shared_experts moe_num_shared_experts "
    "num_kv_shared_layers",
    2: "num_key_value_heads num_kv_heads kv_n_heads num_experts_per_tok num_experts_per_token moe_topk moe_k moe_top_k "
    "top_k_experts num_decoder_layers num_encoder_layers depth num_query_groups mamba_n_groups mamba_ngroups "
    "index_n_heads",
    4: "num_hidden_layers n_layer n_layers num_layers num_attention_heads n_head n_heads num_heads decoder_layers "
    "decoder_attention_heads encoder_layers encoder_attention_heads num_experts n_routed_experts num_local_experts "
    "moe_num_experts ffn_num_experts num_blocks linear_num_heads linear_num_key_heads linear_num_value_heads "
    "index_topk",
    8: "head_dim d_head qk_rope_head_dim qk_nope_head_dim v_head_dim d_kv linear_key_head_dim linear_value_head_dim "
    "linear_head_dim swa_head_dim rotary_dim hidden_size_per_layer_input laurel_rank index_head_dim mamba_d_state "
    "mamba_dt_rank router_hidden_size adapter_rank",
    12: "sliding_window window_size attention_window_size local_window_size",
    16: "kv_lora_rank q_lora_rank attention_head_dim",
    32: "hidden_size n_embd d_model dim embed_dim word_embed_proj_dim embedding_size embedding_dim lru_width "
    "attention_hidden_size out_hidden_size vision_hidden_size projection_dim",
    48: "intermediate_size ffn_dim n_inner moe_intermediate_size shared_expert_intermediate_size decoder_ffn_dim "
    "encoder_ffn_dim ffn_hidden_size d_ff shared_intermediate_size expert_ffn_hidden_size dense_intermediate_size "
    "shared_experts_intermediate_size mlp_dim expert_ffn_size",
    512: "max_position_embeddings n_positions max_sequence_length max_seq_len max_target_positions",
}
_SIZE_OF = {name: size for size, names in _SIZES.items() for name in names.split()}
# Weights large enough that layers and positions matter, and few ids for what only multimodal models use.
_FIXED: Settings = {"initializer_range": 0.15, "init_std": 0.15, "bos_token_id": 1, "eos_token_id": 2}
_FIXED |= {"pad_token_id": 0}
_LEFT_OUT = ("transformers_version", "architectures", "per_layer_config", "model_type", "_name_or_path")

_MLA: Settings = {"num_key_value_heads": 4, "head_dim": 8}
_MAMBA: Settings = {"mamba_n_heads": 8, "mamba_d_head": 8}
# What small sizes need besides, by architecture.
_SPECIAL: Mapping[str, Settings] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1, 3]},
    "bailing_hybrid": {"num_expert_group": 1, "num_key_value_heads": 4},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention"] * 2, "position_embedding_type": "rope"},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "greedy"},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "gemma3n_text": {"intermediate_size": [48] * 4, "vocab_size_per_layer_input": 2560},
    "gemma4_text": {"vocab_size_per_layer_input": 2560},
    "gemma4_unified_text": {"vocab_size_per_layer_input": 2560},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "longcat_flash": {"head_dim": 8, "num_key_value_heads": 4, "qk_head_dim": 16},
    "qwen2_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
    "qwen2_5_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
    "qwen3_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
    "qwen3_vl_moe_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "nemotron": {"num_key_value_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {"axial_pos_embds": False, "axial_pos_embds_dim": [16, 16]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "phi3": {"original_max_position_embeddings": 512},
}


def tiny_config(model_type: str, special: Settings | None = None) -> PretrainedConfig:
    """Return a small configuration of an architecture."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    small = _small(model_type, cast("Settings", kind().to_dict()), {**_SPECIAL.get(model_type, {}), **(special or {})})
    config: PretrainedConfig = kind(**small)
    return config


def _small(model_type: str, settings: Settings, special: Settings) -> Settings:
    depth = next((settings[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if name in settings), None)
    shared = _MLA if "qk_rope_head_dim" in settings else {}
    out: Settings = {}
    for name, value in settings.items():
        if name in _LEFT_OUT:
            continue
        if isinstance(value, dict) and "model_type" in value:
            inner = str(value["model_type"])
            out[name] = {"model_type": inner, **_small(inner, value, dict(_SPECIAL.get(inner, {})))}
        else:
            out[name] = _resized(name, value, depth)
    return {**out, **{name: value for name, value in shared.items() if name in settings}, **special}


def _resized(name: str, value: Value, depth: Value) -> Value:
    if name == "vocab_size":
        return 2560
    if isinstance(value, list) and len(value) == depth and depth != N_LAYERS:
        kinds = [item for at, item in enumerate(value) if item not in value[:at]]
        return [kinds[at % len(kinds)] for at in range(N_LAYERS)]
    if isinstance(value, bool) or value is None or value == 0:
        return value
    if isinstance(value, int) and name in _SIZE_OF:
        return _SIZE_OF[name]
    return _FIXED.get(name, value)


def whole_class(config: PretrainedConfig) -> type[_BaseAutoModelClass]:
    """Return the class that published checkpoints are saved by: where a model also sees, the one that does."""
    from transformers import AutoModelForImageTextToText

    return (
        AutoModelForImageTextToText
        if type(config) in AutoModelForImageTextToText._model_mapping
        else auto_class(config)
    )


def tiny_model(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Return a random model of a configuration. Raises ValueError for one that is not small."""
    kind = whole_class(config)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in kind.from_config(config).parameters())
    if size > _LARGEST:
        raise ValueError(f"{size:,} weights are too many for a small model")
    torch.manual_seed(seed)
    model = cast("PreTrainedModel", kind.from_config(config, attn_implementation="eager"))
    for name, weight in model.named_parameters():  # biases and norms are trivial at initialisation
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 1.0 if "norm" in name or "ln_" in name else 0.0, 0.1)
    return model.eval()


def write_checkpoint(directory: Path, model: PreTrainedModel) -> Path:
    """Write a model with the embedded models' tokenizer, and return its directory."""
    from transformers import AutoTokenizer

    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(organism_path("organism")).save_pretrained(directory)
    return directory
