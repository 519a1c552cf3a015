"""The files of a checkpoint, checked before any library reads them, and weights in them that the model does not use.

Libraries take a file that is not there, is a pipe or a broken link, or is no JSON, for one that is not needed; store
whatever number a tensor holds as the model's kind of number; and only log what they leave out. The model then loads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import ModelValidationError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

KIND = FileKind(
    description="part of a checkpoint",
    allowed="the files of a checkpoint as they were saved",
    advice="download or save them again",
    error=ModelValidationError,
)
_NAMES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|merges|chat_template"
    r"|(model|pytorch_model)\b.*)\.(json|txt|model|jinja|safetensors|bin)"
)
_OBJECTS = re.compile(r"(.*config|special_tokens_map|added_tokens|.*index)\.json")
GENERATION = "generation_config.json"
_REAL = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # safetensors' names of real numbers
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
_MAX_LAYERS = 10_000
_AT_LEAST_ONE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
)


def check_files(directory: Path) -> None:
    """Raise ModelValidationError for a file of a checkpoint that is no file, or no JSON object where one belongs."""
    for path in sorted(directory.iterdir()):
        if not _NAMES.fullmatch(path.name):
            continue
        with reading(path, KIND):
            if not _OBJECTS.fullmatch(path.name):
                continue
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                where = f"line {error.lineno}, column {error.colno}"
                raise ValueError(f"it is no valid JSON: {error.msg} in {where}") from error
            if not isinstance(content, dict):
                raise ValueError(f"it holds {json.dumps(content)[:40]}, where an object belongs")


def check_sizes(config: PretrainedConfig) -> None:
    """Raise ValueError for a configuration of a size that no model has."""
    sizes = config.get_text_config(decoder=True).to_dict()  # some differ by layer, and are no attribute of the whole
    for name in _AT_LEAST_ONE:
        size = sizes.get(name)
        if isinstance(size, int) and (size < 1 or (name == "num_hidden_layers" and size > _MAX_LAYERS)):
            raise ValueError(f"its {name} is {size}")


def check_generation(directory: Path) -> None:
    """Raise ValueError for a generation_config.json that cannot be used, or whose end tokens are no numbers."""
    from transformers import GenerationConfig

    if not (directory / GENERATION).is_file():
        return
    ends = GenerationConfig.from_pretrained(str(directory)).eos_token_id
    if not all(type(end) is int for end in (ends if isinstance(ends, list) else [0 if ends is None else ends])):
        raise ValueError(f"its eos_token_id is {str(ends)[:40]!r}, where the number of a token belongs, or several")


def check_stored(directory: Path, model: PreTrainedModel) -> None:
    """Raise ValueError for weights that are stored as whole numbers, truth values or complex numbers.

    Those of a checkpoint that declares how it is quantised are its own business.
    """
    from safetensors import safe_open

    if getattr(model.config, "quantization_config", None) is not None:
        return
    floating = {name for name, weight in model.named_parameters() if weight.is_floating_point()}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in floating & set(file.keys()):
                if (kind := file.get_slice(name).get_dtype()) not in _REAL:
                    raise ValueError(f"{path.name} holds {name} as {kind}, and says nothing of a quantisation")


def check_unused(names: Iterable[str], model: PreTrainedModel) -> None:
    """Raise ValueError for weights of the model's own layers that its configuration leaves out.

    Others, of a part that sees or predicts several tokens, are not what is asked of it.
    """
    modules = dict(model.named_modules())
    weights = {_LAYER.sub("0", name) for name, _ in model.named_parameters()}
    for name in sorted(names):
        owner, _, leaf = name.rpartition(".")
        module = modules.get(owner)
        beside = module is not None and any(True for _ in module.parameters(recurse=False))
        if beside or (_LAYER.search(name) and _LAYER.sub("0", name) in weights):
            weight = f"{leaf} of {owner}" if beside else name
            raise ValueError(f"they hold {weight}, for which its configuration has no place")


def check_writes(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError for a tokenizer that makes nothing of text.

    Without its family's files transformers makes some tokenizers of no words at all, and says nothing.
    """
    if not isinstance(tokenizer.vocab_size, int) or len(tokenizer) == 0:
        raise ValueError("it is empty")
    if not tokenizer("yes", add_special_tokens=False)["input_ids"]:
        kind = type(tokenizer).__name__
        raise ValueError(f"{kind}, which transformers makes of its files, writes 'yes' as no token")
