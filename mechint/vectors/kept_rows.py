"""Rows of concept vectors, layer by layer, kept in a folder: prompts that were read once are not read again.

What is kept is what a method makes of the prompts about one concept, before anything else is subtracted: vectors of
other concepts, and against others, are made of the same rows. The name of a file is the hash of all that its rows
depend on, which stands in the file too, beside a checksum. A file that does not agree is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import OutputError, StaleArtefactError
from mechint.base.files import sha256
from mechint.base.tensor_files import load_tensors, save_tensors
from mechint.models.model import Model
from mechint.vectors.extraction_prompts import Reading

_KIND = FileKind("rows of a concept vector", "a file as it was written", "remove the file", StaleArtefactError)
# The floors whose code the rows depend on, beside the tokens that are read.
FLOORS = ("models", "vectors")


@dataclass(frozen=True)
class KeptRows:
    """A folder of rows; it need not exist. One that cannot be written costs the time of reading again."""

    directory: Path

    def path(self, key: str) -> Path:
        """Return where the rows of a key are kept."""
        return self.directory / f"{key[:32]}.safetensors"

    def holds(self, model: Model, key: str) -> bool:
        """Whether the rows of a key are kept, whole."""
        return self._kept(model, key) is not None

    def rows(
        self, model: Model, key: str, make: Callable[[], Float[Tensor, "layer d_model"]]
    ) -> Float[Tensor, "layer d_model"]:
        """Return the rows of a key: those that are kept, else those that are made now and kept."""
        if (kept := self._kept(model, key)) is not None:
            return kept
        rows = make()
        with suppress(OutputError):
            save_tensors(self.path(key), {"rows": rows}, {"key": key})
        return rows

    def _kept(self, model: Model, key: str) -> Float[Tensor, "layer d_model"] | None:
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            content = load_tensors(path, _KIND)
            with reading(path, _KIND):
                rows = content.tensors["rows"]
        except StaleArtefactError:
            return None
        shape = (model.n_layers, model.d_model)
        fits = tuple(rows.shape) == shape and rows.dtype == torch.float32 and bool(rows.isfinite().all())
        return rows if fits and content.sealed and content.metadata.get("key") == key else None


def rows_key(around: str, method: str, readings: Sequence[Reading]) -> str:
    """Return the hash of all that rows depend on: their `surroundings`, method, tokens and positions."""
    return sha256(json.dumps([around, method, [[prompt.tokens, prompt.positions] for prompt in readings]]).encode())
