"""Reading checkpoints, GGUF files, tokenizers and LoRA adapters with transformers and peft."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch

from mechint.base.artefacts import reason
from mechint.base.errors import MechintError, ModelValidationError, UnknownModelError
from mechint.models.backends.quantised import ADVICE, method, unpacked
from mechint.models.backends.reasons import check_class, check_weights, refusal, refused
from mechint.models.backends.wrappers import auto_class, text_model
from mechint.models.checkpoint_files import (
    GENERATION,
    check_files,
    check_generation,
    check_sizes,
    check_stored,
    check_unused,
    check_writes,
)
from mechint.models.converted_weights import converted_weights
from mechint.models.gguf_configs import config_of
from mechint.models.gguf_models import reading_model
from mechint.models.gguf_tokenizers import tokenizer_of
from mechint.models.merging import merged
from mechint.models.model_names import Source, adapter_location, check_reachable
from mechint.models.tokenizer_files import own_tokenizer, read_rules
from mechint.organisms import EMBEDDED

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class _Info(TypedDict):
    """The report of transformers on weights that a model lacks, has no place for, or has in another shape."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, Sequence[int], Sequence[int]]]


_Loaded = tuple["PreTrainedModel", _Info]


def load_tokenizer(source: Source, adapter: str | Path | None = None) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the tokenizer of a checkpoint, its own `tokenizer.json` where it has one, and words that say which it is.

    That of a GGUF file is made from what the file declares. Where an adapter brings a tokenizer, it was trained with
    that. Raises ModelValidationError if there is none.
    """
    from transformers import AutoTokenizer

    check_reachable(source)
    home = _tokenizer_home(source, adapter)
    if home.is_gguf:
        with reading_model(Path(home.location)) as file:
            return tokenizer_of(file)
    if home.is_local:
        check_files(Path(home.location))
    truth, config = read_rules(home), load_config(source)
    with _loading(home, "its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(home.location, config=config, trust_remote_code=False)
        check_writes(tokenizer)
    return own_tokenizer(home, truth, tokenizer)


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

    Weights of a GGUF file are dequantised, or read as an earlier load has dequantised them. Adapters, the source's own
    and then `adapter`, are merged into the weights. Raises UnknownModelError or ModelValidationError with the loader's
    own first words.
    """
    check_reachable(source)
    with _loading(source, "its weights"):
        model, info = _from_gguf(source, dtype, device) if source.is_gguf else _from_checkpoint(source, dtype, device)
        if info["missing_keys"]:
            # transformers would fill them with random numbers and only log it.
            raise ValueError(f"missing {', '.join(sorted(info['missing_keys'])[:3])}")
        if info["mismatched_keys"]:
            name, stored, built = min(info["mismatched_keys"])
            raise ValueError(f"{name} is shaped {tuple(stored)}, its configuration makes that {tuple(built)}")
        check_unused(info["unexpected_keys"], model)
        _check_finite(model)
    for location in (source.adapter, None if adapter is None else adapter_location(adapter)):
        model = model if location is None else merged(model, location)
    with refused(type(model).__name__, "the language model inside it cannot be run alone"):
        return text_model(model).eval().requires_grad_(False)


def _from_checkpoint(source: Source, dtype: torch.dtype, device: torch.device | None) -> _Loaded:
    config = unpacked(load_config(source))
    check_class(config)
    with _loading(source, f"its {GENERATION}"):
        check_generation(_directory(source))
    with _quiet(source.name in EMBEDDED), _quantised(config):
        loaded: _Loaded = auto_class(config).from_pretrained(
            source.location,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told by name here; transformers would point to what it has logged
            **_placement(device),
        )
    check_weights(loaded[0])
    check_stored(_directory(source), loaded[0])
    return loaded


@contextmanager
def _quantised(config: PretrainedConfig) -> Iterator[None]:
    """Turn whatever goes wrong with quantised weights into one error with the way out: they need their own library."""
    how = method(config)
    try:
        yield
    except (MechintError, torch.OutOfMemoryError, MemoryError, OSError):
        raise
    except Exception as error:
        if how is None:
            raise
        architecture = next(iter(config.architectures or ()), config.model_type)
        why = f"its weights are quantised ({how}) and cannot be read here: {reason(error)}"
        raise refusal(architecture, why, ADVICE) from error


def _from_gguf(source: Source, dtype: torch.dtype, device: torch.device | None) -> _Loaded:
    """Return a model of a GGUF file's weights: to transformers an ordinary one, which can be saved."""
    with reading_model(Path(source.location)) as file:
        config = config_of(file)
        weights = converted_weights(file, config, dtype)
    with _quiet(True):
        loaded: _Loaded = (
            auto_class(config)
            ._model_mapping[type(config)]
            .from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=dtype,
                attn_implementation="eager",
                output_loading_info=True,
                **_placement(device),
            )
        )
    if unused := sorted(loaded[1]["unexpected_keys"]):
        raise ValueError(f"{unused[0]} has no place in the model that the file declares")
    return loaded


def load_config(source: Source) -> PretrainedConfig:
    """Return the configuration of a checkpoint or a GGUF file, without its weights; raises ModelValidationError."""
    from transformers import AutoConfig

    if source.is_gguf:
        with reading_model(Path(source.location)) as file:
            return config_of(file)
    with _loading(source, "its configuration"):
        check_files(_directory(source))
        config: PretrainedConfig = AutoConfig.from_pretrained(source.location, trust_remote_code=False)
        check_sizes(config)
    return config


def _directory(source: Source) -> Path:
    """Return where a checkpoint's files lie: those of the hub, in its cache."""
    if source.is_local:
        return Path(source.location)
    from transformers.utils import cached_file

    return Path(cached_file(source.location, "config.json")).parent


def _check_finite(model: PreTrainedModel) -> None:
    """Raise ValueError for a weight with NaN or infinite values, which would be read as if nothing was wrong."""
    for name, weight in model.named_parameters():
        if weight.is_meta or not weight.is_floating_point() or not weight.numel():
            continue
        extremes = torch.stack(torch.aminmax(weight.detach()))  # NaN where any value is, without a copy
        if not torch.isfinite(extremes).all():
            kind = "NaN" if torch.isnan(extremes).any() else "infinite"
            raise ValueError(f"{name} holds {kind} values in {str(weight.dtype).removeprefix('torch.')}")


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


@contextmanager
def _loading(source: Source, component: str) -> Iterator[None]:
    """Turn whatever goes wrong with a checkpoint's files into one error with its reason; lost memory stays that."""
    try:
        yield
    except (MechintError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # what two libraries make of damaged files: tokenizers raises bare Exceptions
        raise _unreadable(source, component, error) from error


def _unreadable(source: Source, component: str, error: Exception) -> MechintError:
    kind = ModelValidationError if source.is_local else UnknownModelError
    return kind(
        given=f"model {source.name!r}: {component} cannot be loaded: {reason(error)}",
        allowed="a causal language model in Hugging Face format (config.json, safetensors, tokenizer files), or GGUF",
        advice="check the name or directory; code that comes with a checkpoint (trust_remote_code) is never run",
    )
