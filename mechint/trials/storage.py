"""Tables of trials and verdicts on disk: Parquet and JSON lines, written whole or not at all, and read back equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import UsageError
from mechint.base.files import replace_atomically, write_atomically
from mechint.base.signatures import checked
from mechint.trials.records import NUMBERS, SWITCHES, TEXTS, WHOLE_NUMBERS, checked_trials
from mechint.trials.verdicts import CLAIMS, VERDICT_COLUMNS

_KIND = FileKind("a table of trials or verdicts", "a Parquet, JSON lines or CSV file with the columns of one")
SUFFIXES = (".parquet", ".jsonl", ".csv")
_LIKE = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}


@checked
def write_trials(trials: pd.DataFrame, path: str | Path) -> Path:
    """Write a table of trials as .parquet or .jsonl; returns the path. Raises UsageError for what is no such table."""
    return _write(checked_trials(trials), Path(path))


@checked
def read_trials(path: str | Path) -> pd.DataFrame:
    """Return a table of trials from .parquet, .jsonl or .csv (texts as they are, true or false for `relative`).

    Raises UsageError for files that cannot be read and rows that contradict themselves (`checked_trials`).
    """
    return _typed(_read(Path(path), [*TEXTS, *SWITCHES]), str(path))


def json_lines(trials: pd.DataFrame) -> str:
    """Return a table of trials as the text of its .jsonl file."""
    return _lines(checked_trials(trials))


def from_json_lines(text: str, source: str) -> pd.DataFrame:
    """Return the table of trials of such a text, `source` by name; raises UsageError as `read_trials` does."""
    return _typed(_of_lines(text), source)


def _typed(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return a table that was read with the types of trials; raises UsageError."""
    for name in set(SWITCHES) & set(table.columns):
        switches = table[name].map(lambda value: _LIKE.get(str(value).strip().lower(), value))
        table[name] = switches.astype(object)
    for name in set(TEXTS) & set(table.columns):
        table[name] = table[name].astype(object)
    for name in {*WHOLE_NUMBERS, *NUMBERS} & set(table.columns):
        table[name] = table[name].map(lambda value: np.nan if value is None or value == "" else value)
    return checked_trials(table, source)


@checked
def write_verdicts(verdicts: pd.DataFrame, path: str | Path) -> Path:
    """Write a table of verdicts as .parquet or .jsonl; returns the path. Raises UsageError for what is none."""
    return _write(checked_verdicts(verdicts), Path(path))


@checked
def read_verdicts(path: str | Path) -> pd.DataFrame:
    """Return a table of verdicts. Raises UsageError for files that cannot be read and verdicts that cannot be."""
    return checked_verdicts(_read(Path(path), []), str(path))


@checked
def checked_verdicts(verdicts: pd.DataFrame, source: str = "the table of verdicts") -> pd.DataFrame:
    """Return a table with the columns of verdicts in their order and types; what is missing is None, or NaN.

    Raises UsageError for columns that are missing or unknown, claims that are none, values of another kind, and two
    verdicts of one judge, version and pass on one trial.
    """
    missing = [name for name in VERDICT_COLUMNS if name not in verdicts.columns]
    unknown = [str(name) for name in verdicts.columns if name not in VERDICT_COLUMNS]
    if missing or unknown:
        raise UsageError(
            given=f"{source}: missing {', '.join(missing) or 'nothing'}, unknown {', '.join(unknown) or 'nothing'}",
            allowed=f"the columns {', '.join(VERDICT_COLUMNS)}",
            advice="make verdicts with mechint.trials.verdicts.verdict_table",
        )
    table = verdicts[list(VERDICT_COLUMNS)].reset_index(drop=True)
    kinds: dict[str, Callable[[object], bool]] = {
        **dict.fromkeys(("id", "judge", "version", "reason", "error"), lambda value: isinstance(value, str)),
        "claims": lambda value: value in CLAIMS,
        "named": lambda value: value is None or isinstance(value, str),
        "claim_first": lambda value: value is None or isinstance(value, bool),
        **dict.fromkeys(("refused", "coherent"), lambda value: isinstance(value, bool)),
        "pass_no": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
        "confidence": lambda value: value is None or (isinstance(value, int | float) and 0 <= value <= 1),
    }
    for name, fits in kinds.items():
        values = [_plain(value) for value in table[name]]
        wrong = [row for row, value in enumerate(values) if not fits(value)]
        if wrong:
            raise UsageError(
                given=f"{source}, row {wrong[0]} (id {table['id'].iloc[wrong[0]]!r}): {name} is {values[wrong[0]]!r}",
                allowed="verdicts as mechint.trials.verdicts describes them",
                advice=f"correct the row; {len(wrong)} of {len(table)} rows have this",
            )
        table[name] = pd.Series(values, index=table.index, dtype=_DTYPES.get(name, object))
    key = ["id", "judge", "version", "pass_no"]
    if table.duplicated(key).any():
        raise UsageError(
            given=f"{source}: two verdicts on {table.loc[table.duplicated(key), 'id'].iloc[0]!r} in one pass",
            allowed="one verdict of a judge for each trial and pass",
            advice="number the passes (pass_no)",
        )
    return table


_DTYPES = {"pass_no": np.int64, "refused": bool, "coherent": bool, "confidence": np.float64}


def _plain(value: object) -> object:
    """Return a value of a table as Python's own, what is missing as None; a whole number in a float is one."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return value


def _write(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        return replace_atomically(path, partial(table.to_parquet, index=False))
    if path.suffix == ".jsonl":
        return write_atomically(path, _lines(table))
    raise UsageError(given=f"the file {path}", allowed=".parquet or .jsonl", advice="choose another suffix")


def _read(path: Path, texts: list[str]) -> pd.DataFrame:
    if path.suffix not in SUFFIXES:
        raise UsageError(given=f"the file {path}", allowed=", ".join(SUFFIXES), advice="give a file of these")
    with reading(path, _KIND):
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""]).fillna(
                dict.fromkeys(texts, "")
            )
        return _of_lines(path.read_text(encoding="utf-8"))


def _lines(table: pd.DataFrame) -> str:
    records = ({name: _plain(value) for name, value in row.items()} for row in table.to_dict("records"))
    return "".join(f"{json.dumps(record, ensure_ascii=False, allow_nan=False)}\n" for record in records)


def _of_lines(text: str) -> pd.DataFrame:
    """Return a row for each line; lines end at "\\n" alone, as a reply may hold any other character that ends them."""
    return pd.DataFrame([json.loads(line) for line in text.split("\n") if line.strip()], dtype=object)
