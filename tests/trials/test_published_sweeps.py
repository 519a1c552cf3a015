"""Published numbers are recomputed from the files that they came from, where a clone of open-introspection lies.

    MECHINT_OPEN_INTROSPECTION=CLONE python -m pytest tests/trials/test_published_sweeps.py -rs

None of these files is part of this project: without the variable, or without a file, a test is skipped and says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mechint.figures import published
from mechint.trials.agreement import ALL_ARMS
from mechint.trials.importers import Imported, import_trials, integrity_report, published_rates
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.passes import pass_agreement
from mechint.trials.prompts import concept_lexicon
from mechint.trials.published_labels import read_published_labels
from tests.trials.published_trees import MIXED_UP, MODELS

CLONE = "MECHINT_OPEN_INTROSPECTION"
LABELS = "judges/introspection_detection/data"
PHASES = {"phase2": "exp07-phase2-20260228", "phase3": "exp07-phase3-20260228"}
MEASURES = {"injection_pass": "hits", "control_false_positive": "false_alarms", "net_detection": "net"}
POINT = 0.001  # a tenth of one in a hundred, and half of the last digit of what was printed
FOLDERS = {"14B": "14b", "32B-Base": "32b", "32B-Coder": "32b-coder", "32B-Insecure": "32b-insecure"}


def published_file(*parts: str) -> Path:
    """Return a file or folder of the clone, or skip the test and say what it needs."""
    clone = os.environ.get(CLONE)
    if clone is None:
        pytest.skip(f"set {CLONE} to a clone of open-introspection")
    path = Path(clone).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def agrees(table: pd.DataFrame, expected: pd.DataFrame) -> Iterator[str]:
    """Yield what differs by more than `POINT` between rates by model and a published table of them."""
    for row in expected.to_dict("records"):
        prefix = "engaged_" if row["refusals"] == "excluded" else ""
        for name, ours in MEASURES.items():
            value = float(table.loc[row["key"], f"{prefix}{ours}"])
            if np.isfinite(row[name]) and abs(value - row[name]) > POINT:
                yield f"{row['key']}, {name}: {value:.4f}, published {row[name]}"


def by_model(imported: Imported) -> pd.DataFrame:
    """Return rates as published, by the end of a model's name."""
    table = published_rates(imported, by=("model",))
    return table.assign(model=table["model"].str.rpartition("/")[2]).set_index("model")


@pytest.mark.parametrize("phase", PHASES)
def test_the_report_names_the_ten_files_that_hold_others_trials(phase: str) -> None:
    report = integrity_report(published_file("data", "sweeps", PHASES[phase]))
    assert report.files == sorted(file.removeprefix(f"{phase}/") for file in MIXED_UP if file.startswith(f"{phase}/"))


def test_rates_of_the_new_concepts_are_those_that_were_published() -> None:
    imported = import_trials(published_file("data", "sweeps", PHASES["phase2"]), as_published=True)
    table = by_model(imported)
    expected = published.load("new_concepts")
    keys = [MODELS[FOLDERS[model]].rpartition("/")[2] for model in expected["model"]]
    assert list(agrees(table, expected.assign(key=keys))) == []


def test_rates_of_the_scaling_sweep_are_those_that_were_published() -> None:
    path = published_file("data", "sweeps_rescored_20260202", "consolidated_generation.jsonl")
    table = by_model(import_trials(path, as_published=True))
    expected = published.load("scaling")
    assert list(agrees(table, expected.assign(key=expected["checkpoint"]))) == []


@pytest.mark.parametrize("labelled_set", ["dev", "test"])
@pytest.mark.parametrize("labels", ["revised", "as first given"])
def test_agreement_with_the_published_judge_is_recomputed(labelled_set: str, labels: str) -> None:
    judged = rows_by_id(published_file(LABELS, f"{labelled_set}_calibration.jsonl"))
    labelled = judged if labels == "as first given" else rows_by_id(published_file(LABELS, f"{labelled_set}.jsonl"))
    answers = [(row["label"]["answer"], judged[key]["judge_result"]["answer"]) for key, row in labelled.items()]
    counts = [answers.count(pair) for pair in (("pass", "pass"), ("fail", "pass"), ("pass", "fail"), ("fail", "fail"))]
    table = published.load("judge_agreement")
    (row,) = table[(table["labelled_set"] == labelled_set) & (table["labels"] == labels)].to_dict("records")
    assert counts == [row[name] for name in ("tp", "fp", "fn", "tn")]


def test_the_rules_judge_passes_and_fails_as_people_did_on_their_test_set() -> None:
    replies, labels = read_published_labels(published_file(LABELS, "test.jsonl"))
    table = pass_agreement(RulesJudge(), replies, labels, concept_lexicon())
    row = table[(table["question"] == "passes") & (table["arm"] == ALL_ARMS)].iloc[0]
    assert row["n"] == 51
    assert row["accuracy"] >= 0.78


def rows_by_id(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return the rows of a file of labels by id."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row["id"]: row for row in rows}
