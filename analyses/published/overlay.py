"""A user's own tables, as other analyses write them, reduced to what published yes/no shifts measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit.questions import Wording
from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import UsageError
from mechint.base.files import sha256

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("conversation", "unit", "series", "kind", "group", "info", "p_yes", "logit_diff_shift")
CELL = ["conversation", "unit", "series"]
# Of a run's own wordings: the usual question with each document, and the one that names another location.
INFOS = {"none", "introspection", "lorem-ipsum"}
ELSEWHERE = "inaccurate-location"
CONTROL = "control questions"
_PLACEMENTS = ("single", "window")
_MEASURES = ("p_", "logit_", "yes_no_mass", "entropy", "log_odds")


_KIND = FileKind("an --overlay", "a table.parquet or table.csv that an analysis has written", "check the path")


@dataclass(frozen=True)
class Overlay:
    """Rows of one file that measure what has been published.

    Their columns `_condition` and `_document` say to which published `info` a row belongs, and which info document a
    control question came after. `sha256` is that of the file.
    """

    label: str
    path: Path
    sha256: str
    rows: pd.DataFrame


def read(paths: Sequence[Path], where: Sequence[str]) -> list[Overlay]:
    """Return the tables, each with a label of its own; `where` is `column=value` and keeps the rows that have it.

    Raises UsageError for files, columns and values that do not exist, and for tables that measure nothing published or
    the same cell at several settings.
    """
    short = [f"{path.resolve().parent.name}/{path.name}" for path in paths]
    labels = short if len(set(short)) == len(short) else [str(path) for path in paths]
    return [_overlay(label, path, where) for label, path in zip(labels, paths, strict=True)]


def _overlay(label: str, path: Path, where: Sequence[str]) -> Overlay:
    """Return the overlay of a file that anyone may have written."""
    with reading(path, _KIND):
        content = path.read_bytes()
        rows = _rows_of(_loaded(path, content), path, where)
        if texts := [name for name in ("p_yes", "logit_diff_shift") if rows[name].dtype.kind not in "fiu"]:
            raise ValueError(f"its {', '.join(texts)} are no numbers")
    return Overlay(label, path, sha256(content), rows)


def _rows_of(table: pd.DataFrame, path: Path, where: Sequence[str]) -> pd.DataFrame:
    """Return the comparable rows of a file's table; see `read`."""
    if missing := [name for name in NEEDED if name not in table.columns]:
        raise UsageError(
            f"{path} has no column {', '.join(missing)}",
            f"a table of detection, controls, logit_lens or layer_strength, with {', '.join(NEEDED)}",
            "give another table, or write it anew with this version",
        )
    table = _output(table)
    for condition in where:
        table = _kept(table, condition, path)
    rows = _comparable(table)
    if not (rows["series"] != "clean").any():
        raise UsageError(
            f"{path}: nothing in it measures what has been published",
            f"injections under the introspection question with info {', '.join(sorted(INFOS))}, or control questions",
            "give another table, or another --where",
        )
    _check_one_setting(rows, path)
    return rows


def _loaded(path: Path, content: bytes) -> pd.DataFrame:
    import pandas as pd

    if path.suffix == ".parquet":
        return pd.read_parquet(BytesIO(content))
    if path.suffix == ".csv":
        return pd.read_csv(BytesIO(content), keep_default_na=False, na_values=[""])
    raise ValueError("neither .parquet nor .csv")


def _output(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows outside a lens's sweep of placements, and of its last layer: that is the model's output."""
    if "sweep" in table:
        table = table[~table["sweep"].isin(_PLACEMENTS)]
    if "layer" in table:
        last = max(int(layer) for layer in table["layer"].astype(str).unique() if layer != "embed")
        table = table[table["layer"].astype(str) == str(last)]
    return table


def _kept(table: pd.DataFrame, condition: str, path: Path) -> pd.DataFrame:
    """Return the rows that have a value, or none at all, as a cache of another model has no strength.

    Clean rows stay too, unless some of them have that value: then those alone.
    """
    column, equals, value = condition.partition("=")
    if not equals or column not in table.columns:
        raise UsageError(
            f"--where {condition}",
            f"column=value, with a column of {path}: {', '.join(table.columns)}",
            "name one of these",
        )
    same, clean = table[column].astype(str) == value, table["series"] == "clean"
    if not (same & ~clean).any():
        present = ", ".join(dict.fromkeys(table.loc[~clean, column].astype(str)))
        raise UsageError(f"--where {condition}: no row of {path} has it", present, "choose one of these")
    without = table[column].isna() | (table[column].astype(str) == "")
    return table[same | without | (clean & ~(same & clean).any())]


def _comparable(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows with `_condition` and `_document`, without those that nothing published corresponds to."""
    usual = Wording()
    texts = {
        name: table[name].astype(object).where(table[name].notna(), "")
        for name in ("group", "info", "format", "description")
        if name in table
    }
    table = table.assign(**texts)
    if "format" in table:
        table = table[table["format"].isin([usual.format, ""])]
    worded = table.get("description", table["info"].map(lambda _: usual.description))
    elsewhere = (worded == ELSEWHERE) & (table["info"] == usual.info)
    condition = table["info"].where(worded.isin([usual.description, ""]) & table["info"].isin(INFOS), "")
    condition = condition.where(~elsewhere, ELSEWHERE)
    control = (table["kind"] == "control") & (table["group"] == "no") & (condition != "")
    condition = condition.where(table["kind"] == "introspection", "").where(~control, CONTROL)
    comparable = table.assign(_condition=condition, _document=table["info"].where(control, ""))
    return comparable[comparable["_condition"] != ""]


def _check_one_setting(rows: pd.DataFrame, path: Path) -> None:
    """Raise UsageError if a cell is there more than once, naming the columns that tell its rows apart."""
    injected = rows[rows["series"] != "clean"]
    if not injected.duplicated(CELL).any():
        return
    settings = [name for name in rows.columns if _is_setting(str(name), rows[name].dtype.kind == "f")]
    differ = injected.groupby(CELL)[settings].nunique(dropna=False).max()
    differing = [
        f"{name} ({', '.join(map(str, injected[name].unique()[:12]))})" for name in settings if differ[name] > 1
    ]
    raise UsageError(
        f"{path} has the same cell several times: it is a sweep, or more than one model's",
        f"one setting of {'; '.join(differing) or 'everything'}",
        "choose one, for example " + " ".join(f"--where {name.partition(' ')[0]}=VALUE" for name in differing),
    )


def _is_setting(name: str, real: bool) -> bool:
    """Return whether a column says how a cell was made; real numbers do so in strengths only."""
    identifiers = (*CELL, "intervention", "_condition", "_document")
    return name not in identifiers and not name.startswith(_MEASURES) and (not real or "strength" in name)
