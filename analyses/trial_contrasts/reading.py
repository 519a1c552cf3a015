"""Sweeps as `analyses.trials` has left them, read back with their judge; what cannot be compared is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analyses.kit import facts
from analyses.kit.earlier import RECORD
from analyses.kit.facts import ModelFacts
from analyses.trials.judging import JudgeFacts
from analyses.trials.options import NAME as TRIALS
from mechint.base.artefacts import FileKind, reading, shown_path
from mechint.base.errors import UsageError
from mechint.base.files import sha256
from mechint.trials.outcomes import outcome_table
from mechint.trials.pilot import pilot_note
from mechint.trials.prompts import concept_lexicon
from mechint.trials.storage import read_trials, read_verdicts

_FILES = ("trials.parquet", "verdicts.parquet")
_AGAIN = "run python -m analyses.trials into another --out, with the same options for all sweeps"
_KIND = FileKind(
    "the record of a run of analyses.trials", "a folder that analyses.trials has written", "name its --out"
)
# Of a design: what changes replies and stands in no column of theirs.
_SAMPLING = ("temperature", "reply_start")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One sweep: where it is from, its model (None where trials were imported), and hashes of its files."""

    path: str
    model: ModelFacts | None
    integrity: str | None
    marked_files: tuple[str, ...]
    files: Mapping[str, str]
    pilot: str = ""  # what its pilot has dropped


@dataclass(frozen=True)
class Sweeps:
    """The trials of all sweeps, each once, what each counts as, and the judge of all."""

    trials: pd.DataFrame
    outcomes: pd.DataFrame
    judge: JudgeFacts
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class _Sweep:
    trials: pd.DataFrame
    verdicts: pd.DataFrame
    judge: JudgeFacts
    source: Source
    sampling: Mapping[str, object]


def read_sweeps(paths: Sequence[Path]) -> Sweeps:
    """Return all sweeps as one table.

    A reply that two of them share (clean ones of one prompt, say) counts once. Raises UsageError for folders that hold
    no finished run, and for sweeps with different judges, versions of one, units of strength, or ways of sampling, with
    two models or prompts of one name, or with two replies of one id.
    """
    folders = [_folder(path) for path in paths]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("the same --trials twice", "different sweeps", "leave one of them out")
    sweeps = [_read(folder) for folder in folders]
    _check_same("judges", (sweep.judge.name for sweep in sweeps))
    _check_same(f"versions of the judge {sweeps[0].judge.name}", (sweep.judge.version for sweep in sweeps))
    for name in _SAMPLING:
        _check_same(f"sweeps of different {name}", (sweep.sampling[name] for sweep in sweeps if sweep.sampling))
    trials = _each_once([sweep.trials for sweep in sweeps], "replies", ["id"])
    verdicts = _each_once([sweep.verdicts for sweep in sweeps], "verdicts", ["id", "pass_no"])
    _check_names(trials)
    steered = trials[trials["series"] != "clean"]
    _check_same("units of strength", (_UNITS[bool(unit)] for unit in steered["relative"].unique()))
    outcomes = outcome_table(trials, verdicts, concept_lexicon())
    if outcomes.empty:
        raise UsageError("sweeps without a verdict", "judged replies", "judge them: python -m analyses.trials --import")
    return Sweeps(trials, outcomes, sweeps[0].judge, tuple(sweep.source for sweep in sweeps))


_UNITS = {True: "norms of the stream", False: "factors on the vectors"}


def _folder(path: Path) -> Path:
    """Return the folder of the analysis itself; `path` may be the --out above it."""
    inner = path / TRIALS
    folder = inner if inner.is_dir() and not (path / RECORD).exists() else path
    if not folder.is_dir():
        raise UsageError(
            f"--trials {shown_path(path)}: no such folder", "a folder that analyses.trials has written", _AGAIN
        )
    if not (folder / RECORD).exists():
        begun = (folder / "replies").is_dir()
        raise UsageError(
            given=f"--trials {shown_path(path)}: {'the run has not ended' if begun else f'no {RECORD} in it'}",
            allowed="a folder that analyses.trials has written",
            advice="give the same command again: it goes on where it stopped" if begun else _AGAIN,
        )
    return folder


