"""Writing files so that nobody ever meets half of one, and reading JSON so that a slip is shown where it is."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.errors import OutputError, UsageError

if TYPE_CHECKING:
    JSON = str | int | float | bool | None | list["JSON"] | dict[str, "JSON"]
else:
    JSON = object  # run-time checkers cannot follow a type that contains itself


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` to `path` through a temporary file in the same folder; return `path`.

    Raises OutputError where the folder cannot be made or written to.
    """
    data = content.encode() if isinstance(content, str) else content
    return replace_atomically(path, lambda temporary: _write_bytes(temporary, data))


def replace_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it into place; return `path`.

    The temporary file keeps the suffix of `path`, as some writers choose their format by it.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            given=f"{path} cannot be written: {error.strerror or error}",
            allowed="a folder that exists or can be made, with write permission and space",
            advice="choose another output folder",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def check_writable(directory: Path, option: str) -> None:
    """Raise OutputError, naming `option`, unless a file can be made in `directory` (which is made)."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OutputError(
            given=f"{option}: {directory} cannot be written: {error.strerror or error}",
            allowed="a directory that can be made and written to",
            advice=f"choose another {option}",
        ) from error


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def read_json(path: Path, error: type[UsageError] | None = None) -> JSON:
    """Return the parsed content of a JSON file; broken JSON is reported with file, line and column."""
    kind = error or UsageError
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise kind(
            given=f"{path} cannot be read: {problem}",
            allowed="a readable UTF-8 JSON file",
            advice="check the path",
        ) from problem
    try:
        parsed: JSON = json.loads(text)
    except json.JSONDecodeError as problem:
        raise kind(
            given=f"{path}, line {problem.lineno}, column {problem.colno}: broken JSON ({problem.msg})",
            allowed="valid JSON",
            advice="correct the file at that line",
        ) from problem
    return parsed


def sha256(*parts: bytes) -> str:
    """Return the hexadecimal SHA-256 of the parts, each preceded by its length so that borders count."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
