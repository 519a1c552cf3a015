"""Files that anyone may have written or damaged: read in one place where whatever goes wrong becomes one message.

Parsers of formats raise what they like, and other things in their next versions. So nothing is expected here: every
exception inside `reading` is told as what it is, the file that cannot be used, with its true reason.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

from mechint.base.errors import MechintError, UsageError

_REASONS: dict[type[Exception] | tuple[type[Exception], ...], str] = {
    RecursionError: "it is nested too deeply",
    (MemoryError, OverflowError): "it claims to hold more than memory can",
    UnpicklingError: "it is a pickle that is damaged or holds more than tensors; what it would run is never run",
}


@dataclass(frozen=True)
class FileKind:
    """One kind of file, in the words of its error: what it is, what is allowed, the advice, and the error's class.

    With `folder` it may be a directory too.
    """

    description: str
    allowed: str
    advice: str = "check the file"
    error: type[MechintError] = UsageError
    folder: bool = False

    def refusal(self, path: str | Path, why: str) -> MechintError:
        """Return the error for a file that cannot be used."""
        return self.error(f"{shown_path(path)} cannot be read as {self.description}: {why}", self.allowed, self.advice)


@contextmanager
def reading(path: str | Path, kind: FileKind) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into the one error of its kind.

    What is no file at all (a pipe, a device) is never opened. Errors of this library pass as they are.
    """
    try:
        _check_file(Path(path), folder=kind.folder)
        yield
    except MechintError:
        raise
    except Exception as problem:
        raise kind.refusal(path, reason(problem)) from problem


def reason(problem: Exception) -> str:
    """Return the reason why a file could not be read, from an exception, on one line."""
    for kinds, words in _REASONS.items():
        if isinstance(problem, kinds):
            return words
    if isinstance(problem, UnicodeError):
        return f"it holds text that is not UTF-8 ({problem.reason})" if hasattr(problem, "reason") else str(problem)
    if isinstance(problem, KeyError):
        return f"it lacks {str(problem.args[0] if problem.args else '')[:80]!r}"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    n_lines = 2 if lines and lines[0].endswith(":") else 1  # some begin with where, and say what in the next line
    return " ".join(lines[:n_lines])[:300] or type(problem).__name__


def shown_path(path: str | Path) -> str:
    """Return a path for a message: shortened, characters that a terminal cannot show escaped."""
    text = str(path).encode("unicode_escape").decode() if not str(path).isprintable() else str(path)
    return text if len(text) <= 300 else f"{text[:300]}..."


def parsed_object(text: object, name: str) -> dict[str, object]:
    """Return the JSON object in a text of a file's metadata; raises ValueError, with its `name`, for anything else."""
    if not isinstance(text, str):
        raise ValueError(f"it has no {name}")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"its {name} is {_kind(content)}, not an object")
    return content


def typed(content: Mapping[str, object], name: str, kind: type | tuple[type, ...], default: object = None) -> object:
    """Return a field of a parsed object, or the default where it is missing or null; raises ValueError for others."""
    value = content.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"its {name} is {_kind(value)}")
    return value


def _check_file(path: Path, *, folder: bool) -> None:
    mode = os.stat(path).st_mode
    if folder and stat.S_ISDIR(mode):
        return
    if not stat.S_ISREG(mode):
        raise ValueError("it is a directory" if stat.S_ISDIR(mode) else "it is a pipe, a socket or a device")


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
