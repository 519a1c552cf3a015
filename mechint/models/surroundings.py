"""What numbers depend on beside what a model was given: weights, how they are run, the software and our own code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from mechint.base.files import JSON, sha256
from mechint.models.model import Model

_PACKAGES = ("mechint", "torch", "transformers", "transformer-lens")


def surroundings(model: Model, identity: str, floors: Sequence[str]) -> str:
    """Return a hash of the weights (`identity`), backend, type and kind of device, versions, and the code of floors.

    `floors` are folders of `mechint`. What is kept under such a hash is never met by other code, so that a corrected
    error does not live on in old files.
    """
    run = [identity, model.backend.kind, model.dtype_name, model.device.type]
    folder = Path(__file__).resolve().parents[1]
    sources = [source for floor in floors for source in sorted((folder / floor).rglob("*.py"))]
    return sha256(json.dumps([run, versions()]).encode(), *(source.read_bytes() for source in sources))


def versions() -> dict[str, JSON]:
    """Return the versions of the software that runs a model."""
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
