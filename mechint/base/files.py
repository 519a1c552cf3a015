"""Writing files so that nobody ever meets half of one, and reading JSON so that a slip is shown where it is."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mechint.base.artefacts import FileKind, reading, reason, shown_path
from mechint.base.errors import OutputError, UsageError

if TYPE_CHECKING:
    JSON = str | int | float | bool | None | list["JSON"] | dict[str, "JSON"]
else:
    JSON = object  # run-time checkers cannot follow a type that contains itself

# Characters of a target's name in that of its temporary file, which is longer; and the age in seconds of one that no
# machine can still be writing to.
_STEM, _OLD = 100, 7 * 24 * 3600
_TEMPORARY = re.compile(r"\.(?P<stem>.*)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d{1,9})\.[^.]*(?:\.[^.]*)?")


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` to `path` through a temporary file in the same folder; return `path`.

    Raises OutputError where the folder cannot be made or written to.
    """
    data = content.encode() if isinstance(content, str) else content
    return replace_atomically(path, lambda temporary: _write_bytes(temporary, data))


def replace_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it into place; return `path`.

    The temporary file keeps the suffix of `path`, as some writers choose their format by it. Those that a killed
    process has left of the same target are removed. Raises OutputError for whatever the disk refuses.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, path.stem)
        handle, name = tempfile.mkstemp(prefix=temporary_prefix(path.stem), suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except Exception as error:
        if not _is_of_the_disk(error):
            raise
        raise OutputError(
            given=f"{shown_path(path)} cannot be written: {reason(error)}",
            allowed="a folder that exists or can be made, with write permission and space",
            advice="choose another output folder, or make room",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def remove_abandoned(directory: Path, stem: str | None = None) -> None:
    """Remove temporary files of `replace_atomically` whose writer has died: of targets with this stem, or of all.

    Such a file is of a process of this machine that is no more, or a week old; any other may still be written to.
    """
    with os.scandir(directory) as entries:
        hidden = [entry for entry in entries if entry.name.startswith(f".{(stem or '')[:_STEM]}")]
    for entry in hidden:
        match = _TEMPORARY.fullmatch(entry.name)
        if match and (stem is None or match["stem"] == stem[:_STEM]) and _is_abandoned(entry, match):
            Path(entry.path).unlink(missing_ok=True)


def remove_abandoned_folders(directory: Path) -> None:
    """Remove temporary folders, named by `temporary_prefix`, whose writer has died."""
    with os.scandir(directory) as entries:
        hidden = [entry for entry in entries if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)]
    for entry in hidden:
        match = _TEMPORARY.fullmatch(entry.name)
        if match and _is_abandoned(entry, match):
            shutil.rmtree(entry.path, ignore_errors=True)


def temporary_prefix(stem: str) -> str:
    """Return how the name of a temporary file or folder begins: hidden, with its target's stem and who writes it."""
    return f".{stem[:_STEM]}.{_writer()}."


def _is_abandoned(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    try:
        if match["host"] == _host() and not psutil.pid_exists(int(match["pid"])):
            return True
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD
    except (OSError, OverflowError):  # gone in the meantime, or no number of a process
        return False


def _writer() -> str:
    return f"{_host()}-{os.getpid()}"


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_of_the_disk(error: Exception) -> bool:
    """Whether an error is the operating system's; writers in Rust raise their own, which quote it in the text."""
    return isinstance(error, OSError) or "(os error " in str(error)


def remove_file(path: Path) -> None:
    """Remove a file if it is there. Raises OutputError where the system does not let it be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            given=f"{shown_path(path)} cannot be removed: {'it is a directory' if path.is_dir() else reason(error)}",
            allowed="a folder with files of earlier results alone",
            advice="move it elsewhere, or choose another output folder",
        ) from error


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
    with reading(path, FileKind("JSON", "a readable UTF-8 JSON file", "check the path", kind)):
        text = path.read_text(encoding="utf-8")
        try:
            parsed: JSON = json.loads(text, object_pairs_hook=_each_key_once)
        except json.JSONDecodeError as problem:
            raise kind(
                given=f"{path}, line {problem.lineno}, column {problem.colno}: broken JSON ({problem.msg})",
                allowed="valid JSON",
                advice="correct the file at that line",
            ) from problem
        # What could not be written again (NaN, half a character) would fail later, far from the file.
        json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()
    return parsed


def _each_key_once(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated = next(key for key, _ in pairs if [name for name, _ in pairs].count(key) > 1)
        raise ValueError(f"it holds {repeated!r} twice in one object")
    return content


def sha256(*chunks: bytes) -> str:
    """Return the hexadecimal SHA-256 of the chunks, each preceded by its length so that borders count."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(len(chunk).to_bytes(8, "little"))
        digest.update(chunk)
    return digest.hexdigest()
