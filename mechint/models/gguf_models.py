"""The header of a GGUF file with a model: its declared fields, and the places of its tensors.

Read here and not with the `gguf` package, whose reader takes seconds for a vocabulary and believes counts beyond the
end of a file. The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import ModelValidationError, PrerequisiteError

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

KIND = FileKind(
    description="a GGUF model",
    allowed="one whole GGUF file (version 2 or 3) of a chat model: llama, qwen2, qwen3, gemma2 or gemma3",
    advice="download it again; or load the checkpoint that it was made from, a directory or a hub id",
    error=ModelValidationError,
)
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMS = 4
_VECTOR = "controlvector"  # what llama.cpp calls the architecture of a file with a control vector
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a file, and how: its shape in torch's order, ggml's number of its type."""

    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class GGUFModel:
    """The header of a GGUF file: declared fields by key, tensors by name, their offsets counted from its beginning."""

    path: Path
    fields: Mapping[str, object]
    tensors: Mapping[str, StoredTensor]

    @property
    def architecture(self) -> str:
        """Name of the architecture, as llama.cpp calls it."""
        return self.value("general.architecture", str)

    def value(self, key: str, kind: type[_Value], default: _Value | None = None) -> _Value:
        """Return a field; raises ValueError for one of another type, and for a missing one without a default."""
        value = self.fields.get(key, default)
        if value is None:
            raise ValueError(f"it lacks {key}")
        if type(value) is int and kind is float:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"its {key} is {str(value)[:40]!r}, where a {kind.__name__} belongs")
        assert isinstance(value, kind)
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """Return a whole number above zero, by its key within the architecture; one for each layer if all are equal."""
        full = f"{self.architecture}.{key}"
        sizes = self.fields.get(full)
        if isinstance(sizes, list) and sizes and len(set(sizes)) == 1:
            size = sizes[0]
        else:
            size = self.value(full, int, default)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"its {full} is {str(size)[:40]}, where a whole number above zero belongs")
        return size

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number of zero or more: the shortest that its 32 bits can stand for, as a configuration has it."""
        full = f"{self.architecture}.{key}"
        number = float(str(np.float32(self.value(full, float, default))))
        if not math.isfinite(number) or number < 0:
            raise ValueError(f"its {full} is {number}")
        return number

    def read(self, name: str) -> Tensor:
        """Return a tensor in float32, dequantised; raises ValueError where the file ends before it does."""
        from gguf.quants import dequantize

        stored, kind = self.tensors[name], _quantisation(self.tensors[name].kind)
        shape, size = _stored_bytes(stored, kind)
        if stored.offset + size > self.path.stat().st_size:
            raise ValueError(f"it ends before its tensor {name} does")
        raw = np.memmap(self.path, np.uint8, "r", stored.offset, (size,))
        try:
            values = dequantize(_typed(raw, kind).reshape(shape), kind)
        except NotImplementedError as error:
            raise ValueError(f"its tensor {name} is quantised as {kind.name}, which gguf cannot undo") from error
        # A copy: what is not quantised would stay a view of the file.
        return torch.from_numpy(np.array(values, dtype=np.float32)).reshape(stored.shape)


@contextmanager
def reading_model(path: Path) -> Iterator[GGUFModel]:
    """Yield the header of a file; any error in this context becomes one ModelValidationError.

    Memory that ran out stays what it is. Raises PrerequisiteError without the gguf package.
    """
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError("gguf is not installed", "gguf, for GGUF models", "pip install gguf") from error
    try:
        with reading(path, KIND):
            _check_name(path)
            model = _header(path)
            if model.architecture == _VECTOR:
                raise ValueError("it holds a concept vector: mi.ConceptVector.load(path), --vectors")
            yield model
    except ModelValidationError as error:
        if isinstance(error.__cause__, MemoryError | torch.OutOfMemoryError):
            raise error.__cause__ from None
        raise


def _check_name(path: Path) -> None:
    if _SHARD.search(path.stem):
        raise ValueError("it is one part of a split file; join them first: llama-gguf-split --merge")


def _header(path: Path) -> GGUFModel:
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head = _Cursor(data)
        if data[:4] != b"GGUF":
            raise ValueError("it does not begin as GGUF files do")
        head.whole("I")  # the letters GGUF
        version, n_tensors, n_fields = head.whole("I"), head.whole("Q"), head.whole("Q")
        if version not in _VERSIONS:
            raise ValueError(f"it is of GGUF version {version} (or of a machine with the other order of bytes)")
        fields: dict[str, object] = {}
        for _ in range(n_fields):
            _once(head.text(), fields, lambda: head.value(head.whole("I")))
        tensors: dict[str, StoredTensor] = {}
        for _ in range(n_tensors):
            _once(head.text(), tensors, head.tensor)
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"its general.alignment is {str(alignment)[:40]}")
        start = -(-head.at // alignment) * alignment
    placed = {name: StoredTensor(t.shape, t.kind, start + t.offset) for name, t in tensors.items()}
    return GGUFModel(path, fields, placed)


def _once(name: str, into: dict[str, _Value], read: Callable[[], _Value]) -> None:
    if name in into:
        raise ValueError(f"it declares {name[:80]} twice")
    into[name] = read()


class _Cursor:
    """Reads one value after another from the beginning of a file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def numbers(self, form: str, count: int) -> list[int | float | bool]:
        self._check(count * struct.calcsize(f"<{form}"))
        numbers = struct.unpack_from(f"<{count}{form}", self.data, self.at)
        self.at += count * struct.calcsize(f"<{form}")
        return list(numbers)

    def whole(self, form: str) -> int:
        return int(self.numbers(form, 1)[0])

    def text(self) -> str:
        size = self.whole("Q")
        self._check(size)
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def value(self, kind: int) -> object:
        if kind in _NUMBERS:
            return self.numbers(_NUMBERS[kind], 1)[0]
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"it holds a value of the unknown type {kind}")
        inner, count = self.whole("I"), self.whole("Q")
        self._check(count)  # each takes a byte or more
        return self.numbers(_NUMBERS[inner], count) if inner in _NUMBERS else [self.value(inner) for _ in range(count)]

    def tensor(self) -> StoredTensor:
        n_dims = self.whole("I")
        if n_dims > _MAX_DIMS:
            raise ValueError(f"it holds a tensor of {n_dims} dimensions")
        dims = [self.whole("Q") for _ in range(n_dims)]
        return StoredTensor(tuple(reversed(dims)), self.whole("I"), self.whole("Q"))

    def _check(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise ValueError("it ends where its header says that more follows")


def _quantisation(kind: int) -> GGMLQuantizationType:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType(kind)


def _stored_bytes(tensor: StoredTensor, kind: GGMLQuantizationType) -> tuple[tuple[int, ...], int]:
    """Return the shape of a tensor as it is stored (bytes, or numbers where it is not quantised), and its bytes."""
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import quant_shape_to_byte_shape

    block, size = GGML_QUANT_SIZES[kind]
    shape = tensor.shape if kind.name in ("F32", "F16") else quant_shape_to_byte_shape(tensor.shape, kind)
    return tuple(shape), math.prod(tensor.shape) // block * size


def _typed(raw: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    return raw.view({"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8))
