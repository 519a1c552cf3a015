"""What an interrupted gallery has finished: kept in its folder until all is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from analyses import ANALYSES
from analyses.kit import earlier, inputs
from analyses.kit.options import Common
from mechint.base.errors import UsageError
from mechint.base.files import read_json, sha256, write_atomically

_FILE = ".unfinished.json"
_ROOT = Path(__file__).resolve().parents[2]


class Unfinished:
    """The analyses that a run with these options, models and code has finished, kept in its output directory.

    `begun` says whether there was such a run, which is gone on with.
    """

    def __init__(self, options: Common, argv: Sequence[str]) -> None:
        self._path, self.key = options.out / _FILE, _key(options, argv)
        names = self._read()
        self.begun, self.names = names is not None, names or []

    def _read(self) -> list[str] | None:
        """Return what was finished before; None where nothing was begun, or with other options, models or code."""
        if not self._path.is_file():
            return None
        with suppress(UsageError):
            kept = read_json(self._path)
            names = kept.get("names") if isinstance(kept, dict) and kept.get("key") == self.key else None
            return [name for name in ANALYSES if name in names] if isinstance(names, list) else None
        return None

    def begin(self) -> None:
        """Remember that a run has begun."""
        write_atomically(self._path, json.dumps({"key": self.key, "names": self.names}) + "\n")

    def add(self, name: str) -> None:
        """Remember that an analysis is finished."""
        self.names = [*self.names, *([] if name in self.names else [name])]
        self.begin()

    def forget(self) -> None:
        """Let the next run begin anew."""
        self._path.unlink(missing_ok=True)


def _key(options: Common, argv: Sequence[str]) -> str:
    """Return a hash of options, the files behind them, and all source files: nothing old is taken for finished."""
    files = sorted(file for folder in ("analyses", "mechint") for file in (_ROOT / folder).rglob("*.py"))
    dependencies = [[argument for argument in argv if argument != earlier.OVERWRITE], inputs.digest(options)]
    return sha256(json.dumps(dependencies).encode(), *(file.read_bytes() for file in files))
