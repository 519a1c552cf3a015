"""Concept vectors: one vector per layer, with arithmetic, provenance, and GGUF and safetensors files."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base import html
from mechint.base.artefacts import FileKind, parsed_object, reading, shown_path, typed
from mechint.base.errors import (
    InvalidVectorError,
    LayerRangeError,
    StaleArtefactError,
    UsageError,
    VectorMismatchError,
    VectorWarning,
)
from mechint.base.files import JSON, replace_atomically, sha256
from mechint.base.gguf_files import gguf_reader
from mechint.base.signatures import Count, checked
from mechint.base.tensor_files import altered, load_tensors, save_tensors

_ARCHITECTURE = "controlvector"  # the GGUF architecture name that repeng and llama.cpp agree on
_EMBEDDING = "token_embd.weight"  # what every GGUF model has
_GGUF_SEAL = "mechint.sha256"  # readers that do not know a field leave it alone
_KIND = FileKind("a concept vector", "a .gguf or .safetensors file of one vector for each layer")
_CACHED = replace(_KIND, error=StaleArtefactError, advice="extract the vector again")


@checked
@dataclass(frozen=True, eq=False)
class ConceptVector:
    """Vectors by layer (float32, `d_model` each): `vectors[l]` is added to `blocks.l.hook_resid_post`.

    They are used as they are, times a strength; nothing is rescaled on the way in. `n_layers` is the depth of the model
    they were made on, where it is known. Raises InvalidVectorError for NaN, infinite or no values.
    """

    vectors: Mapping[int, Tensor]
    name: str = ""
    n_layers: Count | None = None
    provenance: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", {layer: _as_float32(layer, v) for layer, v in sorted(self.vectors.items())})
        object.__setattr__(self, "provenance", dict(self.provenance))
        _check(self)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a vector, ascending."""
        return tuple(self.vectors)

    @property
    def d_model(self) -> int:
        """Width of the residual stream that the vectors fit."""
        return len(next(iter(self.vectors.values())))

    @property
    def norms(self) -> dict[int, float]:
        """Euclidean norm by layer."""
        return {layer: vector.double().norm().item() for layer, vector in self.vectors.items()}

    def __repr__(self) -> str:
        method = self.provenance.get("method", "")
        return (
            f"ConceptVector({self.name!r}, layers={html.spans(self.layers)}, d_model={self.d_model}"
            f"{f', method={method!r}' if method else ''})"
        )

    def _repr_html_(self) -> str:
        source = [str(self.provenance[key]) for key in ("method", "model") if key in self.provenance]
        facts = [f"d_model {self.d_model}", *source]
        return html.heading(self.name or "vector", facts) + html.table(
            {"norm by layer": html.sparkline(self.norms, self.n_layers)}
        )

    def fingerprint(self) -> str:
        """SHA-256 of layers and values: equal only for vectors that act alike."""
        return sha256(*(bytes(str(k), "ascii") + v.contiguous().numpy().tobytes() for k, v in self.vectors.items()))

    def directions(self) -> ConceptVector:
        """Return the same vectors at unit norm in every layer; one that is zero has no direction and stays zero."""
        return self._with({k: unit_norm(v) for k, v in self.vectors.items()})

    def rescaled(self, norms: Mapping[int, float]) -> ConceptVector:
        """Return the vectors with the given norm in each layer.

        Raises LayerRangeError for a layer whose norm is not given, InvalidVectorError for one that is zero and is to
        have another norm.
        """
        if missing := set(self.layers) - set(norms):
            raise LayerRangeError(
                given=f"norms without layers {sorted(missing)}",
                allowed=f"one for each of {self.layers}",
                advice="match vectors of the same layers",
            )
        directions = self.directions().vectors
        if zero := [layer for layer, vector in directions.items() if not vector.any() and norms[layer]]:
            raise InvalidVectorError(
                given=f"vector {self.name!r} is zero in layers {html.spans(zero)}, and has no direction there",
                allowed="norm 0 at these layers",
                advice="leave them out: .at(layers)",
            )
        return self._with({layer: vector * norms[layer] for layer, vector in directions.items()})

    def at(self, layers: Iterable[int]) -> ConceptVector:
        """Return the vectors of some layers only; raises LayerRangeError for layers that have none."""
        layers = tuple(layers)
        if missing := sorted(set(layers) - set(self.layers)):
            raise LayerRangeError(
                given=f"layers {html.spans(missing)} of vector {self.name!r}",
                allowed=f"layers {html.spans(self.layers)}, for which it has vectors",
                advice="choose layers among these, or extract the vector again for all layers",
            )
        return self._with({layer: self.vectors[layer] for layer in layers})

    def check_fits(self, d_model: int, n_layers: int) -> None:
        """Raise VectorMismatchError unless the vector is for a model of this shape."""
        depth = self.n_layers if self.n_layers is not None else max(self.layers) + 1
        fits_depth = depth == n_layers if self.n_layers is not None else depth <= n_layers
        if self.d_model != d_model or not fits_depth:
            at_least = "" if self.n_layers is not None else "at least "
            raise VectorMismatchError(
                given=f"vector {self.name!r} is for d_model={self.d_model}, n_layers={at_least}{depth}",
                allowed=f"this model has {d_model}, {n_layers}",
                advice="load the vector of this model or extract it again; if the file states its depth wrongly, "
                "say it: ConceptVector.load(path, n_layers=...)",
            )

    def __add__(self, other: ConceptVector) -> ConceptVector:
        return self._combined(other, 1.0, "+")

    def __sub__(self, other: ConceptVector) -> ConceptVector:
        return self._combined(other, -1.0, "-")

    def __mul__(self, factor: float | int) -> ConceptVector:
        return self._with({k: v * float(factor) for k, v in self.vectors.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | int) -> ConceptVector:
        return self * (1.0 / divisor)

    def __neg__(self) -> ConceptVector:
        return self * -1.0

    @checked
    def save(self, path: str | Path) -> Path:
        """Write a .gguf (as repeng and llama.cpp do) or .safetensors file (with provenance), atomically."""
        path = Path(path)
        _check_suffix(path)
        if path.suffix == ".gguf":
            return replace_atomically(path, self._write_gguf)
        metadata = {
            "name": self.name,
            "n_layers": self.n_layers,
            "norms": self.norms,
            "provenance": dict(self.provenance),
        }
        tensors = {f"direction.{layer}": vector for layer, vector in self.vectors.items()}
        return save_tensors(path, tensors, {"mechint": json.dumps(metadata, sort_keys=True)})

    @classmethod
    @checked
    def load(cls, path: str | Path, n_layers: int | None = None) -> ConceptVector:
        """Return the vector in a .gguf or .safetensors file; its name is the file's stem unless the file names it.

        A GGUF file does not record the model's depth. Where its blocks are 1, 2, ..., k without a gap, as those of
        vectors trained over a whole model are, the depth is taken to be k + 1; `n_layers` overrules this.
        Raises UsageError if the file cannot be read, InvalidVectorError if its contents are no vectors, and
        StaleArtefactError if it was altered since `save` has written it (files of other tools have no checksum).
        """
        path = Path(path)
        _check_suffix(path)
        read = _read_gguf(path) if path.suffix == ".gguf" else _read_safetensors(path)[0]
        return read if n_layers is None else replace(read, n_layers=n_layers)

    def _write_gguf(self, path: Path) -> None:
        from gguf import GGUFWriter

        kept = {layer: vector for layer, vector in self.vectors.items() if layer > 0}
        if len(kept) < len(self.vectors):
            message = "GGUF control vectors have no entry for block 0; it was left out"
            warnings.warn(message, VectorWarning, stacklevel=4)
        if not kept:
            raise InvalidVectorError(
                "a vector for block 0 only", "blocks from 1 on in a GGUF file", "save as .safetensors"
            )
        writer = GGUFWriter(str(path), _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", str(self.provenance.get("model", "")))
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(kept))
        if self.n_layers is not None:
            writer.add_uint32("mechint.n_layers", self.n_layers)
        writer.add_string(_GGUF_SEAL, self.at(kept).fingerprint())
        for layer, vector in kept.items():
            writer.add_tensor(f"direction.{layer}", vector.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _combined(self, other: ConceptVector, sign: float, symbol: str) -> ConceptVector:
        if not isinstance(other, ConceptVector):
            return NotImplemented
        other.check_fits(self.d_model, max(other.layers) + 1 if self.n_layers is None else self.n_layers)
        if self.layers != other.layers:
            raise LayerRangeError(
                given=f"vectors for layers {html.spans(self.layers)} and {html.spans(other.layers)}",
                allowed="equal layers",
                advice="use .at(layers)",
            )
        summed = {k: v + sign * other.vectors[k] for k, v in self.vectors.items()}
        return replace(self, vectors=summed, name=f"{self.name}{symbol}{other.name}")

    def _with(self, vectors: Mapping[int, Tensor]) -> ConceptVector:
        return replace(self, vectors=vectors)


def load_cached(path: Path, key: str) -> ConceptVector:
    """Return a stored vector whose provenance holds just this `key`; raises StaleArtefactError for any other file."""
    vector, sealed = _read_safetensors(path, _CACHED)
    if vector.provenance.get("key") != key or not sealed:
        origin = f"computed from other inputs (key {str(vector.provenance.get('key'))[:12]})"
        raise StaleArtefactError(
            given=f"{path} was {origin if sealed else 'written without a checksum'}",
            allowed=f"key {key[:12]}, the hash of model, prompts, method and seed at hand",
            advice="extract the vector again",
        )
    return vector


def _as_float32(layer: int, vector: Tensor) -> Tensor:
    if vector.is_complex() or vector.dtype == torch.bool:
        raise InvalidVectorError(
            given=f"a vector of {str(vector.dtype).removeprefix('torch.')} at layer {layer}",
            allowed="real numbers",
            advice="take the part that is meant: .real, or .float()",
        )
    return vector.detach().to("cpu", torch.float32)


def _check(vector: ConceptVector) -> None:
    shapes = {tuple(v.shape) for v in vector.vectors.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or (0,) in shapes or min(vector.layers) < 0:
        raise InvalidVectorError(
            given=f"vector {vector.name!r} with layers {vector.layers} and shapes {sorted(shapes)}",
            allowed="one vector of d_model numbers for each of one or more layers",
            advice="check the file or the extraction",
        )
    bad = [k for k, v in vector.vectors.items() if not torch.isfinite(v).all()]
    if bad:
        raise InvalidVectorError(
            given=f"vector {vector.name!r} holds NaN or infinite values in layers {html.spans(bad)}",
            allowed="finite numbers",
            advice="extract it again",
        )


def unit_norm(vector: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """Return a vector at norm 1, however short it is; a vector of zeros, which has no direction, as it is."""
    exact = vector.double()
    norm = exact.norm()
    return (exact / norm if norm > 0 else exact).to(vector.dtype)


def check_not_zero(vector: ConceptVector) -> None:
    """Raise InvalidVectorError for a vector that is zero everywhere: it would only look like a null result."""
    if not any(math.isfinite(n) and n > 0 for n in vector.norms.values()):
        raise InvalidVectorError(
            given=f"vector {vector.name!r} is zero in every layer",
            allowed="a vector with some length; strength=0 is the way to a zero injection",
            advice="check what it was made from (v - v is zero)",
        )


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".gguf", ".safetensors"):
        raise UsageError(
            given=f"vector file {path}",
            allowed="a name that ends in .gguf or .safetensors",
            advice="choose one of the two formats",
        )


def _read_gguf(path: Path) -> ConceptVector:
    with reading(path, _KIND):
        reader = gguf_reader(path)
        if _EMBEDDING in {tensor.name for tensor in reader.tensors}:
            raise ValueError("it holds a model, not a vector: mi.load(path), --model")
        vectors = {_layer_of(t.name): torch.tensor(t.data.copy()).reshape(-1) for t in reader.tensors}
        _check_names(vectors, [tensor.name for tensor in reader.tensors])
        names = ("mechint.n_layers", f"{_ARCHITECTURE}.model_hint", _GGUF_SEAL)
        contents = {name: reader.fields[name].contents() for name in names if name in reader.fields}
        stated, hint, seal = map(contents.get, names)
        whole = sorted(vectors) == list(range(1, len(vectors) + 1))
        depth = int(stated) if stated is not None else len(vectors) + 1 if whole else None
        vector = _vector_of_file(path, vectors, path.stem, depth, {"file": path.name, "model": str(hint or "")})
        if seal is not None and seal != vector.fingerprint():
            raise altered(path, _KIND)
    return vector


def _read_safetensors(path: Path, kind: FileKind = _KIND) -> tuple[ConceptVector, bool]:
    """Return the vector in a file, and whether it has a checksum."""
    content = load_tensors(path, kind)
    with reading(path, kind):
        metadata = parsed_object(content.metadata.get("mechint", "{}"), "metadata")
        vectors = {_layer_of(name): tensor for name, tensor in content.tensors.items()}
        _check_names(vectors, list(content.tensors))
        name, depth = typed(metadata, "name", str, "") or path.stem, typed(metadata, "n_layers", int)
        provenance = typed(metadata, "provenance", dict, {})
        vector = _vector_of_file(path, vectors, str(name), cast(int | None, depth), cast(dict[str, JSON], provenance))
    return vector, content.sealed


def _vector_of_file(
    path: Path, vectors: Mapping[int, Tensor], name: str, depth: int | None, provenance: Mapping[str, JSON]
) -> ConceptVector:
    """Return the vector that a file holds; raises InvalidVectorError, naming the file."""
    try:
        return ConceptVector(vectors, name, depth, provenance)
    except InvalidVectorError as error:
        raise InvalidVectorError(f"{shown_path(path)}: {error.given}", error.allowed, error.advice) from error


def _layer_of(name: str) -> int:
    """Return the layer that a tensor is for; raises ValueError for any other tensor."""
    match = re.fullmatch(r"direction\.(0|[1-9]\d{0,5})", name)
    if match is None:
        raise ValueError(f"unexpected tensor {name[:80]!r}; control vectors hold direction.1, direction.2, ..")
    return int(match[1])


def _check_names(vectors: Mapping[int, Tensor], names: Sequence[str]) -> None:
    if not vectors or len(vectors) < len(names):
        raise ValueError("it holds no tensors direction.{k}" if not vectors else "it holds a tensor twice")
