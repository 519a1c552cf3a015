"""Reading checkpoints, tokenizers and LoRA adapters with transformers and peft."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mechint.backends.wrappers import auto_class, text_model
from mechint.errors import MechintError, ModelValidationError, UnknownModelError
from mechint.merging import merged
from mechint.organisms import EMBEDDED
from mechint.sources import Source, adapter_location, check_reachable
from mechint.tokenizer_files import own_tokenizer, read_rules

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(source: Source, adapter: str | Path | None = None) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the tokenizer of a checkpoint, its own `tokenizer.json` where it has one, and words that say which it is.

    Where an adapter brings a tokenizer, it was trained with that. Raises ModelValidationError if there is none.
    """
    from transformers import AutoConfig, AutoTokenizer

    check_reachable(source)
    base, source = source.location, _tokenizer_home(source, adapter)
    truth = read_rules(source)
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(source.location, config=config, trust_remote_code=False)
    except Exception as error:  # whatever damaged files make of it: tokenizers raises bare Exceptions
        raise _unreadable(source, "its tokenizer", error) from error
    if not isinstance(tokenizer.vocab_size, int) or len(tokenizer) == 0:
        raise _unreadable(source, "its tokenizer", ValueError("it is empty"))
    return own_tokenizer(source, truth, tokenizer)


def _tokenizer_home(source: Source, adapter: str | Path | None) -> Source:
    """Return a source whose location has the tokenizer: that of the last adapter with one, or of the base model."""
    homes = [Path(home) for home in (adapter and adapter_location(adapter), source.adapter) if home]
    for home in homes:
        if any((home / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            return replace(source, location=str(home), is_local=True)
    return source


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
        model = model if location is None else merged(model, location)
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


def _unreadable(source: Source, what: str, error: Exception) -> MechintError:
    kind = ModelValidationError if source.is_local else UnknownModelError
    return kind(
        given=f"model {source.name!r}: {what} cannot be loaded: {_first_line(error)}",
        allowed="a causal language model in Hugging Face format (config.json, safetensors, tokenizer files)",
        advice="check the name or directory; code that comes with a checkpoint (trust_remote_code) is never run",
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
