"""The bundled labels: frozen, blind in what a judge gets, and the rules judge is worth on them what the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mechint.base.errors import UsageError
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.labelled_sets import LabelledSet, bundled_folder, is_held_out, labelled_set
from mechint.trials.labels import Label
from mechint.trials.measured import caption, error_counts, measure, measured

LABELLED = labelled_set()
RULES = measured("rules")


def test_at_least_three_hundred_replies_of_both_kinds_of_model_and_all_arms_are_labelled() -> None:
    assert len(LABELLED.frozen()) == len(LABELLED.trials) >= 300
    assert set(LABELLED.trials["series"]) == {"clean", "injected", "random"}
    assert set(LABELLED.trials["model"]) >= {"organism", "smollm2"}
    labels = list(LABELLED.frozen().values())
    assert min(sum(label.claims == "yes" for label in labels), sum(not label.coherent for label in labels)) > 40
    assert LABELLED.labels.revised() == []


def test_halves_are_disjoint_and_of_about_one_size() -> None:
    tuning, held_out = LABELLED.rows("tuning"), LABELLED.rows("held-out")
    assert not set(tuning["id"]) & set(held_out["id"])
    assert len(tuning) + len(held_out) == len(LABELLED.trials)
    assert 0.4 < len(held_out) / len(LABELLED.trials) < 0.6
    assert held_out["id"].map(is_held_out).all()


def test_the_rules_judge_keeps_what_it_was_measured_to_be() -> None:
    rows = RULES[RULES["arm"] == "all"].set_index("question")
    assert rows.loc["claims", "accuracy"] >= 0.9
    assert rows.loc["detects", "accuracy"] >= 0.9
    assert rows.loc["refused", "accuracy"] >= 0.9
    assert rows.loc["coherent", "accuracy"] >= 0.8


def test_on_organisms_it_is_better_than_nine_in_ten() -> None:
    organisms = LABELLED.trials["model"].str.startswith("organism")
    few = LabelledSet(LABELLED.trials[organisms].reset_index(drop=True), LABELLED.prompts, LABELLED.labels)
    rows = measure(RulesJudge(), few).query("arm == 'all'").set_index("question")
    assert rows.loc["claims", "accuracy"] >= 0.95
    assert rows.loc["detects", "accuracy"] >= 0.95


def test_swapping_the_arms_of_the_set_changes_no_verdict() -> None:
    swapped = LABELLED.trials.assign(series=LABELLED.trials["series"].to_numpy()[::-1], concept="")
    other = LabelledSet(swapped, LABELLED.prompts, LABELLED.labels)
    assert RulesJudge().judge(LABELLED.items("held-out")) == RulesJudge().judge(other.items("held-out"))


def test_counts_and_caption_are_those_of_the_table() -> None:
    counts = error_counts(RULES)
    rows = RULES[RULES["question"] == "detects"].set_index("arm")
    assert set(counts) == {"clean", "injected", "random"}
    assert counts["clean"].sensitivity == pytest.approx(rows.loc["clean", "sensitivity"])
    assert sum(c.tp + c.fp + c.fn + c.tn for c in counts.values()) == rows.loc["all", "n"]
    assert f"injected {rows.loc['injected', 'sensitivity']:.2f}" in caption(RULES)
    with pytest.raises(UsageError, match="detects"):
        error_counts(RULES, "pass")


def test_a_judge_that_nobody_has_measured_is_an_error() -> None:
    with pytest.raises(UsageError, match="nobody has measured"):
        measured("openai:unheard-of")


def test_without_frozen_labels_nothing_is_measured(tmp_path: Path) -> None:
    for name in ("trials.jsonl", "prompts.json"):
        shutil.copy(bundled_folder() / name, tmp_path / name)
    fresh = LabelledSet.load(tmp_path)
    fresh.labels.add(Label(fresh.trials["id"].iloc[0], "no"))
    with pytest.raises(UsageError, match="no frozen labels"):
        measure(RulesJudge(), fresh)


def test_a_set_without_prompts_is_refused(tmp_path: Path) -> None:
    shutil.copy(bundled_folder() / "trials.jsonl", tmp_path / "trials.jsonl")
    with pytest.raises(UsageError, match="lacks"):
        LabelledSet.load(tmp_path)
    (tmp_path / "prompts.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="has no text of the prompts"):
        LabelledSet.load(tmp_path)
