"""Running: where an interrupted run goes on from, and the files that every analysis leaves behind."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import mechint
from analyses.kit import declarations, earlier
from mechint.base.files import JSON, remove_file, replace_atomically, sha256, write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from analyses.kit.options import Common
    from mechint.engine.shards import Shard
    from mechint.models.model import Model

_PACKAGES = (
    "mechint",
    "torch",
    "transformers",
    "transformer-lens",
    "numpy",
    "pandas",
    "scipy",
    "plotly",
)
_PARTIAL = ".partial"
_LOG = logging.getLogger(__name__)
_CHOICES: ContextVar[dict[str, JSON] | None] = ContextVar("thread choices of a run", default=None)


def store_directory(directory: Path, shard: Shard | None) -> Path:
    """Return where a run keeps finished cells until it is done; those of other versions of the code are never met."""
    code = sha256(json.dumps([versions(), source_hash()], sort_keys=True).encode())[:16]
    suffix = "" if shard is None else f"-{shard.index}-of-{shard.count}"
    return directory / _PARTIAL / f"{code}{suffix}"


def discard_store(directory: Path, shard: Shard | None) -> None:
    """Remove a run's finished cells, and their parent unless another interrupted run has left some there."""
    store = store_directory(directory, shard)
    shutil.rmtree(store, ignore_errors=True)
    if store.parent.is_dir() and not any(store.parent.iterdir()):
        store.parent.rmdir()


def run_key(config: Common, record: Mapping[str, JSON]) -> str:
    """Return a hash of all that a table depends on: shards with the same key are parts of one table."""
    settings = {name: value for name, value in recorded(config).items() if name not in earlier.ELSEWHERE}
    dependencies = [settings, _without_norms(record), versions(), source_hash()]
    return sha256(json.dumps(dependencies, sort_keys=True).encode())


def units_in(record: JSON | Mapping[str, JSON]) -> list[dict[str, JSON]]:
    """Return the units of doses that a record tells of, one for each model that it describes."""
    if not isinstance(record, Mapping):
        return []
    unit = record.get("unit")
    units = [dict(unit)] if isinstance(unit, Mapping) and "norms" in unit else []
    return units + [nested for value in record.values() for nested in units_in(value)]


def _without_norms(record: JSON | Mapping[str, JSON]) -> JSON:
    """Return a record without the norms of units: their last digits differ between machines that share a table."""
    if not isinstance(record, Mapping):
        return record
    drop = "norms" if "norms" in record and "key" in record else None
    return {name: _without_norms(value) for name, value in record.items() if name != drop}


@contextmanager
def sparing_threads(model: Model) -> Iterator[None]:
    """Run a model with as many threads as it was the fastest with, which the record of the run tells."""
    from mechint.models.threads import using_threads

    choices = _CHOICES.get()
    if choices is not None:
        choices[model.name] = model.threads.to_dict()
    with using_threads(model.threads.threads):
        yield


@contextmanager
def noted_threads() -> Iterator[dict[str, JSON]]:
    """Collect what `sparing_threads` has chosen, by model, while a run is computed."""
    choices: dict[str, JSON] = {}
    token = _CHOICES.set(choices)
    try:
        yield choices
    finally:
        _CHOICES.reset(token)


def write_table(table: pd.DataFrame, directory: Path, name: str = "table") -> list[Path]:
    """Write `<name>.parquet` (exact) and `<name>.csv` (nine digits); return their paths."""
    return [
        replace_atomically(directory / f"{name}.parquet", partial(table.to_parquet, index=False)),
        replace_atomically(directory / f"{name}.csv", partial(table.to_csv, index=False, float_format="%.9g")),
    ]


@dataclasses.dataclass(frozen=True)
class Clock:
    """When a run began, by the wall and by a clock that never jumps."""

    started: str = dataclasses.field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    monotonic: float = dataclasses.field(default_factory=time.monotonic)


def write_record(
    directory: Path,
    paths: Sequence[Path],
    *,
    config: object,
    argv: Sequence[str],
    clock: Clock,
    record: Mapping[str, JSON],
) -> list[Path]:
    """Write `run.json` and remove what an earlier run has left that this one has not written; returns all paths.

    The record tells how the run was asked for, what it resolved to (`record`), on what, and how long it took: after a
    resumed run `wall_seconds` is the time of its last part.
    """
    files = [path.name for path in paths]
    for name in set(earlier.files(directory)) - set(files):
        remove_file(directory / name)
    document = {
        "argv": [argument for argument in argv if argument != earlier.OVERWRITE],
        "config": recorded(config),
        "seed": getattr(config, "seed", None),
        "started": clock.started,
        "wall_seconds": round(time.monotonic() - clock.monotonic, 2),
        "versions": versions(),
        "git_commit": code_version(),
        "files": files,
        **record,
    }
    return [*paths, write_atomically(directory / earlier.RECORD, json.dumps(document, indent=1) + "\n")]


def recorded(config: object) -> dict[str, JSON]:
    """Return the options of a run as its record has them."""
    options = as_json(declarations.values(config))
    assert isinstance(options, dict)
    return {name: value for name, value in options.items() if name != "overwrite"}


def check_place(directory: Path, config: object, record: Mapping[str, JSON] | None) -> None:
    """Raise OutputError where a folder holds the results of another run, unless it may be overwritten."""
    if not getattr(config, "overwrite", False):
        earlier.check(directory, recorded(config), record, declarations.drawing(type(config)))


def load_model(config: Common, name: str | None = None) -> Model:
    """Return a model of a run, `--model` or another, with its chat template used as the options say.

    Beside a model that the caller has loaded, another's is used as that one's is. What that means for the text that is
    read is said once, of the run's own model.
    """
    from mechint.chat.render import chat_template

    if config.loaded is not None and name in (None, config.model):
        return config.loaded
    model = mechint.load(name or config.model, backend=config.backend, device=config.device, dtype=config.dtype)
    model.template = config.template if config.loaded is None else config.loaded.template
    facts = chat_template(model).facts()
    for fact in facts if name is None else ():
        _LOG.warning("%s", fact)
    return model


def short_receipt(receipt: dict[str, JSON]) -> dict[str, JSON]:
    """Return a receipt with its layers in short, as there can be thousands.

    They are `layer: [norm added, median residual norm of the conversation, ratio, norm added in the model's unit]`.
    """
    layers = receipt.get("layers")
    rows = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    keys = ("vector_norm", "residual_norm", "ratio", "dose")
    short: dict[str, JSON] = {str(row["layer"]): [_rounded(row[key]) for key in keys] for row in rows}
    return receipt | {"layers": short}


def _rounded(value: JSON) -> JSON:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def as_json(value: object) -> JSON:
    """Return dataclasses, mappings and sequences as JSON; anything else (paths) as its text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, list | tuple | range | set | frozenset):
        return [as_json(item) for item in value]
    return str(value)


def versions() -> dict[str, JSON]:
    """Return Python's and the packages' versions; None for a package that is not installed."""
    return {"python": sys.version.split()[0], **{name: _version(name) for name in _PACKAGES}}


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def code_version() -> str | None:
    """Return the git commit of the code, with `-dirty` if it was changed since; None where git does not track it.

    It is that of the first call: what a process runs is the code that it began with.
    """
    folder = Path(mechint.__file__).resolve().parent
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--", ".")
        return f"{commit}-dirty" if changed else commit
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def source_hash() -> str:
    """Hash of the library's and the analyses' source at the first call: work done by other code is done again."""
    folders = (Path(mechint.__file__).resolve().parent, Path(__file__).resolve().parents[1])
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return sha256(*(file.read_bytes() for file in files))


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
