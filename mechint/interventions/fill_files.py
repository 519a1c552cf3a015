"""Files of a two-phase swap: the KV cache of one prefix with all that it was filled from, read layer by layer.

A file's metadata says what filled it and which tokens it is of, and seals that and every tensor with a checksum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from mechint.base.artefacts import FileKind
from mechint.base.errors import CacheMismatchError, ConversationError, StaleArtefactError, UsageError
from mechint.base.files import replace_atomically, sha256
from mechint.base.tensor_files import checksum, opened
from mechint.chat.render import Rendered
from mechint.models.backends.past import KeyValues
from mechint.models.cache import KVCache
from mechint.models.model import Model

if TYPE_CHECKING:
    from safetensors import safe_open

_FORMAT = "mechint fill 1"
_KIND = FileKind(
    description="a fill",
    allowed="a file as mi.fill has written it, from the same model, intervention and tokens",
    advice="remove it and run mi.fill again: only what is missing is filled",
    error=StaleArtefactError,
)


@dataclass(frozen=True)
class FillSource:
    """The source of a fill: a model's weights under an intervention, by their hashes, and who can read its caches.

    `causal` says that what is done at a position depends on nothing after it. Prefixes that begin alike then agree as
    far as they do; an injection narrowed to some segments is not of this kind.
    """

    model: str
    intervention: str
    causal: bool
    backend: str
    dtype: str
    shape: str
    cached: str
    vocabulary: str

    @classmethod
    def of(cls, model: Model, intervention: str, *, causal: bool) -> FillSource:
        """Return the source of what `model` fills under the intervention with this key."""
        backend = model.backend
        shape = f"n_layers={model.n_layers}, d_model={model.d_model}, d_vocab={backend.d_vocab}"
        runs = [f"{len(list(run))} of {'x'.join(map(str, sizes))}" for sizes, run in groupby(model.cache_shapes)]
        done = (model.identity, intervention, causal)
        return cls(*done, backend.kind, str(backend.dtype), shape, ", ".join(runs), model.vocabulary)

    def fingerprint(self) -> str:
        """Hash of everything that a cache from here depends on, but for its tokens."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode())

    def check_fits(self, model: Model, name: str) -> None:
        """Raise CacheMismatchError unless `model` can read these caches."""
        asking = FillSource.of(model, self.intervention, causal=self.causal)
        compared = [field.name for field in fields(self) if field.name != "model"]
        if differing := [key for key in compared if getattr(self, key) != getattr(asking, key)]:
            filled = {key: getattr(self, key)[:60] for key in differing}
            readable = {key: getattr(asking, key)[:60] for key in differing}
            raise CacheMismatchError(
                given=f"{name}: caches with {filled}",
                allowed=f"those that {model.name} reads: {readable}",
                advice="fill with a finetuned copy of the same model, loaded with the same backend and dtype",
            )


@dataclass(frozen=True)
class Prefix:
    """First turns of a conversation, marked without a gap: their tokens, and the position after each segment."""

    tokens: tuple[int, ...]
    stops: tuple[int, ...]

    @classmethod
    def of(cls, rendered: Rendered) -> Prefix:
        """Return the prefix of a conversation; raises ConversationError unless all of it is marked, from position 0."""
        stop = rendered.prefix_length
        first = [segment for segment in rendered.segments if segment.stop <= stop]
        if not first or not all(segment.add_injection for segment in first):
            raise ConversationError(
                given=f"conversation {rendered.label!r}: its marks do not begin at its first message, or have gaps"
                if first
                else f"conversation {rendered.label!r}: no message is marked add_injection",
                allowed="marks on the first messages, without a gap, where one model fills alone",
                advice="mark these messages, or swap with both models in memory: mi.Swap(other)",
            )
        return cls(rendered.tokens[:stop], tuple(segment.stop for segment in first))

    @property
    def file_name(self) -> str:
        """Name of the file that holds the cache of this prefix."""
        return f"prefix-{sha256(self._text().encode())[:40]}.safetensors"

    def _text(self) -> str:
        return json.dumps([self.tokens, self.stops])


