"""Parts: what each shard of a table leaves on disk, and putting them together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import kept_tables
from analyses.kit.record import units_in
from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import UsageError
from mechint.base.files import JSON
from mechint.engine.store import each_once

if TYPE_CHECKING:
    import pandas as pd

    from mechint.engine.shards import Shard

FOLDER = "parts"
_KIND = FileKind("a part of a table", "what runs with --shard have left", "run that shard again, or check the path")
PLACE = "row of the whole table"  # no table has a column of this name


@dataclasses.dataclass(frozen=True)
class PartRecord:
    """What a part belongs to: the analysis, its options, a key of the run that shards of one table share."""

    analysis: str
    argv: tuple[str, ...]
    key: str
    facts: Mapping[str, JSON]
    code: str  # a hash of the source that has computed its rows


def write_part(rows: pd.DataFrame, directory: Path, shard: Shard, record: PartRecord) -> Path:
    """Write the rows of one shard; returns the path."""
    table = rows.rename_axis(PLACE).reset_index()
    description = {"shard": [shard.index, shard.count], **dataclasses.asdict(record)}
    table.attrs = {"receipts": rows.attrs["receipts"], "part": description}
    path = directory / FOLDER / f"{shard.index}-of-{shard.count}.parquet"
    return kept_tables.write(table, path)


def part_files(paths: Sequence[Path]) -> list[Path]:
    """Return the part files that some paths name: files, `parts` directories, or directories of results.

    Raises UsageError where there is none.
    """
    part_files: list[Path] = []
    for path in paths:
        matches = (
            [path]
            if path.is_file()
            else sorted({*path.glob("*-of-*.parquet"), *path.glob(f"**/{FOLDER}/*-of-*.parquet")})
        )
        if not matches:
            raise UsageError(f"{path}: no parts", "what runs with --shard have left", "check the path")
        part_files += matches
    return list(dict.fromkeys(part_files))


def read_parts(part_files: Sequence[Path]) -> dict[str, tuple[pd.DataFrame, PartRecord]]:
    """Return by analysis the rows of all its parts and what they belong to.

    Raises UsageError for parts of different runs and for parts that are missing, StaleArtefactError for parts whose
    doses are in other units.
    """
    by_analysis: dict[str, list[tuple[Path, pd.DataFrame]]] = {}
    for file in part_files:
        table = kept_tables.read(file, _KIND)
        with reading(file, _KIND):
            _check_part(table)
        by_analysis.setdefault(str(table.attrs["part"]["analysis"]), []).append((file, table))
    return {name: _joined(parts) for name, parts in by_analysis.items()}


def _check_part(table: pd.DataFrame) -> None:
    """Raise ValueError or KeyError for a table that does not say what it is a part of."""
    description, shard = table.attrs["part"], table.attrs["part"]["shard"]
    texts = [description["analysis"], description["key"], description["code"], *description["argv"]]
    whole = len(shard) == 2 and all(isinstance(number, int) for number in shard)
    if not (whole and all(isinstance(text, str) for text in texts) and isinstance(description["facts"], dict)):
        raise ValueError("what it says of itself is not what parts say")
    if not isinstance(table.attrs["receipts"], list) or PLACE not in table.columns:
        raise ValueError("it has no receipts, or no places of rows")


def _joined(parts: Sequence[tuple[Path, pd.DataFrame]]) -> tuple[pd.DataFrame, PartRecord]:
    import pandas as pd

    descriptions = [table.attrs.pop("part") for _, table in parts]
    shards = [tuple(description.pop("shard")) for description in descriptions]
    _check(parts, descriptions, shards)
    receipts = each_once(receipt for _, table in parts for receipt in table.attrs.pop("receipts"))
    tables = [table for _, table in parts]
    rows = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True).set_index(PLACE)
    rows.attrs["receipts"] = receipts
    description = descriptions[0]
    return rows, PartRecord(
        description["analysis"],
        tuple(description["argv"]),
        description["key"],
        description["facts"],
        description["code"],
    )


def _check(
    parts: Sequence[tuple[Path, pd.DataFrame]],
    descriptions: Sequence[Mapping[str, JSON]],
    shards: Sequence[tuple[int, int]],
) -> None:
    from mechint.models.residual_scale import check_same_unit

    first = parts[0][0]
    for (file, _), description, shard in zip(parts, descriptions, shards, strict=True):
        if description["key"] != descriptions[0]["key"] or shard[1] != shards[0][1]:
            raise UsageError(
                given=f"{first} and {file}, which are parts of different runs",
                allowed="parts made with the same options, model and version, but for --shard",
                advice="remove those that are out of date",
            )
        for unit, other in zip(
            *(units_in(description["facts"]) for description in (descriptions[0], description)), strict=True
        ):
            check_same_unit(unit, other, f"{first} and {file}")
    count = shards[0][1]
    numbers = [index for index, _ in shards]
    missing = sorted(set(range(count)) - set(numbers))
    if missing or len(numbers) > count:
        problem = f"parts {', '.join(map(str, missing))} of {count} are missing" if missing else "a part is there twice"
        raise UsageError(
            given=f"{first.parent}: {problem}",
            allowed=f"each of 0/{count} to {count - 1}/{count} once",
            advice="run what is missing, or name each part once",
        )
