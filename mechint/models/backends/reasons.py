"""Reasons why a model cannot be used: in its configuration, before anything is tried, and one for all the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from mechint.base.errors import MechintError, ModelValidationError
from mechint.models.backends.quantised import ADVICE, packed
from mechint.models.backends.versions import installed

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

ALLOWED = "decoders whose whole memory of earlier turns is a KV cache, one module for each block"
_ADVICE = "docs/models.md lists the architectures that were tried; report this one with this message"
# Kinds of layers, and settings, that keep a state of their own instead of keys and values.
_RECURRENT_LAYERS = ("linear", "mamba", "recurrent", "conv", "ssm", "lightning", "hybrid")
_RECURRENT_SETTINGS = (
    "mamba_d_state",
    "mamba_d_conv",
    "state_size",
    "conv_kernel",
    "time_step_rank",
    "lru_width",
    "conv_L_cache",
    "linear_conv_kernel_dim",
    "rescale_every",
    "qk_dim_factor",
    "ssm_state_size",
)


def structural(config: PretrainedConfig) -> str | None:
    """Return the reason why a configuration rules a model out, in words; None if there is none."""
    text = config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False) or all(
        hasattr(text, f"{side}coder_layers") for side in ("en", "de")
    ):
        return "it is an encoder-decoder, or the decoder of one, which is made to read an encoder's output"
    if getattr(text, "is_decoder", True) is False and hasattr(text, "type_vocab_size"):
        return "it is an encoder (is_decoder is false): a position reads what comes after it"
    return _of_attention(text) or _of_state(text)


def _of_attention(text: PretrainedConfig) -> str | None:
    if getattr(text, "num_kv_shared_layers", None):
        count = text.num_kv_shared_layers
        return f"its last {count} layers have no keys and values of their own, they use those of earlier layers"
    if getattr(text, "index_topk", None):
        return "an indexer chooses which positions its attention reads, and what that keeps is in no KV cache"
    return None


def _of_state(text: PretrainedConfig) -> str | None:
    kinds = _kinds(text)
    recurrent = sorted({kind for kind in kinds if any(word in kind for word in _RECURRENT_LAYERS)})
    if recurrent:
        return f"it is recurrent or a hybrid: layers of kind {', '.join(recurrent)} keep a state that is no KV cache"
    settings = [name for name in _RECURRENT_SETTINGS if getattr(text, name, None) is not None]
    if settings and not kinds:
        return f"it is recurrent or a hybrid ({settings[0]} in its configuration), with a state that is no KV cache"
    return None


def _kinds(config: PretrainedConfig) -> list[str]:
    """Return the kinds of layers that a configuration names; some properties raise for lack of a setting."""
    kinds: list[str] = []
    for name in ("layer_types", "layers_block_type", "block_types"):
        try:
            kinds += [kind for kind in getattr(config, name, None) or () if isinstance(kind, str)]
        except (AttributeError, TypeError, ValueError, ZeroDivisionError):
            continue
    return kinds


def check_structure(model: nn.Module, config: PretrainedConfig) -> None:
    """Raise ModelValidationError for a model whose configuration or weights rule it out."""
    reason = structural(config)
    if reason is not None:
        raise refusal(type(model).__name__, reason)
    check_weights(model)


def check_class(config: PretrainedConfig) -> None:
    """Raise ModelValidationError for a configuration of which transformers makes no causal language model."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    if not any(type(config) in kind._model_mapping for kind in (AutoModelForCausalLM, AutoModelForImageTextToText)):
        name = next(iter(getattr(config, "architectures", None) or ()), config.model_type)
        raise refusal(str(name), structural(config) or "transformers makes no causal language model of it")


def check_weights(model: nn.Module) -> None:
    """Raise ModelValidationError for weights that are quantised."""
    reason = packed(model)
    if reason is not None:
        raise refusal(type(model).__name__, reason, ADVICE)


def refusal(architecture: str, reason: str, advice: str = _ADVICE) -> ModelValidationError:
    """Return the error for an architecture that cannot be used."""
    return ModelValidationError(f"{architecture} cannot be used: {reason}", ALLOWED, advice)


@contextmanager
def refused(architecture: str, doing: str) -> Iterator[None]:
    """Turn any error in this context into one ModelValidationError; errors of memory pass as they are."""
    try:
        yield
    except (MechintError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # the boundary to two libraries and hundreds of architectures
        raise refusal(architecture, f"{doing}: {error_summary(error)}") from error


def error_summary(error: Exception) -> str:
    """Return the kind and the first line of an error, with the versions it is from."""
    first = next(iter(str(error).strip().splitlines()), "")[:200]
    versions = ", ".join(f"{name} {installed(name)}" for name in ("transformer-lens", "transformers"))
    return f"{type(error).__name__}: {first} ({versions})"
