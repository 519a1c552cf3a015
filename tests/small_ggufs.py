"""Random tiny GGUF models, written with llama.cpp's own names and the changes that its conversion makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tiny
import torch
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    RopeScalingType,
    get_tensor_name_map,
    quants,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10_000.0, "original_max_position_embeddings": 64}
_GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
# By what is tried of each: architecture, number of layers, and what its configuration says beyond SHAPE.
MODELS: dict[str, tuple[str, int, dict[str, object]]] = {
    "llama": ("llama", 2, {}),
    "llama with biases and wide heads": ("llama", 2, {"head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    "llama 3": ("llama", 2, {"head_dim": 64, "rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", 2, {"rms_norm_eps": 1e-6}),
    "qwen2 with yarn": ("qwen2", 2, {"rope_parameters": YARN}),
    "qwen3": ("qwen3", 2, {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", 2, _GEMMA),
    "gemma3": (
        "gemma3_text",
        7,
        {
            **_GEMMA,
            "rope_parameters": {
                "full_attention": LINEAR,
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
    ),
}
_ARCH = {"gemma3_text": "gemma3"}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a small tokenizer of the kind that llama.cpp calls smollm, in which ' yes' and ' no' are single tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    raw.decoder, alphabet = decoders.ByteLevel(), pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(tiny.SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(tiny.CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=tiny.CHATML
    )


def hf_model(name: str, vocab_size: int, **changes: object) -> PreTrainedModel:
    """Return one of MODELS, with weights large enough that layers and positions matter."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind, n_layers, special = MODELS[name]
    settings = SHAPE | {"vocab_size": vocab_size, "num_hidden_layers": n_layers} | special | changes
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**settings), attn_implementation="eager")
    for place, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.0 if "gemma" in kind or "bias" in place else 1.0, 0.1)
    return model.eval()


def tokenizer_fields(raw: Tokenizer, pre: str = "smollm") -> dict[str, object]:
    """Return the metadata for a byte-level tokenizer whose added tokens are all special."""
    import json

    content = json.loads(raw.to_str())
    words = sorted(raw.get_vocab(), key=raw.get_vocab().get)
    added = {token["content"] for token in content["added_tokens"]}
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": words,
        "token_type": [3 if word in added else 1 for word in words],
        "merges": [" ".join(pair) for pair in content["model"]["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
        "add_bos_token": False,
    }


def write(
    path: Path,
    model: PreTrainedModel,
    tokenizer: Mapping[str, object],
    kind: str = "F32",
    fields: Mapping[str, object | None] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    template: str | None = tiny.CHATML,
) -> Path:
    """Write a model as llama.cpp's conversion does; `fields` and `tensors` are added, or replace some (None: go)."""
    config = model.config
    architecture = _ARCH.get(config.model_type, config.model_type)
    declared = _declared(config) | dict(fields or {})
    writer = GGUFWriter(path, architecture)
    for key, value in declared.items():
        if value is not None:
            _add(writer, key if key.startswith("general.") else f"{architecture}.{key}", value)
    for key, value in tokenizer.items():
        if value is not None:
            _add(writer, f"tokenizer.ggml.{key}", value)
    if template is not None:
        writer.add_chat_template(template)
    stored = _tensors(model, architecture) | dict(tensors or {})
    for name, values in stored.items():
        if values is not None:
            _add_tensor(writer, name, values, GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _declared(config: object) -> dict[str, object]:
    """What convert_hf_to_gguf.py writes of a configuration."""
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    declared: dict[str, object] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if d_head != config.hidden_size // config.num_attention_heads:
        declared |= {"attention.key_length": d_head, "attention.value_length": d_head}
    if config.model_type == "llama":
        declared |= {"vocab_size": config.vocab_size, "rope.dimension_count": d_head}
    if rope["rope_type"] in ("linear", "yarn"):
        kind = {"linear": RopeScalingType.LINEAR, "yarn": RopeScalingType.YARN}[rope["rope_type"]]
        declared |= {"rope.scaling.type": kind.value, "rope.scaling.factor": float(rope["factor"])}
    if rope["rope_type"] == "yarn":
        declared["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    if "gemma" in config.model_type:
        declared["attention.sliding_window"] = config.sliding_window
    if config.model_type == "gemma2":
        declared |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    return declared


def _add(writer: GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value) if value >= 0 else writer.add_int32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _tensors(model: PreTrainedModel, architecture: str) -> dict[str, np.ndarray]:
    config = model.config
    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(MODEL_ARCH(arch), config.num_hidden_layers)
    tensors: dict[str, np.ndarray] = {}
    for name, weight in model.named_parameters():  # a tied unembedding is no parameter of its own
        values = weight.detach().clone()
        if config.model_type == "llama" and "q_proj" in name:
            values = _side_by_side(values, config.num_attention_heads)
        if config.model_type == "llama" and "k_proj" in name:
            values = _side_by_side(values, config.num_key_value_heads)
        if "gemma" in config.model_type and name.endswith("norm.weight"):
            values = values + 1
        tensors[names.get_name(name, (".weight", ".bias")) + name[name.rindex(".") :]] = values.numpy()
    if (rope := config.rope_parameters).get("rope_type") == "llama3":
        tensors["rope_freqs.weight"] = _llama3_factors(rope, config.head_dim)
    return {name.replace(".weight.weight", ".weight").replace(".bias.bias", ".bias"): v for name, v in tensors.items()}


def _side_by_side(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """LlamaModel.permute of convert_hf_to_gguf.py."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _llama3_factors(rope: Mapping[str, float], d_head: int) -> np.ndarray:
    """LlamaModel.generate_extra_tensors of convert_hf_to_gguf.py."""
    factors = []
    for freq in 1.0 / (rope["rope_theta"] ** (torch.arange(0, d_head, 2, dtype=torch.float32) / d_head)):
        length = 2 * np.pi / float(freq)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        if length < rope["original_max_position_embeddings"] / high:
            factors.append(1.0)
        elif length > rope["original_max_position_embeddings"] / low:
            factors.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / length - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def _add_tensor(writer: GGUFWriter, name: str, values: np.ndarray, kind: GGMLQuantizationType) -> None:
    if values.ndim == 1 or kind == GGMLQuantizationType.F32:  # norms and biases are never quantised
        writer.add_tensor(name, values.astype(np.float32))
        return
    writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
