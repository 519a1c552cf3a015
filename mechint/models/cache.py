"""KV caches as plain tensors, the same for every backend: clone, select, expand, crop, move, save, load.

A forward pass never writes into these tensors: backends hand copies or concatenations to their own cache objects, so
a filled cache can be read any number of times. What a key is differs between backends (HookedTransformer keeps keys
before the rotation by position, the bridge after it), so a cache is for the backend that filled it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import CacheMismatchError, StaleArtefactError
from mechint.base.files import sha256
from mechint.base.signatures import checked
from mechint.base.tensor_files import load_tensors, save_tensors

_KIND = FileKind(
    description="a KV cache",
    allowed="a file that KVCache.save has written",
    advice="compute it again from the inputs at hand",
    error=StaleArtefactError,
)


@dataclass(frozen=True, eq=False)
class KVCache:
    """Keys and values per layer, each `batch n_key_value_heads pos d_head`; an empty tuple is a cache of length 0.

    Heads and their width may differ by layer (Gemma 4).
    `mask` is the attention mask of the cached positions (False at padding), or None where nothing is padded.
    """

    keys: tuple[Float[Tensor, "batch _ pos _"], ...] = ()
    values: tuple[Float[Tensor, "batch _ pos _"], ...] = ()
    mask: Bool[Tensor, "batch pos"] | None = None

    @property
    def n_layers(self) -> int:
        """Number of layers that are cached."""
        return len(self.keys)

    @property
    def n_pos(self) -> int:
        """Number of cached positions."""
        return self.keys[0].shape[2] if self.keys else 0

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.keys[0].shape[0] if self.keys else 0

    def clone(self) -> KVCache:
        """Return a copy that shares no memory."""
        return self._map(torch.clone)

    def select(self, rows: Int[Tensor, " n"]) -> KVCache:
        """Return a new cache with the given rows, in the given order; rows may repeat."""
        return self._map(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))

    def expand(self, batch: int) -> KVCache:
        """Return a view of a single row as `batch` equal rows, without copying."""
        if self.n_layers and self.batch != 1:
            raise CacheMismatchError(f"a cache of {self.batch} rows", "one row to expand", "select one row first")
        return self._map(lambda tensor: tensor.expand(batch, *tensor.shape[1:]))

    def crop(self, n_pos: int) -> KVCache:
        """Return the first `n_pos` positions, as a view."""
        if not 0 <= n_pos <= self.n_pos:
            raise CacheMismatchError(f"a crop to {n_pos} positions", f"0 to {self.n_pos}", "crop inside the cache")
        mask = None if self.mask is None else self.mask[:, :n_pos]
        keys = tuple(tensor[:, :, :n_pos] for tensor in self.keys)
        values = tuple(tensor[:, :, :n_pos] for tensor in self.values)
        return replace(self, keys=keys, values=values, mask=mask)

    def to(self, device: str | torch.device) -> KVCache:
        """Return the cache on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def fingerprint(self) -> str:
        """SHA-256 of every key, value and mask: equal only for equal contents."""
        tensors = [*self.keys, *self.values, *([] if self.mask is None else [self.mask])]
        return sha256(*(t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for t in tensors))

    @checked
    def save(self, path: str | Path, identity: Mapping[str, str]) -> Path:
        """Write the cache as sealed safetensors with `identity` (a hash of its inputs) as metadata, atomically."""
        return save_tensors(Path(path), self.tensors(), identity)

    def tensors(self) -> dict[str, Tensor]:
        """Return keys, values and mask by the names that they have in a file."""
        named = {f"{kind}.{i}": tensor for kind, side in self._sides() for i, tensor in enumerate(side)}
        return named if self.mask is None else named | {"mask": self.mask}

    @classmethod
    @checked
    def load(cls, path: str | Path, identity: Mapping[str, str]) -> KVCache:
        """Return a saved cache; raises StaleArtefactError for a file that is damaged, or of another identity."""
        content = load_tensors(Path(path), _KIND)
        _check_identity(Path(path), content.metadata, identity)
        with reading(path, _KIND):
            n_layers = sum(name.startswith("keys.") for name in content.tensors)
            keys = tuple([content.tensors[f"keys.{layer}"] for layer in range(n_layers)])
            values = tuple([content.tensors[f"values.{layer}"] for layer in range(n_layers)])
            return cls(keys, values, content.tensors.get("mask"))

    def _sides(self) -> tuple[tuple[str, tuple[Tensor, ...]], ...]:
        return (("keys", self.keys), ("values", self.values))

    def _map(self, change: Callable[[Tensor], Tensor]) -> KVCache:
        keys = tuple(change(tensor) for tensor in self.keys)
        values = tuple(change(tensor) for tensor in self.values)
        return KVCache(keys, values, None if self.mask is None else change(self.mask))


def concatenate(caches: Sequence[KVCache]) -> KVCache:
    """Return one cache with the rows of all, in order. Raises CacheMismatchError if layers or positions differ."""
    shapes = {(cache.n_layers, cache.n_pos, cache.mask is None) for cache in caches}
    if len(shapes) != 1:
        raise CacheMismatchError(
            f"caches of different (layers, positions, unpadded): {sorted(shapes)}", "equal ones", "fill them alike"
        )
    keys = tuple(torch.cat(layer) for layer in zip(*(cache.keys for cache in caches), strict=True))
    values = tuple(torch.cat(layer) for layer in zip(*(cache.values for cache in caches), strict=True))
    masks = [cache.mask for cache in caches if cache.mask is not None]
    return KVCache(keys, values, torch.cat(masks) if masks else None)


def _check_identity(path: Path, saved: Mapping[str, str], expected: Mapping[str, str]) -> None:
    differing = sorted(key for key in {*saved, *expected} if saved.get(key) != expected.get(key))
    if differing:
        key = differing[0]
        raise StaleArtefactError(
            given=f"{path} was saved with {key}={saved.get(key)!r}",
            allowed=f"{key}={expected.get(key)!r} (all that differs: {', '.join(differing)})",
            advice="compute it again from the inputs at hand",
        )
