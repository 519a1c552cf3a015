"""Quantised checkpoints: packed integers in the place of weights, which only their own library can compute with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ADVICE = (
    "load the checkpoint that it was made from, or save a copy with ordinary weights where its library is installed: "
    "AutoModelForCausalLM.from_pretrained(NAME).dequantize().save_pretrained(DIR), and load DIR"
)
# Buffers that hold packed weights (GPTQ, AWQ, compressed-tensors).
_PACKED = ("qweight", "qzeros", "weight_packed", "W_q")
# Kinds that transformers reads without another library (GPT-OSS; DeepSeek-V3, Qwen3-FP8).
_READABLE = ("mxfp4", "fp8")
_NUMBERS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def method(config: PretrainedConfig) -> str | None:
    """Return how a checkpoint says that its weights are quantised; None if it says nothing."""
    for holder in (config, config.get_text_config(decoder=True)):
        settings = getattr(holder, "quantization_config", None)
        if settings:
            named = settings.get("quant_method") if isinstance(settings, Mapping) else settings.quant_method
            return str(getattr(named, "value", named) or "by a method that it does not name")
    return None


def unpacked(config: PretrainedConfig) -> PretrainedConfig:
    """Let transformers read weights that it can turn into ordinary ones itself as that, also on a GPU."""
    settings = getattr(config, "quantization_config", None)
    if isinstance(settings, dict) and settings.get("quant_method") in _READABLE:
        settings["dequantize"] = True
    return config


def packed(model: nn.Module) -> str | None:
    """Return which packed weights (no numbers to add and multiply) a model has, in words; None if it has none."""
    kinds = Counter(str(weight.dtype).removeprefix("torch.") for weight in _packed(model))
    if not kinds:
        return None
    named = method(model.config) if hasattr(model, "config") else None
    held = ", ".join(f"{count} hold {kind}" for kind, count in kinds.items())
    return f"its weights are quantised{f' ({named})' if named else ''}: of its tensors {held}"


def _packed(model: nn.Module) -> Iterator[torch.Tensor]:
    for _, weight in model.named_parameters():
        if weight.dtype not in _NUMBERS:
            yield weight
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] in _PACKED:
            yield buffer
