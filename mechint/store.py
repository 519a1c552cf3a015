"""Finished cells on disk, by what they were computed from: an interrupted table goes on, several shards make one.

A store is a directory of Parquet files that are added and never changed. Killed at any moment, it has lost at most
what had not been added yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from mechint.errors import UsageError
from mechint.files import JSON, replace_atomically

if TYPE_CHECKING:
    import pandas as pd

# The readout of one cell: the columns of a table by layer.
Readings = Mapping[int, Mapping[str, float]]
ReceiptDict = dict[str, JSON]
# More files than this are put together into one when a store is opened.
_MANY = 64


class CellStore:
    """A directory of finished cells; several processes may add to it at the same time."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def files(self) -> list[Path]:
        """Return the files, in a fixed order."""
        return sorted(self.directory.glob("cells-*.parquet"))

    def add(self, cells: Mapping[str, Readings], receipts: Sequence[ReceiptDict] = ()) -> Path:
        """Add finished cells by key in one file, with the receipts of prefills that they were read from."""
        import pandas as pd

        rows = [{"key": key, "layer": layer, **row} for key, found in cells.items() for layer, row in found.items()]
        table = pd.DataFrame(rows)
        table.attrs["receipts"] = list(receipts)
        # Not named by content or number: two shards may add to one store at the same time.
        return replace_atomically(
            self.directory / f"cells-{uuid4().hex}.parquet", partial(table.to_parquet, index=False)
        )

    def load(self) -> tuple[dict[str, dict[int, dict[str, float]]], list[ReceiptDict]]:
        """Return all finished cells by key and layer, and all receipts, each once.

        Raises UsageError for a file that is none of a store's.
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
        if len(files) > _MANY:
            cells, receipts = self.load()
            self.add(cells, receipts)
            for file in files:
                file.unlink(missing_ok=True)

    def merge(self, others: Iterable[CellStore]) -> int:
        """Add what other stores have and this one lacks; return how many cells that were."""
        mine, known = self.load()
        seen = {json.dumps(receipt, sort_keys=True) for receipt in known}
        count = 0
        for other in others:
            theirs, receipts = other.load()
            fresh = {key: found for key, found in theirs.items() if key not in mine}
            new = [receipt for receipt in receipts if json.dumps(receipt, sort_keys=True) not in seen]
            if fresh or new:
                self.add(fresh, new)
            mine |= fresh
            count += len(fresh)
        return count


def each_once(receipts: Iterable[ReceiptDict]) -> list[ReceiptDict]:
    """Return receipts without repetitions: requests that share a prefill, and shards, tell of it more than once."""
    return list({json.dumps(receipt, sort_keys=True): receipt for receipt in receipts}.values())


def _read(file: Path) -> pd.DataFrame | None:
    """Return the content of a file; None if another process has just put it together with others."""
    import pandas as pd
    from pyarrow import ArrowInvalid

    try:
        table = pd.read_parquet(file)
    except FileNotFoundError:
        return None
    except ArrowInvalid as error:
        raise _broken(file, str(error)) from error
    if not {"key", "layer"} <= set(table.columns):
        raise _broken(file, f"columns {list(table.columns)[:5]}")
    return table


def _broken(file: Path, why: str) -> UsageError:
    return UsageError(
        f"{file}: {why}", "files that a store of cells has written", "remove it; its cells are done again"
    )
