"""Safetensors files that seal their content: every tensor and all metadata, by a checksum that is verified on load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechint.base.artefacts import FileKind, reading, shown_path
from mechint.base.errors import StaleArtefactError
from mechint.base.files import replace_atomically, sha256

if TYPE_CHECKING:
    from safetensors import safe_open

_SEAL = "sha256"


@dataclass(frozen=True)
class Content:
    """Tensors by name, metadata without the seal, and whether there was one: files of other tools have none."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    sealed: bool


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a sealed file, atomically; returns its path. Raises OutputError."""
    from safetensors.torch import save_file

    # Copies, as one tensor may stand under several names, which the format refuses.
    kept = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    entries = {**metadata, _SEAL: _seal(kept, metadata)}
    return replace_atomically(path, lambda temporary: save_file(kept, temporary, metadata=entries))


def load_tensors(path: Path, kind: FileKind) -> Content:
    """Return the content of a file; raises the error of its kind, or StaleArtefactError for one that was altered."""
    with opened(path, kind) as (file, entries):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    metadata = {name: value for name, value in entries.items() if name != _SEAL}
    if (seal := entries.get(_SEAL)) is not None and seal != _seal(tensors, metadata):
        raise altered(path, kind)
    return Content(tensors, metadata, seal is not None)


def altered(path: Path, kind: FileKind) -> StaleArtefactError:
    """The error for a file whose checksum is not that of its content."""
    return StaleArtefactError(
        f"{shown_path(path)} was altered: what it holds is not what was written", kind.allowed, kind.advice
    )


@contextmanager
def opened(path: Path, kind: FileKind) -> Iterator[tuple[safe_open, dict[str, str]]]:
    """Yield an open file, whose tensors are yet to be read, with its metadata; raises the error of its kind."""
    from safetensors import safe_open

    with reading(path, kind), safe_open(str(path), framework="pt") as file:
        yield file, dict(file.metadata() or {})


def checksum(tensor: Tensor) -> str:
    """Return a hash of a tensor's dtype, shape and values."""
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), values)


def _seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    sums = {name: checksum(tensor) for name, tensor in tensors.items()}
    return sha256(json.dumps([sums, dict(metadata)], sort_keys=True).encode())
