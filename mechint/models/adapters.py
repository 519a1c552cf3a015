"""LoRA adapters that run on top of a model's own weights, so that a swap with a finetune needs no second copy of them.

Merging (`load(..., adapter=)`) gives a model that is a little faster, and a copy. Here the base weights are shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from mechint.base.errors import ModelValidationError, UsageError
from mechint.models.backends.bridge import BridgeBackend, boot
from mechint.models.backends.twin import plain_copy, unwrapped
from mechint.models.merging import attach, own_tensors
from mechint.models.model import Model
from mechint.models.model_names import adapter_location
from mechint.models.validation import validate

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

# What an adapter's configuration says of where it came from, not of what it does.
_ORIGIN = ("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode")


def adapted(model: Model, adapter: str | Path) -> Model:
    """Return a model on `model`'s own weights with an adapter on top; see `Model.with_adapter`."""
    backend, location = _bridge_of(model, adapter), adapter_location(adapter)
    _check_added(location, adapter)
    attached = attach(plain_copy(backend.hf_model, "eager"), location)
    settings = _settings(attached)
    hf_model: PreTrainedModel = attached.get_base_model().eval().requires_grad_(False)
    _check_readout(hf_model, adapter)
    engine = BridgeBackend(boot(hf_model, model.tokenizer, str(adapter)))
    _check_called(hf_model, engine, adapter)
    arguments = None if model.arguments is None else replace(model.arguments, on_top=adapter)
    adapter_model = Model(
        engine, model.tokenizer, str(adapter), model.prompts, model.revision, arguments, settings, model.weights.digests
    )
    adapter_model.template, adapter_model.tokenizer_source = model.template, model.tokenizer_source
    validate(adapter_model)
    return adapter_model


def _bridge_of(model: Model, adapter: str | Path) -> BridgeBackend:
    merge = f"merge it instead: mi.load(..., adapter={str(adapter)!r})"
    if not isinstance(model.backend, BridgeBackend):
        raise UsageError(
            given=f"an adapter on top of {model.name} with backend={model.backend.kind!r}",
            allowed="a model with backend='bridge'",
            advice=f"load it with the bridge, or {merge}",
        )
    if getattr(model.backend.hf_model, "peft_config", None):
        raise UsageError(f"a second adapter on {model.name}", "one adapter on top of a model", "start from its base")
    if len(model.devices) > 1:
        raise UsageError(
            given=f"an adapter on top of {model.name}, which is spread over {len(model.devices)} devices",
            allowed="a model on one device",
            advice=merge,
        )
    return model.backend


def _settings(attached: PeftModel) -> str:
    """Return the settings of an adapter that decide how its weights act, as text."""
    config = {key: value for key, value in attached.active_peft_config.to_dict().items() if key not in _ORIGIN}
    return json.dumps(config, sort_keys=True, default=_plain)


def _plain(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def _check_added(location: str, adapter: str | Path) -> None:
    """Raise ModelValidationError for an adapter that replaces weights: they would be written into the shared ones."""
    whole = [name for name in own_tensors(location) if "lora_" not in name]
    if whole:
        raise _not_on_top(adapter, f"it replaces whole weights ({whole[0].removeprefix('base_model.model.')})")


def _check_readout(hf_model: PreTrainedModel, adapter: str | Path) -> None:
    """Raise ModelValidationError for an adapter of the unembedding, whose rows are read as they are."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if isinstance(hf_model.get_output_embeddings(), BaseTunerLayer | ModulesToSaveWrapper):
        raise _not_on_top(adapter, "it changes the unembedding")


def _check_called(hf_model: PreTrainedModel, engine: BridgeBackend, adapter: str | Path) -> None:
    """Raise ModelValidationError unless the bridge calls every layer that the adapter has wrapped.

    Where it splits a joint projection into copies of its own, an adapter of that projection would do nothing.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrapped = {name: module for name, module in hf_model.named_modules() if isinstance(module, BaseTunerLayer)}
    called: set[str] = set()

    def note(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        return lambda _module, _args, _out: called.add(name)

    handles = [module.register_forward_hook(note(name)) for name, module in wrapped.items()]
    try:
        engine.logits(torch.zeros((1, 1), dtype=torch.long))
    finally:
        for handle in handles:
            handle.remove()
    if not wrapped:
        raise _not_on_top(adapter, "it changes no layers of the model")
    if ignored := sorted(unwrapped(name) for name in set(wrapped) - called):
        raise _not_on_top(adapter, f"the bridge never calls {len(ignored)} layers that it changes ({ignored[0]})")


def _not_on_top(adapter: str | Path, why: str) -> ModelValidationError:
    return ModelValidationError(
        given=f"adapter {str(adapter)!r} cannot be run on top of this model: {why}",
        allowed="a LoRA adapter of layers that the bridge calls as they are",
        advice=f"merge it instead: mi.load(..., adapter={str(adapter)!r})",
    )
