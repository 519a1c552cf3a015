"""Dequantised weights of GGUF files, kept on disk, so that a file is converted once and read from then on.

The name of an entry says what it was made of: the bytes of the GGUF file, the dtype, and the converter. What a changed
file or another converter would have made is never met; what was damaged is made again. Entries are written atomically,
so processes that make the same one at the same time each write it whole.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from xxhash import xxh3_128

from mechint.base.artefacts import FileKind
from mechint.base.cache_folder import cache_folder
from mechint.base.errors import OutputError, StaleArtefactError
from mechint.base.files import sha256
from mechint.base.tensor_files import load_tensors, save_tensors
from mechint.models.backends.versions import installed
from mechint.models.gguf_models import GGUFModel
from mechint.models.gguf_weights import weights_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Bytes of the weights that are worth an entry: below, a conversion takes no time; above, nobody wants the copy on disk.
SMALLEST, LARGEST = 64 << 20, 2 << 30
_PIECE = 1 << 24
_KIND = FileKind("converted weights", "an entry as it was written", "remove the file", StaleArtefactError)


def converted_weights(file: GGUFModel, config: PretrainedConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return `weights_of(file, config, dtype)`, read from the cache folder where an earlier load has left them.

    A cache folder that cannot be written costs the time of a conversion, and nothing else.
    """
    size = sum(math.prod(tensor.shape) for tensor in file.tensors.values()) * dtype.itemsize
    if not SMALLEST <= size <= LARGEST:
        return weights_of(file, config, dtype)
    try:
        entry = _entry(file.path, dtype)
    except RuntimeError:  # a user without a home
        return weights_of(file, config, dtype)
    if (kept := _kept(entry)) is not None:
        return kept
    weights = weights_of(file, config, dtype)
    if _entry(file.path, dtype) == entry:  # else the file was changed while it was read
        _keep(entry, weights)
    return weights


def _entry(path: Path, dtype: torch.dtype) -> Path:
    digest = xxh3_128()
    with path.open("rb") as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
    name = f"{digest.hexdigest()}-{str(dtype).removeprefix('torch.')}-{_converter()}.safetensors"
    return cache_folder() / "gguf" / name


def _converter() -> str:
    """Return a hash of what converts: the modules on GGUF beside this one, and the version of the gguf package."""
    sources = sorted(Path(__file__).parent.glob("gguf_*.py"))
    return sha256(installed("gguf").encode(), *(source.read_bytes() for source in sources))[:16]


def _kept(entry: Path) -> dict[str, Tensor] | None:
    if not entry.exists():
        return None
    try:
        content = load_tensors(entry, _KIND)
    except StaleArtefactError:  # damaged, or removed a moment ago
        return None
    return dict(content.tensors) if content.sealed else None


def _keep(entry: Path, weights: dict[str, Tensor]) -> None:
    """Write an entry, and remove those of other converters for the same file and dtype."""
    with suppress(OutputError):
        save_tensors(entry, weights, {})
    for other in entry.parent.glob(f"{entry.name.rpartition('-')[0]}-*"):
        if other != entry:
            with suppress(OSError):
                other.unlink()
