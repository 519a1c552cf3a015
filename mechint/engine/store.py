"""Finished cells on disk, by a hash of their inputs: an interrupted table goes on, several shards make one.

A store is a directory of Parquet files that are added and never changed. Killed at any moment, it has lost at most
what had not been added yet. A file is named by the hash of its content, so that what was altered is never believed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import StaleArtefactError
from mechint.base.files import JSON, remove_abandoned, write_atomically
from mechint.base.signatures import checked

if TYPE_CHECKING:
    import pandas as pd

# The readout of one cell: the columns of a table by layer.
Readings = Mapping[int, Mapping[str, float]]
ReceiptDict = dict[str, JSON]
# More files than this are put together into one when a store is opened.
_MANY = 64
_KIND = FileKind(
    description="cells of a store",
    allowed="files that a store of cells has written, as it has written them",
    advice="remove the file: its cells are computed again",
    error=StaleArtefactError,
)


class CellStore:
    """A directory of finished cells; several processes may add to it at the same time."""

    @checked
    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def files(self) -> list[Path]:
        """Return the files, in a fixed order."""
        return sorted(self.directory.glob("cells-*.parquet"))

    def add(self, cells: Mapping[str, Readings], receipts: Sequence[ReceiptDict] = ()) -> Path:
        """Add finished cells by key in one file, with the receipts of prefills that they were read from."""
        import pandas as pd

        rows = [
            {"key": key, "layer": layer, **row} for key, readings in cells.items() for layer, row in readings.items()
        ]
        table = pd.DataFrame(rows)
        table.attrs["receipts"] = list(receipts)
        content = BytesIO()
        table.to_parquet(content, index=False)
        # Two shards may add to one store at the same time: equal names mean equal content.
        return write_atomically(self.directory / _name(content.getvalue()), content.getvalue())

    def load(self) -> tuple[dict[str, dict[int, dict[str, float]]], list[ReceiptDict]]:
        """Return all finished cells by key and layer, and all receipts, each once.

        Raises StaleArtefactError for a file that is none of a store's, or was altered since it was written.
        """
        cells: dict[str, dict[int, dict[str, float]]] = {}
        receipts: list[ReceiptDict] = []
        for file in self.files():
            if (table := _read(file)) is None:
                continue
            receipts += table.attrs.get("receipts", [])
            names = [str(name) for name in table.columns if name not in ("key", "layer")]
            for key, layer, *values in table[["key", "layer", *names]].itertuples(index=False):
                cells.setdefault(key, {})[int(layer)] = dict(zip(names, values, strict=True))
        return cells, each_once(receipts)

    def compact(self) -> None:
        """Put many small files into one; interrupted, it leaves cells twice, which is the same as once."""
        files = self.files()
        if self.directory.is_dir():
            remove_abandoned(self.directory)
        if len(files) > _MANY:
            cells, receipts = self.load()
            whole = self.add(cells, receipts)
            for file in files:
                if file != whole:
                    file.unlink(missing_ok=True)

    def merge(self, others: Iterable[CellStore]) -> int:
        """Add the cells and receipts of other stores that this one lacks; return how many cells were added."""
        finished, kept = self.load()
        texts = {json.dumps(receipt, sort_keys=True) for receipt in kept}
        count = 0
        for other in others:
            cells, receipts = other.load()
            fresh = {key: readings for key, readings in cells.items() if key not in finished}
            new = [receipt for receipt in receipts if json.dumps(receipt, sort_keys=True) not in texts]
            if fresh or new:
                self.add(fresh, new)
            finished |= fresh
            count += len(fresh)
        return count


def each_once(receipts: Iterable[ReceiptDict]) -> list[ReceiptDict]:
    """Return receipts without repetitions: requests that share a prefill, and shards, tell of it more than once."""
    return list({json.dumps(receipt, sort_keys=True): receipt for receipt in receipts}.values())


def _name(content: bytes) -> str:
    return f"cells-{hashlib.sha256(content).hexdigest()}.parquet"


def _read(file: Path) -> pd.DataFrame | None:
    """Return the content of a file; None if another process has just put it together with others."""
    import pandas as pd

    if not file.exists():
        return None
    with reading(file, _KIND):
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        _check_unaltered(file, content)
        table = pd.read_parquet(BytesIO(content))
        if not {"key", "layer"} <= set(table.columns):
            raise ValueError(f"it has columns {list(table.columns)[:5]}")
    return table


def _check_unaltered(file: Path, content: bytes) -> None:
    if not re.fullmatch(r"cells-[0-9a-f]{64}\.parquet", file.name):
        raise ValueError("it has no checksum in its name: an earlier version wrote it, or it was renamed")
    if file.name != _name(content):
        raise ValueError("it was altered or damaged: its checksum is not the one in its name")
