"""Results that lie in a folder already: what run they are of, and whether another may take their place."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.arguments import shown
from mechint.base.artefacts import FileKind, reading, shown_path
from mechint.base.errors import OutputError

if TYPE_CHECKING:
    from mechint.base.files import JSON

RECORD = "run.json"
OVERWRITE = "--overwrite"
# How a run is divided and where it writes is no part of what it computes.
ELSEWHERE = frozenset(
    ("out", "overwrite", "shard", "engine", "workers", "batch_size", "batch_tokens", "offload", "max_memory")
)
_WAYS = f"choose another --out, or add {OVERWRITE} to replace what is there"
_KIND = FileKind("the record of an earlier run", "a run.json as runs write it", _WAYS, OutputError)


def check(
    directory: Path, config: Mapping[str, JSON], record: Mapping[str, JSON] | None, drawing: Collection[str]
) -> None:
    """Raise OutputError, saying what differs, unless results in a folder are those of the same run.

    `config` are options as the record has them; those of `drawing` change figures only, which may be drawn anew.
    `record` is what the run has found out so far (None: nothing yet).
    """
    if (previous := read(directory)) is None:
        return
    differing = [*_options(previous["config"], config, ELSEWHERE | {*drawing}), *_findings(previous, record or {})]
    if differing:
        raise OutputError(
            given=f"{shown_path(directory)} holds the results of another run: {'; '.join(differing[:6])}",
            allowed="results of the same options and model, which are computed again or gone on with",
            advice=_WAYS,
        )


def read(directory: Path) -> dict[str, JSON] | None:
    """Return the record that a run has left; None where there is none. Raises OutputError for what is no record."""
    path = directory / RECORD
    if not (path.exists() or path.is_symlink()):
        return None
    with reading(path, _KIND):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(record, dict) and isinstance(record.get("config"), dict)):
            raise ValueError("it has no config")
        if not is_names(record.get("files")):
            raise ValueError("its files are no list of names")
    return record


def files(directory: Path) -> list[str]:
    """Return the names of files that the run before has written; none where its record does not say."""
    try:
        record = read(directory) or {}
    except OutputError:
        return []
    names = record.get("files", [])
    assert isinstance(names, list)
    return [Path(str(name)).name for name in names]


def is_names(value: object) -> bool:
    """Whether something read from a record is a list of texts."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _options(before: JSON, now: Mapping[str, JSON], free: Collection[str]) -> Iterator[str]:
    """Yield the options that differ; one that a version before did not have was as good as not given."""
    assert isinstance(before, dict)
    for name, value in now.items():
        if name not in free and _text(before.get(name)) != _text(value) and (name in before or value):
            yield f"--{name.replace('_', '-')} was {_option(before.get(name))}, and is {_option(value)} now"


def _findings(before: Mapping[str, JSON], now: Mapping[str, JSON]) -> Iterator[str]:
    """Yield what differs of the model and the conversations behind equal options."""
    identities = [_identity(record) for record in (before, now)]
    if None not in identities and identities[0] != identities[1]:
        yield "the model has other weights now"
    for name in ("finetuned", "conversations"):
        if name in before and name in now and _text(before[name]) != _text(now[name]):
            yield f"other {name}"


def _identity(record: Mapping[str, JSON]) -> JSON:
    model = record.get("model")
    return model.get("identity") if isinstance(model, dict) else None


def _text(value: JSON) -> str:
    return json.dumps(value, sort_keys=True)


def _option(value: JSON) -> str:
    return "not given" if value is None else shown(value)
