"""Logit shifts of cells: of their own first tokens where steering acts on them, else of the vector in the prompt."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import load_once

import mechint as mi
from mechint.trials.design import Controls, TrialDesign
from mechint.trials.prompts import TrialPrompts
from mechint.trials.shifts import IN_PROMPT, OF_REPLIES, logit_shifts, readout_shifts
from mechint.trials.sweeps import ANSWERS
from tests.trials.trial_tables import trial, trials

NONE = Controls(clean=2, random=1, no=0, yes=0, none=0, mention=0)


@pytest.fixture(scope="module")
def organism() -> mi.Model:
    return load_once("organism")


@pytest.fixture(scope="module")
def vectors(organism: mi.Model) -> dict[str, mi.ConceptVector]:
    return dict(zip(("cats", "bread"), mi.extract.random_controls(organism, n=2, seed=7), strict=True))


def design(**changed: object) -> TrialDesign:
    settings = {"concepts": ("cats", "bread"), "layers": ("1:3",), "strengths": (0.2, 0.4), "prompts": ("plain",)}
    return TrialDesign(**{**settings, "controls": NONE, "samples": 1, **changed})  # type: ignore[arg-type]


def test_shifts_in_the_prompt_are_those_of_score(organism: mi.Model, vectors: dict[str, mi.ConceptVector]) -> None:
    table = readout_shifts(organism, design(steer=("reply", "everything")), vectors)
    assert len(table) == 3 * 2  # vectors and strengths; the mode makes no difference
    chat = TrialPrompts.load().named("plain").conversation()
    injection = mi.Injection(vectors["cats"], layers=(1, 2), relative_strength=0.4)
    expected = mi.score(organism, chat, injection, answers=ANSWERS)["logit_diff_shift"].item()
    row = table[(table["concept"] == "cats") & (table["strength"] == 0.4)]
    assert row["shift"].item() == pytest.approx(expected, abs=1e-5)
    assert abs(expected) > 1e-3


def test_what_the_last_block_adds_to_a_prompt_is_not_read(
    organism: mi.Model, vectors: dict[str, mi.ConceptVector]
) -> None:
    last = str(organism.n_layers - 1)
    assert readout_shifts(organism, design(layers=(last,)), vectors).empty


def test_own_first_tokens_are_taken_where_they_were_steered() -> None:
    table = trials(
        trial(0, steer="everything", first_token_logit_diff=2.0),
        trial(1, steer="reply", first_token_logit_diff=0.25, layers="2:5"),
        trial(2, steer="reply", first_token_logit_diff=0.25, layers="9"),
        trial(3, steered=False, first_token_logit_diff=0.5, layers=""),
        trial(4, steered=False, first_token_logit_diff=0.0, layers=""),
    )
    place = {"prompt": "plain", "series": "injected", "concept": "oceans", "layers": "2:5", "strength": 0.4}
    shifts = logit_shifts(table, pd.DataFrame([{**place, "shift": -3.0}]))
    assert shifts["id"].tolist() == table["id"].tolist()
    assert shifts["logit_shift"].tolist()[:2] == [1.75, -3.0]
    assert shifts["logit_shift_of"].tolist() == [OF_REPLIES, IN_PROMPT, "", "", ""]
    assert shifts["logit_shift"].isna().tolist() == [False, False, True, True, True]
    assert logit_shifts(table)["logit_shift"].notna().sum() == 1
