"""The identity of a model's weights: a hash of every byte, made anew at each use, so that no edit can go unseen.

On a CPU XXH3 takes 10 GB/s and more for each core (measured), so a use costs about one token's pass: 50 ms for
135M parameters in float32. Weights on a GPU are copied once, as fast as the bus allows: some 5 s for the 64 GB of a 32B
model in bfloat16. Later uses ask there whether anything has changed, which is one read of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from jaxtyping import UInt8
from torch import Tensor
from xxhash import xxh3_128

from mechint.base.errors import ModelValidationError
from mechint.base.files import JSON, sha256
from mechint.models.backends.base import Backend

_PIECE = 1 << 26  # bytes that a thread takes from a device at a time
_SUMMED = 1 << 10  # words of eight bytes that are summed up into one
_ROWS = _PIECE // (8 * _SUMMED)
_THREADS = 8
_FEW = 1 << 25  # bytes that are hashed in the time that threads take to start: 2 ms, measured
# What a configuration says of where a checkpoint is from, of its text and of its own defaults, not of what it computes.
_ORIGIN = frozenset(
    {"_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "mechint_prompts", "pad_token_id"}
    | {"torch_dtype", "transformers_version", "use_cache"}
)

# Hashes of tensors on a GPU, with what they were made from: the version counter, and sums of all bytes, computed there.
Digests = dict[tuple[object, ...], tuple[tuple[int, str], str]]


@dataclass
class Weights:
    """All that a backend computes with: weights, buffers and the settings of its configuration.

    Models on the same weights may share `digests`.
    """

    backend: Backend
    digests: Digests = field(default_factory=dict)

    def hash(self) -> str:
        """Return the hash of names, shapes, dtypes and bytes of all weights and buffers, and of the settings.

        Raises ModelValidationError if weights were replaced by other tensors or are kept on disk.
        """
        self.check_in_place()
        named = dict(self._named())
        hashes = self._digests(list(named.values()))
        lines = [f"{name} {tuple(w.shape)} {w.dtype} {h}" for (name, w), h in zip(named.items(), hashes, strict=True)]
        return sha256(_settings(self.backend.settings()).encode(), *(line.encode() for line in sorted(lines)))

    def versions(self) -> tuple[int, ...]:
        """Return torch's own counts of edits of each weight and buffer; what is done to `.data` is not counted.

        Rotary frequencies that a model writes anew in each pass are told by what they are.
        """
        named = (*self.backend.parameters(), *self.backend.buffers())
        return tuple(hash(tuple(t.tolist())) if name.endswith("inv_freq") else t._version for name, t in named)

    def check_in_place(self) -> None:
        """Raise ModelValidationError if numbers would come from other tensors than the model holds now."""
        held = {tensor.data_ptr() for _, tensor in self._named()}
        if any(tensor.data_ptr() not in held for tensor in self.backend.shared()):
            raise ModelValidationError(
                given="weights of this model were replaced by other tensors (or moved) after it was loaded",
                allowed="edits in place: with torch.no_grad(): weight.copy_(new), or weight[...] = value",
                advice="edit in place, or wrap the edited model anew: mi.wrap()",
            )

    def forget(self) -> None:
        """Let the next hash be made from every byte, on a GPU too."""
        self.digests.clear()

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor once, under the first of its names."""
        places: set[tuple[object, ...]] = set()
        for name, tensor in (*self.backend.parameters(), *self.backend.buffers()):
            if tensor.is_meta:
                raise ModelValidationError(
                    given=f"weight {name}, whose values are on no device (kept on disk, or never read)",
                    allowed="a model that fits into the memory of its devices",
                    advice="load it on larger devices, or in bfloat16",
                )
            if (place := _place(tensor)) not in places:
                places.add(place)
                yield name, tensor

    def _digests(self, tensors: Sequence[Tensor]) -> list[str]:
        if sum(tensor.nbytes for tensor in tensors) < _FEW:
            return [self._digest(tensor) for tensor in tensors]
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
            return list(threads.map(self._digest, tensors))

    def _digest(self, tensor: Tensor) -> str:
        data = tensor.detach().reshape(-1).view(torch.uint8)
        if _on_cpu(data):
            return _hash(data)
        place, now = _place(tensor), (tensor._version, _hash(_sums(data)))
        before, digest = self.digests.get(place, (None, ""))
        if before != now:
            digest = _hash(data)
            self.digests[place] = (now, digest)
        return digest


def _place(tensor: Tensor) -> tuple[object, ...]:
    return (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _on_cpu(data: Tensor) -> bool:
    return data.is_cpu


def _hash(data: UInt8[Tensor, " n"]) -> str:
    digest = xxh3_128()
    for piece in torch.split(data, _PIECE):
        digest.update(piece.cpu().numpy().data)
    return digest.hexdigest()


def _sums(data: UInt8[Tensor, " n"]) -> UInt8[Tensor, " sums"]:
    """Return sums of the words in each 8 KB, weighted by where they are, and the bytes that are left over."""
    data = data.clone() if data.storage_offset() % 8 else data
    whole = len(data) // (8 * _SUMMED) * (8 * _SUMMED)
    words = data[:whole].view(torch.int64).reshape(-1, _SUMMED)
    weights = torch.randint(1 << 62, (_SUMMED,), generator=torch.Generator().manual_seed(0)).to(data.device) | 1
    # Upper bits are folded down: alone, an even number of changed signs would vanish beyond the highest bit.
    sums = [((piece ^ (piece >> 32)) * weights).sum(1) for piece in torch.split(words, _ROWS)]
    return torch.cat([*(block.view(torch.uint8) for block in sums), data[whole:]])


def _settings(settings: dict[str, JSON]) -> str:
    return json.dumps(_computing(settings), sort_keys=True, default=str)


def _computing(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {str(key): _computing(item) for key, item in value.items() if key not in _ORIGIN}
    return [_computing(item) for item in value] if isinstance(value, list) else value
