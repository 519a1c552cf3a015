"""Folders of results that took long to make: written whole or not at all, and sealed, so that a damaged one is seen.

The seal is a file beside the others that holds their checksums and a record of what they are.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mechint.base.artefacts import reason, shown_path
from mechint.base.errors import OutputError, UsageError
from mechint.base.files import JSON, read_json, remove_abandoned_folders, sha256, temporary_prefix

SEAL = "kept.json"


def kept_record(folder: Path) -> dict[str, JSON] | None:
    """Return the record of a folder that `keep_folder` has written; None where there is none, or it was altered."""
    try:
        content = read_json(folder / SEAL)
    except UsageError:
        return None
    if not isinstance(content, dict) or content.get("sha256") != _sums(folder):
        return None
    record = content.get("record")
    return record if isinstance(record, dict) else None


def keep_folder(folder: Path, write: Callable[[Path], Mapping[str, JSON]]) -> Path:
    """Let `write` fill a folder beside `folder` and return its record, then seal it and move it into place.

    Where another process has made the same one in the meantime, that one stays; a damaged one is replaced. Raises
    OutputError for whatever the disk refuses.
    """
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned_folders(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=temporary_prefix(folder.name), dir=folder.parent))
        record = dict(write(temporary))
        seal = {"record": record, "sha256": _sums(temporary)}
        (temporary / SEAL).write_text(json.dumps(seal) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        _move(temporary, folder)
    except OSError as error:
        raise OutputError(
            given=f"{shown_path(folder)} cannot be written: {reason(error)}",
            allowed="a folder that exists or can be made, with write permission and space",
            advice="name another cache folder (MECHINT_CACHE), or make room",
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _move(temporary: Path, folder: Path) -> None:
    if folder.exists() and kept_record(folder) is None:
        shutil.rmtree(folder)
    try:
        os.rename(temporary, folder)
    except OSError:
        if kept_record(folder) is None:
            raise


def _sums(folder: Path) -> dict[str, JSON]:
    """Return the checksums of all files of a folder but its seal."""
    sums: dict[str, JSON] = {}
    with suppress(OSError):
        for file in sorted(folder.iterdir()):
            if file.name != SEAL and file.is_file():
                sums[file.name] = sha256(file.read_bytes())
    return sums
