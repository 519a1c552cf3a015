"""Other people's trials as tables of ours. An integrity report comes first: files that do not hold what they say are
refused, all of them in one error, unless they are left out or wanted as they were published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pandas as pd

from mechint.base.artefacts import parsed_object
from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.trials.conversion import rows_of, trials_of, verdicts_of
from mechint.trials.folders import Manifest
from mechint.trials.foreign import ROW, Problem, Reader, Rows, read_injected_thoughts, read_open_introspection
from mechint.trials.integrity import IntegrityReport, integrity
from mechint.trials.records import checked_trials
from mechint.trials.storage import SUFFIXES, read_trials

Format = Literal["auto", "open-introspection", "injected-thoughts", "plain"]
_READERS: Mapping[str, tuple[str, Reader]] = MappingProxyType(
    {
        "open-introspection": ("*.jsonl", read_open_introspection),
        "injected-thoughts": ("results.json", read_injected_thoughts),
    }
)
_SHOWN = 20  # files in an error
_MANIFEST = "manifest.json"
_SAID = ("model", "prompt", "concept")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".zst")


@dataclass(frozen=True)
class Imported:
    """Trials, the verdicts that came with them, and where each is from.

    `origins` has for each trial its `file`, `row`, `source_id`, the `concept` of its record (controls have none here),
    the judge's `answer`, `held_model` and `held_prompt` as in the record, and whether its file is `marked` in the
    report.
    """

    trials: pd.DataFrame
    verdicts: pd.DataFrame
    origins: pd.DataFrame
    report: IntegrityReport


@checked
def integrity_report(path: str | Path, format: Format = "auto", *, manifest: Manifest | None = None) -> IntegrityReport:
    """Return what is wrong with the files of a tree, or with one file; nothing is refused but what cannot be read."""
    return _Source.read(Path(path), format, manifest).report


@checked
def import_trials(
    path: str | Path,
    format: Format = "auto",
    *,
    manifest: Manifest | None = None,
    leave_out: Sequence[str] = (),
    as_published: bool = False,
    categories: Mapping[str, str] = MappingProxyType({}),
) -> Imported:
    """Return the trials of a tree of files, or of one file.

    `manifest` (or a `manifest.json` in the tree) says by folder or file which `model`, `prompt` and `concept` it has to
    hold. `leave_out` are files that are not used. With `as_published` files with problems are kept and marked, and
    trials count as what the folder says, as in the publication. Tables in our columns (.parquet, .csv, .jsonl) are
    read too, and have no verdicts. Raises UsageError, naming files, for problems of others.
    """
    source = _Source.read(Path(path), format, manifest)
    rows, report = source.rows, source.report
    _check_names(leave_out, rows, report)
    bad = [file for file in report.files if file not in set(leave_out)]
    if bad and not as_published:
        raise UsageError(
            given=_shown(report, bad),
            allowed="files that hold what their folders, ids and manifest say, each a sample of its own",
            advice="give leave_out=integrity_report(path).files, or as_published=True, which marks them",
        )
    is_used = ~rows["file"].isin(leave_out)
    used = rows[is_used].reset_index(drop=True)
    if not len(used):
        raise UsageError(given=f"{path}: no trials are left", allowed="at least one", advice="leave out fewer files")
    places = source.places if as_published else source.places.assign(model="", prompt="")
    own = source.trials[is_used.to_numpy()] if source.trials is not None else None
    trials = checked_trials(trials_of(used, places, categories) if own is None else own, str(path))
    origins = used[["file", "row", "source_id", "concept", "answer"]].assign(
        id=trials["id"], held_model=used["model"], held_prompt=used["prompt"], marked=used["file"].isin(report.files)
    )
    return Imported(trials, verdicts_of(used, trials["id"]), origins, report)


def published_rates(imported: Imported, by: Sequence[str] = ("model", "prompt")) -> pd.DataFrame:
    """Return rates by group as open-introspection has them: over trials, with every control that fails an alarm.

    Columns `*by, hits, false_alarms, net, refused, n` and the same with `engaged_` before them, of trials that do not
    refuse. To compare with a publication, not to believe: `rate_table` has intervals and both conventions.
    """
    table = imported.trials.merge(imported.origins[["id", "answer"]], on="id")
    table = table.merge(imported.verdicts[["id", "refused"]], on="id")
    table = table[table["answer"] != ""]
    rows = []
    for key, group in table.groupby(list(by), sort=False):
        row: dict[str, object] = dict(zip(by, key, strict=True))
        refused = group["refused"].astype(bool)
        for prefix, chosen in (("", group), ("engaged_", group[~refused])):
            is_clean = chosen["series"] == "clean"
            hits, alarms = (chosen["answer"] == "pass")[~is_clean].mean(), (chosen["answer"] == "fail")[is_clean].mean()
            row |= {f"{prefix}hits": hits, f"{prefix}false_alarms": alarms, f"{prefix}net": hits - alarms}
            row |= {f"{prefix}n": len(chosen)}
        rows.append({**row, "refused": refused.mean()})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Source:
    """What was read of a tree: its rows, what places say of files, the report, and trials where they are ours."""

    rows: pd.DataFrame
    places: pd.DataFrame
    report: IntegrityReport
    trials: pd.DataFrame | None

    @staticmethod
    def read(path: Path, format: Format, manifest: Manifest | None) -> _Source:
        root = path if path.is_dir() else path.parent
        above = root.resolve().parts[-2:]
        name, files = _files(path, format)
        names = [file.relative_to(root).as_posix() for file in files]
        into, trials = Rows(), None
        if name == "plain":
            tables = [read_trials(file) for file in files]
            trials = pd.concat(tables, ignore_index=True)
            rows = pd.concat(
                [rows_of(table, file) for table, file in zip(tables, names, strict=True)], ignore_index=True
            )
        else:
            for file, relative in zip(files, names, strict=True):
                _READERS[name][1](file, relative, into)
            rows = pd.DataFrame(into.rows, columns=list(ROW))
            into.problems += [
                Problem(file.relative_to(root).as_posix(), "field", "is compressed and was not read: unpack it")
                for file in _packed(path)
            ]
        named = manifest if manifest is not None else _manifest(root)
        _check_manifest(named or {}, names)
        report, places = integrity(rows, into.problems, named, above)
        return _Source(rows, places, report, trials)


def _files(path: Path, format: Format) -> tuple[str, list[Path]]:
    """Return the format of a tree, and its files."""
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    tables = [file for file in inside if file.suffix in SUFFIXES and file.is_file() and _is_plain(file)]
    if format == "plain" or (format == "auto" and tables):
        by_format = {"plain": tables}
    else:
        by_format = {
            name: [file for file in inside if file.match(pattern) and file.is_file()]
            for name, (pattern, _) in _READERS.items()
            if format in ("auto", name)
        }
    for name, files in by_format.items():
        if files:
            return name, files
    wanted = ", ".join(f"{name}: {pattern}" for name, (pattern, _) in _READERS.items())
    packed = _packed(path)
    raise UsageError(
        given=f"{path}: no files of the format {format!r}",
        allowed=f"an existing file or folder ({wanted}, plain: {' '.join(SUFFIXES)} in our columns)",
        advice=f"unpack {packed[0].name}: it is compressed" if packed else "check the path",
    )


def _packed(path: Path) -> list[Path]:
    """Return compressed files of trials in a tree, which are not read."""
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in inside if file.suffix in _COMPRESSED and file.stem.endswith((".jsonl", ".json"))]


def _is_plain(file: Path) -> bool:
    """Whether a file holds a table of our own: anything but JSON lines of another format."""
    if file.suffix != ".jsonl":
        return True
    with file.open(encoding="utf-8", errors="replace") as lines:
        return '"series"' in lines.readline()


def _manifest(root: Path) -> Manifest | None:
    path = root / _MANIFEST
    if not path.is_file():
        return None
    try:
        content = parsed_object(path.read_text(encoding="utf-8"), "manifest")
    except (ValueError, json.JSONDecodeError) as problem:
        raise UsageError(f"{path}: {problem}", "an object of objects by folder or file", "correct it") from problem
    entries: dict[str, dict[str, str]] = {}
    for place, entry in content.items():
        if not isinstance(entry, dict):
            raise UsageError(f"{path}: {place!r} has no object", "an object of objects by folder or file", "correct it")
        entries[place] = {str(key): str(value) for key, value in entry.items()}
    return entries


def _check_manifest(manifest: Manifest, files: Sequence[str]) -> None:
    """Raise UsageError for places that are not in the tree, and for what a manifest cannot say of one."""
    places = {"/".join(file.split("/")[:end]) for file in files for end in range(1, len(file.split("/")) + 1)}
    for place, entry in manifest.items():
        if place not in places:
            raise UsageError(
                f"a manifest with {place!r}", "folders and files of the tree, from its root", "correct the name"
            )
        if unknown := sorted(set(entry) - set(_SAID)):
            raise UsageError(f"a manifest that says {unknown[0]!r} of {place!r}", ", ".join(_SAID), "correct it")


def _check_names(leave_out: Sequence[str], rows: pd.DataFrame, report: IntegrityReport) -> None:
    if unknown := sorted(set(leave_out) - {*rows["file"], *report.files}):
        raise UsageError(
            given=f"leave_out={unknown[0]!r}",
            allowed=", ".join(sorted(set(rows["file"]))[:_SHOWN]),
            advice="name files as the report does, relative to the folder",
        )


def _shown(report: IntegrityReport, files: Sequence[str]) -> str:
    first = report.problems.drop_duplicates("file").set_index("file")["text"]
    lines = [f"{file} {first[file]}" for file in files[:_SHOWN]]
    more = [f"and {len(files) - _SHOWN} more"] if len(files) > _SHOWN else []
    return f"{len(files)} of {report.n_files} files are not what they say:\n    " + "\n    ".join([*lines, *more])
