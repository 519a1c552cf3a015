"""The rotary positions that a GGUF file declares: their base, and how they are stretched."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.models.gguf_models import GGUFModel

ROPE_FREQS = "rope_freqs.weight"
# Llama 3.1 to 3.3 use these three with factors 8 and 32; the tensor holds what they make of each frequency.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_of(model: GGUFModel, d_head: int) -> dict[str, object]:
    """Return the rotary positions that a file declares; raises ValueError for kinds that transformers has not."""
    kind = model.value(f"{model.architecture}.rope.scaling.type", str, "linear")
    factor = model.number("rope.scaling.factor", model.number("rope.scale_linear", 1.0)) or 1.0
    base = model.number("rope.freq_base", 10_000.0)
    rope: dict[str, object] = {"rope_type": "default", "rope_theta": base}
    if ROPE_FREQS in model.tensors:
        if kind != "none" and factor != 1:
            raise ValueError(f"it declares both rotary scaling {kind[:40]!r} and {ROPE_FREQS}")
        return rope | _llama3(model.read(ROPE_FREQS), base, d_head)
    if kind == "linear" and factor != 1:
        return rope | {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        before = model.size("rope.scaling.original_context_length")
        return rope | {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": before}
    if kind not in ("none", "linear"):
        raise ValueError(f"its rotary scaling is {kind[:40]!r}; read are none, linear, yarn and {ROPE_FREQS}")
    return rope


def _llama3(factors: Float[Tensor, " half"], base: float, d_head: int) -> dict[str, object]:
    """Return Llama 3's scaling; a file holds the divisor of each frequency."""
    factor = float(factors.max())
    lengths = 2 * math.pi * base ** (torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    low, high, before = _LLAMA3.values()
    smooth = ((before / lengths - low) / (high - low)).clamp(0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if factors.shape != expected.shape or not torch.allclose(factors.double(), expected, rtol=1e-4):
        raise ValueError(f"its {ROPE_FREQS} are not those of Llama 3.1 to 3.3")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
