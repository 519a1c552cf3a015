"""The configuration of a GGUF model, from all that its file declares and from the shapes of its tensors.

transformers reads a part of the keys and leaves the rest at its defaults: the size of Qwen 3's heads, every scaling of
rotary positions (Llama 3's lies in a tensor), Gemma 3's bases and the scale of its 27B attention. The model then loads
and computes something else. So a key that is not carried over here refuses the file, and so does a wrong shape.

Names and defaults are llama.cpp's (gguf-py/gguf/constants.py, src/llama-model.cpp).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechint.models.gguf_models import GGUFModel
from mechint.models.gguf_rotary import rope_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Setting = int | float | str | bool | None | list[str] | dict[str, object]
# Fields that are carried over below; the last two change nothing that is computed.
_COMMON = (
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scale_linear",
    "expert_count",
    "expert_used_count",
    "rope.scaling.finetuned",
    "tensor_data_layout",
)
_GEMMA = ("attention.sliding_window", "attention.sliding_window_pattern", "attention.scale", "rope.freq_base_swa")
_SOFT_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
_MAX_LAYERS = 10_000
_BLOCK = re.compile(r"blk\.(\d{1,9})\.")


def config_of(model: GGUFModel) -> PretrainedConfig:
    """Return the configuration; raises ValueError for fields that cannot be carried over or do not fit the tensors."""
    from transformers import CONFIG_MAPPING

    if model.architecture not in _FAMILIES:
        raise ValueError(f"its architecture is {model.architecture[:40]!r}; read are {', '.join(_FAMILIES)}")
    family = _FAMILIES[model.architecture]
    _check_keys(model, family)
    declared = _Declared.of(model)
    declared.check_shapes(model)
    settings = declared.settings(model) | family.settings(model, declared)
    config: PretrainedConfig = CONFIG_MAPPING[family.model_type](**settings)
    config.architectures = [family.model_class]
    return config


@dataclass(frozen=True)
class _Declared:
    """The sizes that a file declares: blocks, widths of stream and MLP, heads and their size, context."""

    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    n_ctx: int
    d_vocab: int

    @classmethod
    def of(cls, model: GGUFModel) -> _Declared:
        """Read the sizes; raises ValueError where they contradict each other."""
        d_model, n_heads = model.size("embedding_length"), model.size("attention.head_count")
        d_head = model.size("attention.key_length", d_model // n_heads)
        n_layers = model.size("block_count")
        for key, name in (("attention.value_length", "value_length"), ("rope.dimension_count", "rope.dimension_count")):
            if (size := model.size(key, d_head)) != d_head:
                raise ValueError(f"its {name} is {size}, its attention.key_length {d_head}; equal ones can be read")
        if n_layers > _MAX_LAYERS:
            raise ValueError(f"its block_count is {n_layers}")
        rows = model.tensors.get("token_embd.weight")
        return cls(
            n_layers,
            d_model,
            model.size("feed_forward_length"),
            n_heads,
            model.size("attention.head_count_kv", n_heads),
            d_head,
            model.size("context_length"),
            rows.shape[0] if rows is not None and rows.shape else 0,
        )

    def settings(self, model: GGUFModel) -> dict[str, Setting]:
        """Return the settings that all families have in common, in transformers' names."""
        return {
            "num_hidden_layers": self.n_layers,
            "hidden_size": self.d_model,
            "intermediate_size": self.d_mlp,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "max_position_embeddings": self.n_ctx,
            "vocab_size": self.d_vocab,
            "rms_norm_eps": model.number("attention.layer_norm_rms_epsilon"),
            "tie_word_embeddings": "output.weight" not in model.tensors,
            "rope_parameters": rope_of(model, self.d_head),
            **{name: _token(model, key) for name, key in _TOKENS.items()},
        }

    def check_shapes(self, model: GGUFModel) -> None:
        """Raise ValueError for tensors of other sizes than are declared, or for another number of blocks."""
        queries, keys = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        expected: dict[str, tuple[int, ...]] = {
            "attn_q": (queries, self.d_model),
            "attn_k": (keys, self.d_model),
            "attn_v": (keys, self.d_model),
            "attn_output": (self.d_model, queries),
            "ffn_gate": (self.d_mlp, self.d_model),
            "ffn_up": (self.d_mlp, self.d_model),
            "ffn_down": (self.d_model, self.d_mlp),
        }
        shapes = {f"blk.{n}.{weight}.weight": shape for n in range(self.n_layers) for weight, shape in expected.items()}
        declared = model.size("vocab_size", self.d_vocab)
        shapes |= {"token_embd.weight": (declared, self.d_model), "output_norm.weight": (self.d_model,)}
        if "output.weight" in model.tensors:
            shapes["output.weight"] = (declared, self.d_model)
        for name, tensor in model.tensors.items():
            shapes[name] = shapes.get(name) or self._shape_beside(name, model) or tensor.shape
        for name, shape in shapes.items():
            if name not in model.tensors:
                raise ValueError(f"it lacks the tensor {name}")
            if model.tensors[name].shape != shape:
                stored = model.tensors[name].shape
                raise ValueError(f"its tensor {name} is shaped {stored}, its declared sizes make that {shape}")

    def _shape_beside(self, name: str, model: GGUFModel) -> tuple[int, ...] | None:
        """Return the shape of a bias, which is that of its weight's rows, or of a norm; raises for blocks beyond."""
        block = _BLOCK.match(name)
        if block is not None and int(block[1]) >= self.n_layers:
            raise ValueError(f"it has the tensor {name[:80]}, and a block_count of {self.n_layers}")
        if name.endswith("norm.weight"):
            return (self.d_head if "_q_" in name or "_k_" in name else self.d_model,)
        weight = model.tensors.get(f"{name.removesuffix('.bias')}.weight")
        return None if weight is None else weight.shape[:1]


