"""Trials in formats of others: rows as they stand in the files, with what cannot be read in them.

`open-introspection`: JSON lines, one file for each concept, in folders named after model and prompt.
`injected-thoughts`: a `results.json` for each layer and strength, in a folder of the model (of
uzaymacar/introspective-awareness). Judges of both were told which concept was injected, the first whether any was.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import UsageError
from mechint.trials.fields import faults_of_grades, faults_of_judge, faults_of_row, missing, or_nan, unknown

# Fields of a row, as they are in the file; `sample` counts within a cell. `answer` is the judge's, where it has one.
ROW = (
    "file",
    "row",
    "source_id",
    "model",
    "prompt",
    "concept",
    "injected",
    "layer",
    "depth",
    "strength",
    "norm",
    "sample",
    "steer",
    "reply",
    "answer",
    "claims",
    "named",
    "refused",
    "coherent",
    "reason",
    "error",
)
_RECORD = frozenset(["id", "timestamp", "concept", "was_injected", "response", "config", "judge", "judge_error"])
_NEEDED_CONFIG = ("model", "layer", "strength", "prompt_version", "trial")
_CONFIG = frozenset([*_NEEDED_CONFIG, "magnitude", "vector_norm", "inject_style"])
_JUDGE = frozenset(["reasoning", "answer", "coherent", "detected_concept", "refused"])
_NEEDED = ("id", "concept", "was_injected", "response", "config")
_STEER: Mapping[str, str] = MappingProxyType({"generation": "reply", "all": "everything"})
NO_VERDICT: Mapping[str, object] = MappingProxyType(
    {"answer": "", "claims": "", "named": None, "refused": False, "coherent": True, "reason": "", "error": ""}
)


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a file, in one row of it or in many."""

    file: str
    check: str
    text: str
    row: int | None = None