@dataclass(frozen=True)
class StoredPrefix:
    """The file that holds the cache of one prefix, or will."""

    directory: Path
    source: FillSource
    prefix: Prefix

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.directory / self.prefix.file_name

    @cached_property
    def identity(self) -> str:
        """Hash of its source: equal for files that agree wherever their tokens do."""
        fingerprint = self.source.fingerprint()
        return fingerprint if self.source.causal else sha256(fingerprint.encode(), self.prefix.file_name.encode())

    def write(self, cache: KVCache, model_name: str, intervention_name: str) -> Path:
        """Write the cache (one row) atomically; the names are for people, and no part of its identity."""
        from safetensors.torch import save_file

        tensors = {name: tensor.contiguous() for name, tensor in cache.to("cpu").tensors().items()}
        sums = {name: checksum(tensor) for name, tensor in tensors.items()}
        head = {"format": _FORMAT, "model_name": model_name, "intervention_name": intervention_name}
        head |= {"filler": json.dumps(asdict(self.source)), "prefix": self.prefix._text()}
        head["checksums"] = json.dumps(sums)
        metadata = {**head, "seal": _seal(head)}
        return replace_atomically(self.path, lambda path: save_file(tensors, path, metadata=metadata))

    def is_whole(self) -> bool:
        """Whether the file is there, is of this source and prefix, and is undamaged in all its layers."""
        try:
            self.cache()
        except StaleArtefactError:
            return False
        return True

    def cache(self) -> KVCache:
        """Return the whole cache; raises StaleArtefactError for a file that is missing, damaged or another one."""
        with _opened(self.path) as (file, head):
            sums = self._sums(head)
            layers = range(len(sums) // 2)
            keys = tuple(self._tensor(file, f"keys.{layer}", sums) for layer in layers)
            values = tuple(self._tensor(file, f"values.{layer}", sums) for layer in layers)
        return KVCache(keys, values)

    def layer(self, layer: int) -> KeyValues:
        """Return keys and values of one layer (`1 heads pos d_head`), read from the file; raises StaleArtefactError."""
        with _opened(self.path) as (file, head):
            sums = self._sums(head)
            return self._tensor(file, f"keys.{layer}", sums), self._tensor(file, f"values.{layer}", sums)

    def _sums(self, head: Mapping[str, str]) -> dict[str, str]:
        if _source(head) != self.source or head["prefix"] != self.prefix._text():
            raise _KIND.refusal(self.path, "it was filled by something else, or from other tokens")
        sums: dict[str, str] = json.loads(head["checksums"])
        return sums

    def _tensor(self, file: safe_open, name: str, sums: Mapping[str, str]) -> Tensor:
        tensor: Tensor = file.get_tensor(name)
        if checksum(tensor) != sums.get(name):
            raise _KIND.refusal(self.path, f"the values of {name} are not those that were written")
        return tensor


def stored_files(directory: Path) -> list[Path]:
    """Return the files of a fill, in a fixed order."""
    return sorted(directory.glob("prefix-*.safetensors"))


def read_head(path: Path) -> tuple[FillSource, str]:
    """Return the source of a file and its name; raises StaleArtefactError for a file that is damaged."""
    with _opened(path) as (_, head):
        model, intervention = head["model_name"], head["intervention_name"]
        return _source(head), model if intervention == "clean" else f"{model}, {intervention}"


def read_fill(directory: Path) -> tuple[FillSource, str]:
    """Return the source of a directory's files and its name; only the heads of the files are read.

    Raises UsageError for a directory that holds no fill, StaleArtefactError for a damaged file and for two sources.
    """
    names: dict[FillSource, str] = {}
    for path in stored_files(directory):
        source, name = read_head(path)
        names.setdefault(source, name)
    if len(names) > 1:
        raise StaleArtefactError(
            given=f"{directory} holds caches of {' and of '.join(names.values())}",
            allowed="caches that one model filled",
            advice="fill into separate directories",
        )
    if not names:
        raise UsageError(f"{directory} is no fill", "a directory that mi.fill has written", "run mi.fill first")
    return next(iter(names.items()))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[safe_open, dict[str, str]]]:
    """Open a file and check its seal and its name; raises StaleArtefactError."""
    with opened(path, _KIND) as (file, head):
        sealed = head.pop("seal", "")
        if head.get("format") != _FORMAT or sealed != _seal(head):
            raise _KIND.refusal(path, "its metadata is not what mi.fill has written")
        if path.name != Prefix(*map(tuple, json.loads(head["prefix"]))).file_name:
            raise _KIND.refusal(path, "it was renamed")
        yield file, head


def _source(head: Mapping[str, str]) -> FillSource:
    return FillSource(**json.loads(head["filler"]))


def _seal(head: Mapping[str, str]) -> str:
    return sha256(json.dumps(head, sort_keys=True).encode())
