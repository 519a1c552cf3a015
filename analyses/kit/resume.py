"""Rows that are no cells of the engine, in chunks; each is kept until the run is done, which goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import kept_tables
from analyses.kit.options import Common
from analyses.kit.record import store_directory
from mechint.base.artefacts import FileKind
from mechint.base.errors import StaleArtefactError
from mechint.base.files import sha256
from mechint.engine.store import each_once

if TYPE_CHECKING:
    import pandas as pd

    from mechint.interventions.specifications import Intervention
    from mechint.models.model import Model


_KIND = FileKind(
    description="rows of an interrupted run",
    allowed="files as the run has left them",
    advice="remove the file: its rows are computed again",
    error=StaleArtefactError,
)


@dataclass(frozen=True)
class Chunk:
    """Some rows: how many they are, the key of all that they depend on, and how they are computed."""

    n_rows: int
    key: str
    compute: Callable[[], pd.DataFrame]


def key(model: Model, interventions: Sequence[Intervention], *dependencies: object) -> str:
    """Return a hash of a model as it is run, interventions with their names, and other dependencies as texts."""
    from mechint.interventions.specifications import key_for

    identity = (model.identity, model.backend.kind, str(model.backend.dtype))
    doses = [(intervention.name, key_for(model, intervention)) for intervention in interventions]
    return sha256(*(repr(field).encode() for field in (identity, doses, *dependencies)))


def compute_chunks(config: Common, name: str, kind: str, chunks: Sequence[Chunk]) -> pd.DataFrame:
    """Return the rows of all chunks, or of a shard's; their index is their place in the whole.

    `attrs["receipts"]` holds the receipts that the chunks have in theirs. Finished chunks are read where an
    interrupted call has left them; `record.discard_store` removes them with the cells.
    """
    import pandas as pd

    from mechint.base.progress import tracked

    store = store_directory(config.out / name, config.shard)
    starts = [sum(chunk.n_rows for chunk in chunks[:number]) for number in range(len(chunks))]
    numbers = range(len(chunks)) if config.shard is None else range(config.shard.index, len(chunks), config.shard.count)
    tables = []
    for number in tracked(numbers, f"{name}: {kind}", "vector", shown=True):
        rows = _kept(store / f"{kind}-{chunks[number].key}.parquet", chunks[number].compute)
        tables.append(rows.set_index(pd.RangeIndex(starts[number], starts[number] + len(rows))))
    receipts = each_once([receipt for rows in tables for receipt in rows.attrs.pop("receipts", [])])
    table = (
        pd.concat(tables) if tables else pd.DataFrame(columns=["conversation", "intervention", "asked", "reference"])
    )
    table.attrs["receipts"] = receipts
    return table


def joined(cells: pd.DataFrame, rows: pd.DataFrame, n_requests: int) -> pd.DataFrame:
    """Return the rows of `compute.compute`, of so many requests, with others, for `finished` one request more."""
    import pandas as pd

    receipts = each_once([receipt for table in (cells, rows) for receipt in table.attrs.pop("receipts")])
    table = pd.concat([cells, rows.assign(request=n_requests)] if len(rows) else [cells])
    table.attrs["receipts"] = receipts
    return table


def stacked(*tables: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of several steps, one below the other, with each of their receipts once."""
    import pandas as pd

    receipts = each_once([receipt for table in tables for receipt in table.attrs.pop("receipts")])
    table = pd.concat(tables, ignore_index=True)
    table.attrs["receipts"] = receipts
    return table


def with_ratio(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `added_ratio`: |added| / the model's median residual norm, as receipts have it, mean over layers.

    Zero for clean rows, NaN for a model that has no such unit.
    """
    import numpy as np

    ratios_of: dict[str, list[float]] = {}
    for receipt in rows.attrs["receipts"]:
        if receipt["layers"] and not receipt["positions"]:
            continue  # a reply of one token: it was chosen, and none of it was read
        measured = [np.nan if layer[3] is None else layer[3] for layer in receipt["layers"].values()]
        ratios_of.setdefault(receipt["intervention"], []).extend(measured or [0.0])
    means = {name: float(np.mean(ratios)) for name, ratios in ratios_of.items()}
    return rows.assign(added_ratio=rows["intervention"].map(means).astype(float))


def _kept(file: Path, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    if not file.exists():
        kept_tables.write(compute(), file)
    # Read back also where it was just computed, so that an interrupted run's rows have the same types.
    return kept_tables.read(file, _KIND)