@dataclass(frozen=True)
class _Family:
    """An architecture: transformers' name and class for it, keys of its own, and the settings made of them."""

    model_type: str
    model_class: str
    settings: Callable[[GGUFModel, _Declared], dict[str, Setting]]
    keys: tuple[str, ...] = ()


def _llama(model: GGUFModel, declared: _Declared) -> dict[str, Setting]:
    biases = {name: f"blk.0.{weight}.bias" in model.tensors for name, weight in _BIASES.items()}
    return {"head_dim": declared.d_head, **biases}


def _qwen2(model: GGUFModel, declared: _Declared) -> dict[str, Setting]:
    usual = declared.d_head * declared.n_heads == declared.d_model
    return {} if usual else {"head_dim": declared.d_head}


def _qwen3(model: GGUFModel, declared: _Declared) -> dict[str, Setting]:
    return {"head_dim": declared.d_head, "attention_bias": "blk.0.attn_q.bias" in model.tensors}


def _gemma(model: GGUFModel, declared: _Declared, largest: int) -> dict[str, Setting]:
    """Return the settings that Gemma 2 and 3 share; the largest of each scales attention in its own way."""
    scalar = declared.d_model // declared.n_heads if declared.n_layers == largest else declared.d_head
    if (scale := model.number("attention.scale", scalar**-0.5)) > 0:
        scalar = round(scale**-2)
    if not math.isclose(max(scalar, 1) ** -0.5, scale, rel_tol=1e-5):
        raise ValueError(f"its attention.scale is {scale}, not one by the root of a whole number")
    return {"head_dim": declared.d_head, "query_pre_attn_scalar": scalar}


def _gemma2(model: GGUFModel, declared: _Declared) -> dict[str, Setting]:
    return _gemma(model, declared, largest=46) | {
        "sliding_window": model.size("attention.sliding_window", 4096),
        "layer_types": _layer_types(model, declared, 2),
        "attn_logit_softcapping": model.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": model.number("final_logit_softcapping", 30.0),
    }


def _gemma3(model: GGUFModel, declared: _Declared) -> dict[str, Setting]:
    local = {"rope_type": "default", "rope_theta": model.number("rope.freq_base_swa", 10_000.0)}
    final = model.number("final_logit_softcapping", 0.0)
    return _gemma(model, declared, largest=62) | {
        "sliding_window": model.size("attention.sliding_window"),
        "layer_types": _layer_types(model, declared, 6),
        "rope_parameters": {"full_attention": rope_of(model, declared.d_head), "sliding_attention": local},
        "final_logit_softcapping": final or None,
    }


def _layer_types(model: GGUFModel, declared: _Declared, usual: int) -> list[str]:
    """Return the kind of each layer: the last of each `pattern` layers attends to everything."""
    pattern = model.size("attention.sliding_window_pattern", usual)
    kinds = ("full_attention", "sliding_attention")
    return [kinds[(layer + 1) % pattern != 0] for layer in range(declared.n_layers)]


_BIASES = {"attention_bias": "attn_q", "mlp_bias": "ffn_up"}
_TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
_FAMILIES = {
    "llama": _Family("llama", "LlamaForCausalLM", _llama),
    "qwen2": _Family("qwen2", "Qwen2ForCausalLM", _qwen2),
    "qwen3": _Family("qwen3", "Qwen3ForCausalLM", _qwen3),
    "gemma2": _Family("gemma2", "Gemma2ForCausalLM", _gemma2, (*_GEMMA[:3], *_SOFT_CAPS)),
    "gemma3": _Family("gemma3_text", "Gemma3ForCausalLM", _gemma3, (*_GEMMA, _SOFT_CAPS[1])),
}


def _check_keys(model: GGUFModel, family: _Family) -> None:
    prefix, readable = f"{model.architecture}.", (*_COMMON, *family.keys)
    unknown = sorted(key for key in model.fields if key.startswith(prefix) and key.removeprefix(prefix) not in readable)
    if unknown:
        raise ValueError(f"it declares {unknown[0][:80]}, which cannot be carried over")
    if model.fields.get(f"{prefix}expert_count"):
        raise ValueError(f"it has {model.fields[f'{prefix}expert_count']} experts; models without are read")
    if model.fields.get(f"{prefix}attention.causal") is False:
        raise ValueError("its attention is not causal")


def _token(model: GGUFModel, key: str) -> int | None:
    number = model.fields.get(f"tokenizer.ggml.{key}")
    return number if isinstance(number, int) else None