def _read(folder: Path) -> _Sweep:
    path = folder / RECORD
    with reading(path, _KIND):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not set(_FILES) <= set(record["files"]):
            raise ValueError("its run has left no trials and verdicts")
        judge = facts.read(JudgeFacts, record["judge"])
        model = None if record.get("model") is None else facts.read(ModelFacts, record["model"])
        design = record.get("design")
        sampling = {} if design is None else {name: design[name] for name in _SAMPLING}
        source = Source(
            path=str(folder),
            model=model,
            integrity=record.get("integrity"),
            marked_files=tuple(record.get("marked_files") or ()),
            files={name: sha256((folder / name).read_bytes()) for name in _FILES},
            pilot=pilot_note(record.get("pilot")),
        )
    trials, verdicts = read_trials(folder / _FILES[0]), read_verdicts(folder / _FILES[1])
    _check_judge(folder, verdicts, judge)
    # A model in a folder goes by the folder's name, as in other figures.
    named = trials if model is None else trials.assign(model=model.short_name)
    return _Sweep(named, verdicts, judge, source, sampling)


def _check_judge(folder: Path, verdicts: pd.DataFrame, judge: JudgeFacts) -> None:
    """Raise UsageError unless all verdicts are of one version of the judge whose errors the record has."""
    several = verdicts[["judge", "version"]].drop_duplicates()
    is_other = bool(judge.errors) and set(verdicts["judge"]) != {judge.name}
    if len(several) > 1 or is_other:
        listed = "; ".join(f"{name} ({version[:12]})" for name, version in several.itertuples(index=False))
        raise UsageError(
            given=f"{shown_path(folder)}: verdicts of {listed}, where its record says {judge.name}",
            allowed="verdicts of one version of the judge that the record names",
            advice=_AGAIN,
        )


def _check_same(noun: str, values: Iterable[object]) -> None:
    if len(distinct := list(dict.fromkeys(map(str, values)))) > 1:
        raise UsageError(
            given=f"{noun}: {', '.join(value[:40] for value in distinct)}",
            allowed="sweeps that were sampled, injected into and judged in the same way",
            advice="judge them all again with one judge (analyses.trials --import FOLDER --judge), or compare others",
        )


def _each_once(tables: Sequence[pd.DataFrame], noun: str, key: list[str]) -> pd.DataFrame:
    """Return the rows of all tables, those that several have once; raises UsageError where they differ."""
    table = pd.concat(tables, ignore_index=True)
    kept = table.drop_duplicates().reset_index(drop=True)
    if (again := kept.duplicated(key)).any():
        raise UsageError(
            given=f"two {noun} of the id {kept.loc[again, 'id'].iloc[0]!r} that differ",
            allowed="sweeps in which an id stands for one reply",
            advice="sample one of them anew, or leave it out",
        )
    return kept


def _check_names(trials: pd.DataFrame) -> None:
    """Raise UsageError where one name stands for two models, or for two prompts of one model."""
    checks: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = {
        "model": lambda rows: rows.groupby("model")["weights_hash"].nunique(),
        "prompt": lambda rows: rows.groupby(["model", "prompt"])["prompt_hash"].nunique(),
    }
    for noun, count in checks.items():
        if len(several := (counts := count(trials))[counts > 1]):
            name = several.index[0] if noun == "model" else several.index[0][1]
            raise UsageError(
                given=f"two {noun}s of the name {name!r}, with different {'weights' if noun == 'model' else 'texts'}",
                allowed="a name for each",
                advice=f"rename one of the {noun}s, and sample again",
            )
