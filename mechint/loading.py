"""Reading checkpoints, tokenizers and LoRA adapters with transformers and peft."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mechint.backends.wrappers import auto_class, text_model
from mechint.errors import MechintError, ModelValidationError, PrerequisiteError, UnknownModelError
from mechint.organisms import EMBEDDED
from mechint.sources import Source, adapter_location, check_reachable
from mechint.tokenizer_files import own_tokenizer, read_rules

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(source: Source) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the tokenizer of a checkpoint, its own `tokenizer.json` where it has one, and words that say which it is.

    Raises ModelValidationError if there is none.
    """
    from transformers import AutoTokenizer

    check_reachable(source)
    truth = read_rules(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, trust_remote_code=False)
    except Exception as error:  # whatever damaged files make of it: tokenizers raises bare Exceptions
        raise _unreadable(source, "its tokenizer", error) from error
    if not isinstance(tokenizer.vocab_size, int) or len(tokenizer) == 0:
        raise _unreadable(source, "its tokenizer", ValueError("it is empty"))
    return own_tokenizer(source, truth, tokenizer)


def load_hf(
    source: Source, dtype: torch.dtype, device: torch.device | None, adapter: str | Path | None = None
) -> PreTrainedModel:
    """Return the Hugging Face model on `device` (None: spread over all) in `dtype`, read there directly, not copied.

    Adapters, the source's own and then `adapter`, are merged into the weights.
    Raises UnknownModelError or ModelValidationError with the loader's own first words.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig

    check_reachable(source)
    placement = _placement(device)
    try:
        with _quiet(source.name in EMBEDDED):
            config = AutoConfig.from_pretrained(source.location, trust_remote_code=False)
            loaded: tuple[PreTrainedModel, dict[str, set[str]]] = auto_class(config).from_pretrained(
                source.location,
                dtype=dtype,
                attn_implementation="eager",
                trust_remote_code=False,
                output_loading_info=True,
                **placement,
            )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, RuntimeError) as error:
        raise _unreadable(source, "its weights", error) from error
    model, info = loaded
    if info["missing_keys"]:
        # transformers would fill them with random numbers and only log it.
        raise _unreadable(source, "its weights", ValueError(f"missing {', '.join(sorted(info['missing_keys'])[:3])}"))
    for location in (source.adapter, None if adapter is None else adapter_location(adapter)):
        model = model if location is None else _merged(model, location)
    return text_model(model).eval().requires_grad_(False)


@contextmanager
def _quiet(small: bool) -> Iterator[None]:
    """Keep transformers from showing progress with a model that is there at once."""
    from transformers.utils import logging

    if not small or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _placement(device: torch.device | None) -> dict[str, str | dict[str, torch.device]]:
    if device is None:
        return {"device_map": "auto"}
    return {} if device.type == "cpu" else {"device_map": {"": device}}


def attach(model: PreTrainedModel, adapter: str) -> PeftModel:
    """Put a LoRA adapter on a model, whose layers it wraps in place, and return the two as one.

    Raises PrerequisiteError without peft, and ModelValidationError for what is no adapter of this model.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise PrerequisiteError("peft is not installed", "peft, for adapters", "pip install peft") from error
    try:
        with warnings.catch_warnings():
            # Weights that the adapter lacks would stay zero, and peft would only warn.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # Transformers' own, about a name that peft asks it for.
            warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
            return PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, RuntimeError, KeyError, UserWarning) as error:
        raise _no_adapter(adapter, error) from error


def _merged(model: PreTrainedModel, adapter: str) -> PreTrainedModel:
    attached = attach(model, adapter)
    try:
        merged: PreTrainedModel = attached.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError) as error:
        raise _no_adapter(adapter, error) from error
    return merged


def _no_adapter(adapter: str, error: Exception) -> ModelValidationError:
    return ModelValidationError(
        given=f"adapter {adapter!r} does not load: {_first_line(error)}",
        allowed="a PEFT LoRA adapter (directory or hub id) that was trained on this model",
        advice="check its path, and base_model_name_or_path in its adapter_config.json",
    )


def _unreadable(source: Source, what: str, error: Exception) -> MechintError:
    kind = ModelValidationError if source.is_local else UnknownModelError
    return kind(
        given=f"model {source.name!r}: {what} cannot be loaded: {_first_line(error)}",
        allowed="a causal language model in Hugging Face format (config.json, safetensors, tokenizer files)",
        advice="check the name or directory; code that comes with a checkpoint (trust_remote_code) is never run",
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
