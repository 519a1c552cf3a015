"""What lies behind the options that name models and files, hashed: what came from others is not taken for done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from analyses.kit.options import Common
from mechint.base.artefacts import FileKind, reading
from mechint.base.files import sha256
from mechint.models.model_names import resolve
from mechint.organisms import HERE

_KIND = FileKind("a file of a model, a vector or conversations", "files that can be read", "check its permissions")
_CODE = (".py", ".pyc")


def digest(options: Common) -> str:
    """Return a hash of every byte of the model, vectors and conversations that options name, and of embedded models.

    Of a model from the hub they are those that are cached: its name alone where it has not been downloaded yet.
    """
    roots = [HERE, *_model(options.model), *filter(None, (options.vectors, options.conversations))]
    return sha256(*(chunk for root in roots for file in _files(root) for chunk in _said_of(root, file)))


def _model(name: str) -> list[Path]:
    source = resolve(name)
    if source.is_local:
        return [Path(place) for place in (source.location, source.adapter) if place is not None]
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(source.location, "config.json")
    return [Path(cached).parent] if isinstance(cached, str) else []


def _files(root: Path) -> Iterator[Path]:
    every = sorted(root.rglob("*")) if root.is_dir() else [root]
    yield from (file for file in every if file.is_file() and file.suffix not in _CODE)


def _said_of(root: Path, file: Path) -> tuple[bytes, bytes]:
    with reading(file, _KIND), file.open("rb") as content:
        digest_of = hashlib.file_digest(content, "sha256").digest()
    return str(file.relative_to(root)).encode(errors="surrogateescape"), digest_of
