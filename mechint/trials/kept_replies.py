"""Replies that are kept as they end, in a folder of parts, and found again by the ids of their rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import StaleArtefactError
from mechint.base.files import replace_atomically, sha256

COLUMNS = ("reply", "stopped", "n_tokens", "log_prob", "first_token_logit_diff")
_SECONDS = 20.0  # between parts: no more is lost by a kill


class KeptReplies:
    """What was said in rows, by their ids; in memory alone where there is no folder.

    Raises StaleArtefactError for a part that cannot be read, or holds an id that another holds with another reply.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory, self._written = directory, time.monotonic()
        parts = [] if directory is None else [_read(path) for path in sorted(directory.glob("replies-*.parquet"))]
        self._rows = pd.concat(parts) if parts else _empty()
        self._rows = self._rows[~self._rows.reset_index().duplicated().to_numpy()]
        if self._rows.index.has_duplicates:
            twice = self._rows.index[self._rows.index.duplicated()][0]
            raise StaleArtefactError(
                given=f"{directory}: two replies of the row {twice}",
                allowed="parts that one program has written",
                advice="delete the folder, or choose another",
            )
        self._new: list[pd.DataFrame] = []

    def rows(self, ids: Sequence[str]) -> pd.DataFrame:
        """Return the rows of these ids that are there (index `id`, columns `COLUMNS`)."""
        every = pd.concat([self._rows, *self._new])
        return every.loc[[name for name in ids if name in every.index]]

    def add(self, rows: pd.DataFrame) -> None:
        """Keep rows; they are on disk within seconds."""
        self._new.append(rows)
        if time.monotonic() - self._written > _SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is not on disk."""
        if not self._new:
            return
        part = pd.concat(self._new)
        if self.directory is not None:
            name = f"replies-{sha256(','.join(part.index).encode())[:16]}.parquet"
            replace_atomically(self.directory / name, lambda path: part.reset_index().to_parquet(path, index=False))
        self._rows, self._new, self._written = pd.concat([self._rows, part]), [], time.monotonic()


def _read(path: Path) -> pd.DataFrame:
    kind = FileKind(
        "Parquet", "a part that this program has written", "delete it: its rows are sampled again", StaleArtefactError
    )
    with reading(path, kind):
        return pd.read_parquet(path).set_index("id")[list(COLUMNS)]


def _empty() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in COLUMNS}, index=pd.Index([], name="id", dtype=object))
