"""PEFT adapters: put on a model, and merged into its weights, which must then give what the two gave together."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mechint.base.artefacts import reason, shown_path
from mechint.base.errors import MechintError, ModelValidationError, PrerequisiteError
from mechint.models.rounding import ROUNDING

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

_WRAPPED = ("base_layer", "original_module")  # PEFT's names of the layer that one of its own stands for
_PROBE_LENGTH = 24
# Said of tied weights before they are merged; here they are untied first.
_HANDLED = (
    ".is_gradient_checkpointing. is deprecated",
    "Model with .?tie_word_embeddings",
    "Model has .?tie_word_embeddings",
)


def attach(model: PreTrainedModel, adapter: str) -> PeftModel:
    """Put an adapter on a model, whose layers it wraps in place, and return the two as one.

    Raises PrerequisiteError without peft, and ModelValidationError for what is no adapter of this model.
    """
    config = _config(adapter)
    with _loading(adapter):
        from peft import PeftModel

        return PeftModel.from_pretrained(model, adapter, config=config)


def merged(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    """Return a model with an adapter merged into its weights; tied embeddings, if it changes one of them, are untied.

    Raises PrerequisiteError without peft, and ModelValidationError for what is no adapter of this model, or is one that
    computes something else once it is merged.
    """
    with _loading(adapter):
        _fit_vocabulary(model, adapter)
    attached = attach(model, adapter)
    before = _probed(attached)
    with _loading(adapter):
        _untie(attached.get_base_model())
        whole: PreTrainedModel = attached.merge_and_unload(safe_merge=True)
    difference = float((_probed(whole) - before).abs().max() / before.std().clamp_min(1e-6))
    if not difference <= ROUNDING.get(whole.dtype, 1e-1):
        why = f"merged into the weights it computes something else: logits differ by {difference:.2g} of their spread"
        raise _no_adapter(adapter, why)
    return whole


def own_tensors(adapter: str) -> dict[str, Tensor]:
    """Return the tensors of an adapter's files, by name; raises ModelValidationError."""
    _config(adapter)
    with _loading(adapter):
        from peft.utils import load_peft_weights

        tensors: dict[str, Tensor] = load_peft_weights(adapter, device="cpu")
        return tensors


def _config(adapter: str) -> PeftConfig:
    """Return an adapter's configuration; raises ModelValidationError for kinds that change no weights."""
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise PrerequisiteError("peft is not installed", "peft, for adapters", "pip install peft") from error
    with _loading(adapter):
        config: PeftConfig = PeftConfig.from_pretrained(adapter)
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning or config.is_adaption_prompt:
            why = f"it is of the kind {kind}, which puts trained positions before the text and changes no weights"
            raise _no_adapter(adapter, why)
    return config


def _fit_vocabulary(model: PreTrainedModel, adapter: str) -> None:
    """Give the embeddings as many rows as those that an adapter brings: it was trained with tokens added or removed."""
    named = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    ends = [named.get(id(module), "") for module in (model.get_input_embeddings(), model.get_output_embeddings())]
    whole = re.compile(rf"\.({'|'.join(map(re.escape, filter(None, ends)))})\.(base_layer\.)?weight")
    rows = {len(tensor) for name, tensor in own_tensors(adapter).items() if whole.search(name)}
    if len(rows) == 1 and rows != {len(model.get_input_embeddings().weight)}:
        model.resize_token_embeddings(rows.pop(), mean_resizing=False)


def _untie(model: PreTrainedModel) -> None:
    """Give the unembedding weights of its own, if it shares them with an embedding and an adapter is on either."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if not any(isinstance(end, BaseTunerLayer | ModulesToSaveWrapper) for end in (first, last)):
        return
    if _weight(first).data_ptr() == _weight(last).data_ptr():
        _inner(last).weight = nn.Parameter(_weight(last).clone(), requires_grad=False)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _inner(module: nn.Module) -> nn.Module:
    """Return the layer of the model itself, out of PEFT's wrappers."""
    while True:
        inside = next(
            (layer for layer in (getattr(module, name, None) for name in _WRAPPED) if layer is not None), None
        )
        if inside is None:
            return module
        module = inside


def _weight(module: nn.Module) -> Tensor:
    return _inner(module).get_parameter("weight").detach()


@torch.no_grad()
def _probed(model: PreTrainedModel | PeftModel) -> Tensor:
    """Return logits for some tokens."""
    base: PreTrainedModel = getattr(model, "get_base_model", lambda: model)()
    weight = _weight(base.get_input_embeddings())
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(weight), (1, _PROBE_LENGTH), generator=generator).to(weight.device)
    logits: Tensor = model.eval()(input_ids=tokens, use_cache=False).logits.float()
    return logits


@contextmanager
def _loading(adapter: str) -> Iterator[None]:
    """Turn whatever goes wrong with an adapter into one ModelValidationError: files damaged, or of another model."""
    try:
        with warnings.catch_warnings():
            # Weights that the adapter lacks would stay zero, and peft would only warn.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            for message in _HANDLED:
                warnings.filterwarnings("ignore", message=message)
            yield
    except (MechintError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise _no_adapter(adapter, reason(error)) from error


def _no_adapter(adapter: str, why: str) -> ModelValidationError:
    return ModelValidationError(
        given=f"adapter {shown_path(adapter)!r} does not load: {why}",
        allowed="a PEFT adapter of weights, such as LoRA (directory or hub id), that was trained on this model",
        advice="check its path, and base_model_name_or_path in its adapter_config.json",
    )
