"""The language model inside a checkpoint that also sees or hears: conversations of text need nothing else of it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

# Language models that exist only inside a wrapper, and what they are for text: where the three axes of a position are
# equal, a rotation by axes is the ordinary one.
_FOR_TEXT = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
_AXES = ("mrope_section", "mrope_interleaved", "type")
_PROBE = 16
_TOLERANCE = 1e-3  # of the logits' spread, in float32


def auto_class(config: PretrainedConfig) -> type[_BaseAutoModelClass]:
    """Return the class that loads a checkpoint with an unembedding: models of text first, then those with images."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    for kind in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in kind._model_mapping:
            loader: type[_BaseAutoModelClass] = kind
            return loader
    default: type[_BaseAutoModelClass] = AutoModelForCausalLM
    return default


def text_model(model: PreTrainedModel) -> PreTrainedModel:
    """Return the causal language model of a wrapper, made of the wrapper's own weights; any other model as it is.

    A wrapper whose language model is none that transformers has alone, or computes something else, stays as it is.
    """
    from transformers import AutoModelForCausalLM

    inside, config = model.get_decoder(), copy.deepcopy(model.config.get_text_config(decoder=True))
    if inside is None or type(config) is type(model.config):
        return model
    config = _for_text(config)
    kind = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if kind is None:
        return model
    config.architectures = [kind.__name__]
    config._commit_hash = getattr(model.config, "_commit_hash", None)
    config._attn_implementation = model.config._attn_implementation
    with torch.device("meta"):
        text: PreTrainedModel = kind(config)
    if not _taken_over(text, model, inside):
        return model
    return text.eval() if _say_the_same(text, model) else model


def _for_text(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration of a wrapper's language model without its images or sounds."""
    from transformers import CONFIG_MAPPING

    name = _FOR_TEXT.get(config.model_type)
    if name is None:
        return config
    settings = {key: value for key, value in config.to_dict().items() if key != "model_type"}
    for rope in ("rope_parameters", "rope_scaling"):
        if isinstance(settings.get(rope), dict):
            settings[rope] = {key: value for key, value in settings[rope].items() if key not in _AXES}
    plain: PretrainedConfig = CONFIG_MAPPING[name](**settings)
    return plain


def _taken_over(text: PreTrainedModel, model: PreTrainedModel, inside: PreTrainedModel) -> bool:
    """Put a wrapper's own modules or weights into a text model; return whether they fit."""
    if type(text.base_model) is type(inside):
        setattr(text, text.base_model_prefix, inside)
    else:
        try:
            text.base_model.load_state_dict(inside.state_dict(), assign=True)
        except RuntimeError:
            return False
        for name, buffer in text.base_model.named_buffers():
            if buffer.is_meta:  # computed, and not saved: the frequencies of positions
                owner, _, leaf = name.rpartition(".")
                text.base_model.get_submodule(owner)._buffers[leaf] = inside.get_buffer(name)
    text.set_output_embeddings(model.get_output_embeddings())
    return True


@torch.no_grad()
def _say_the_same(text: PreTrainedModel, model: PreTrainedModel) -> bool:
    """Whether a text model has the logits of the wrapper that its weights are from."""
    device = model.get_input_embeddings().weight.device
    tokens = torch.arange(_PROBE, device=device)[None] % model.config.get_text_config().vocab_size
    logits = text.eval()(input_ids=tokens, use_cache=False).logits.float()
    expected = model.eval()(input_ids=tokens, use_cache=False).logits.float()
    rounding = _TOLERANCE if text.dtype == torch.float32 else 0.1
    return bool((logits - expected).abs().max() <= rounding * expected.std())