@dataclass
class Rows:
    """The rows of a tree of files, and the problems that reading has met."""

    rows: list[dict[str, object]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


Reader = Callable[[Path, str, Rows], None]


def read_open_introspection(path: Path, name: str, into: Rows) -> None:
    """Read a file of JSON lines; `name` is what it is called in messages."""
    for number, record in _lines(path):
        problems = [*missing(record, _NEEDED, ""), *unknown(record, _RECORD, "")]
        config = record.get("config")
        if isinstance(config, dict):
            problems += [*missing(config, _NEEDED_CONFIG, "config."), *unknown(config, _CONFIG, "config.")]
        elif config is not None:
            problems.append("config that is no object")
        judge = record.get("judge")
        faults = faults_of_judge(judge)
        problems += [*(unknown(judge, _JUDGE, "judge.") if isinstance(judge, dict) else []), *faults]
        into.problems += [Problem(name, "field", text, number) for text in problems]
        if isinstance(config, dict) and not any(text.startswith("missing") for text in problems):
            error = record.get("judge_error") or "; ".join(faults)
            row = _open_introspection(record, config, judge if isinstance(judge, dict) else None, error)
            _add(into, name, number, row)
    _check_any(into, name)


def _open_introspection(
    record: Mapping[str, object], config: Mapping[str, object], judge: Mapping[str, object] | None, error: object
) -> dict[str, object]:
    injected = record["was_injected"]
    return {
        "source_id": record["id"],
        "model": config["model"],
        "prompt": config["prompt_version"],
        "concept": record["concept"],
        "injected": injected,
        "layer": config["layer"],
        "depth": math.nan,
        "strength": config["strength"],
        "norm": or_nan(config.get("magnitude")),
        "sample": config["trial"],
        "steer": _STEER.get(str(config.get("inject_style", "generation")), ""),
        "reply": record["response"],
        **_pass_or_fail(judge, error, bool(injected), str(record["concept"])),
    }


def _pass_or_fail(judge: Mapping[str, object] | None, error: object, injected: bool, concept: str) -> dict[str, object]:
    """Return a verdict from a pass or a fail, whose meaning depends on what was done.

    A pass of an injected trial claims and names rightly. A fail of a control that neither refuses nor is incoherent
    claims something. What a fail of an injected trial says is not told: it counts as no claim.
    """
    if judge is None or error:
        return {**NO_VERDICT, "error": str(error)} if error else dict(NO_VERDICT)
    answer, named = judge.get("answer"), judge.get("detected_concept")
    if answer not in ("pass", "fail"):
        return {**NO_VERDICT, "error": f"its answer is {answer!r}"}
    refused, coherent = bool(judge.get("refused", False)), bool(judge.get("coherent", True))
    claims = "yes" if (answer == "pass") == injected else "no"
    if claims == "yes" and (refused or not coherent):
        claims = "no"
    whose = concept if injected else named
    return {
        "answer": answer,
        "claims": claims,
        "named": whose if claims == "yes" else None,
        "refused": refused,
        "coherent": coherent,
        "reason": str(judge.get("reasoning") or ""),
        "error": "",
    }


def read_injected_thoughts(path: Path, name: str, into: Rows) -> None:
    """Read a `results.json`, whose folder names layer and strength and lies in that of its model.

    Fields that are not needed may be anything.
    """
    content = _json(path)
    results = content.get("results") if isinstance(content, dict) else content
    if not isinstance(results, list):
        into.problems.append(Problem(name, "field", "missing results"))
        return
    folders = name.split("/")[:-1]
    model = folders[-2] if len(folders) > 1 else folders[-1] if folders else ""
    for number, record in enumerate(results):
        needed = ("concept", "response", "trial", "strength", "layer")
        is_object = isinstance(record, dict)
        problems = [*missing(record, needed, ""), *faults_of_grades(record)] if is_object else ["a result, no object"]
        into.problems += [Problem(name, "field", text, number) for text in problems]
        if not problems:
            _add(into, name, number, _injected_thoughts(record, str(record.get("model", model))))
    _check_any(into, name)


def _injected_thoughts(record: Mapping[str, object], model: str) -> dict[str, object]:
    kind = str(record.get("trial_type", "injection" if record.get("injected", True) else "control"))
    is_forced = kind.startswith("forced")
    return {
        "source_id": f"{record['concept']}_{kind}_L{record['layer']}_S{record['strength']}_t{record['trial']}",
        "model": model,
        "prompt": "forced" if is_forced else "standard",
        "concept": record["concept"],
        "injected": record.get("injected", kind != "control"),
        "layer": record["layer"],
        "depth": or_nan(record.get("layer_fraction")),
        "strength": record["strength"],
        "norm": math.nan,
        "sample": record["trial"],
        "steer": "trial text",
        "reply": record["response"],
        **_graded(record),
    }


def _graded(record: Mapping[str, object]) -> dict[str, object]:
    """Return a verdict from two grades: whether it claims, and whether it then names rightly."""
    grades = record.get("evaluations")
    claim = grades.get("claims_detection") if isinstance(grades, dict) else None
    named = grades.get("correct_concept_identification") if isinstance(grades, dict) else None
    if not isinstance(claim, dict) or "claims_detection" not in claim:
        return dict(NO_VERDICT)
    claims = bool(claim["claims_detection"])
    right = claims and isinstance(named, dict) and bool(named.get("correct_identification"))
    return {**NO_VERDICT, "claims": "yes" if claims else "no", "named": record["concept"] if right else None}


def _add(into: Rows, name: str, number: int, row: dict[str, object]) -> None:
    """Add a row whose values are of the right kinds; else what is wrong with it."""
    problems = faults_of_row(row)
    into.problems += [Problem(name, "value", text, number) for text in problems]
    if not problems:
        names = ("source_id", "model", "prompt", "concept")  # which places of files are compared with
        named = {field: unicodedata.normalize("NFC", str(row[field])) for field in names}
        into.rows.append({"file": name, "row": number, **row, **named})


def _check_any(into: Rows, name: str) -> None:
    """Add a problem for a file in which nothing was met, not even a fault."""
    met = {*(str(row["file"]) for row in into.rows[-1:]), *(problem.file for problem in into.problems)}
    if name not in met:
        into.problems.append(Problem(name, "field", "holds no trials"))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    with reading(path, FileKind("trials", "JSON lines in UTF-8")):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _parsed(path, number, line)


def _parsed(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as problem:  # also numbers and lists without end
        record = f"broken JSON ({str(problem).split(':')[0]})"
    if not isinstance(record, dict):
        raise UsageError(
            given=f"{path}, line {number}: {record if isinstance(record, str) else 'no object'}",
            allowed="one JSON object on each line",
            advice="the file may have been cut off; correct or remove that line",
        )
    return record


def _json(path: Path) -> object:
    with reading(path, FileKind("trials", "a JSON file in UTF-8")):
        try:
            return json.loads(path.read_text(encoding="utf-8-sig"))
        except RecursionError as problem:
            raise ValueError("lists in lists without end") from problem
