"""The texts that evaluations ask: packaged ones by name, others from a file of the same form."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mechint.base.errors import UnknownNameError
from mechint.base.files import JSON, read_json

PACKAGED = ("full", "small")


def read_texts(name_or_path: str | Path, folder: str, noun: str) -> JSON:
    """Return the content of a `.json` file, or of the packaged file of a name in a folder of this floor.

    Raises UnknownNameError, which calls them by their noun, for a name that is not packaged, and UsageError for a file
    that cannot be read.
    """
    path = Path(name_or_path)
    if path.suffix == ".json":
        return read_json(path)
    if str(name_or_path) not in PACKAGED:
        allowed = f"{', '.join(PACKAGED)}, or a .json file"
        raise UnknownNameError(f"unknown {noun} {str(name_or_path)!r}", allowed, "choose one of these")
    return read_json(Path(str(resources.files("mechint.evals").joinpath(folder, f"{name_or_path}.json"))))
