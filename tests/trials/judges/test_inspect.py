"""Inspect: its scores become verdicts; without it one error says so. What needs it runs where it is installed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mechint.base.errors import PrerequisiteError
from mechint.trials.judges.inspect import InspectJudge, claim_of, write_log
from mechint.trials.verdicts import Item, Judge
from tests.prerequisites import needs
from tests.trials.trial_tables import trial, trials

ITEMS = [Item("a", "Prompt?", "I notice the sea."), Item("b", "Prompt?", "No.")]


@dataclass
class Scored:
    """What a scorer gives."""

    value: object
    explanation: str | None = None


def test_scores_become_verdicts_and_others_errors() -> None:
    assert claim_of(Scored("C", "It says so.")).claims == "yes"
    assert claim_of(Scored("I")).claims == "no"
    assert claim_of(Scored(0.8)).confidence == 0.8
    assert claim_of(Scored(0.2)).claims == "no"
    for value in ("P", float("nan"), 7, {"a": 1}):
        assert "neither C, I nor" in claim_of(Scored(value)).error


def test_without_inspect_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.setitem(sys.modules, "inspect_ai.scorer", None)
    judge = InspectJudge(lambda state, target: None, "graded", "1")
    assert isinstance(judge, Judge)
    with pytest.raises(PrerequisiteError, match=r"mechint\[inspect\]"):
        judge.judge(ITEMS)
    with pytest.raises(PrerequisiteError, match=r"mechint\[inspect\]"):
        write_log(trials(trial(0)), {}, tmp_path / "trials.eval")


def test_the_version_is_of_scorer_target_and_reading() -> None:
    def other(score: Scored) -> object:
        return claim_of(score)

    judges = [
        InspectJudge(lambda state, target: None, "graded", "1"),
        InspectJudge(lambda state, target: None, "graded", "2"),
        InspectJudge(lambda state, target: None, "graded", "1", target="Is it so?"),
        InspectJudge(lambda state, target: None, "graded", "1", read=other),
    ]
    assert len({judge.version for judge in judges}) == 4


@needs("inspect_ai")
def test_a_graded_reply_is_judged_and_a_log_can_be_scored_again(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import model_graded_qa

    usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    outputs = [ModelOutput.from_content("mockllm/model", f"GRADE: {grade}") for grade in "CI"]
    for output in outputs:
        output.usage = usage
    scorer = model_graded_qa(model=get_model("mockllm/model", custom_outputs=outputs))
    assert [v.claims for v in InspectJudge(scorer, "graded", "1").judge(ITEMS)] == ["yes", "no"]
    path = write_log(trials(trial(0), trial(1, steered=False)), {"p": "Prompt?"}, tmp_path / "trials.eval")
    read = read_eval_log(str(path))
    assert [sample.metadata["series"] for sample in read.samples] == ["injected", "clean"]
    assert read.samples[0].output.completion == trial(0)["reply"]
