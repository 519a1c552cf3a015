"""The bundled labels: frozen, blind in what a judge gets, and the rules judge is worth on them what the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from mechint.base.errors import UsageError
from mechint.base.files import read_json, sha256
from mechint.trials.judges import loss
from mechint.trials.judges.loss import LIMITS_FILE
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.labelled_sets import LabelledSet, bundled_folder, is_held_out, labelled_set
from mechint.trials.labels import Label
from mechint.trials.measured import caption, error_counts, first_replies, keep_measured, measure, measured

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


@pytest.mark.parametrize("name", ["local:smollm2", "rules+loss:smollm2"])
def test_stored_judges_have_the_counts_of_claims_and_of_bounds(name: str) -> None:
    table = measured(name)
    assert table["version"].nunique() == 1
    assert set(table["labels_version"]) == {LABELLED.labels.version()}
    for question in ("detects", "detects or refuses"):
        assert set(error_counts(table, question)) == {"clean", "injected", "random"}


def test_what_is_stored_of_rules_with_a_loss_is_of_the_rules_as_they_are() -> None:
    ((identity, limit),) = read_json(bundled_folder() / LIMITS_FILE).items()
    parts = (RulesJudge().version, identity, repr(limit))
    version = sha256(*(text.encode() for text in parts), Path(loss.__file__).read_bytes())[:16]
    advice = "measure it again, as docs/trial-judges.md says: its numbers are of other rules"
    assert set(measured("rules+loss:smollm2")["version"]) == {version}, advice


def test_numbers_of_a_judge_are_written_in_place_of_its_older_ones(tmp_path: Path) -> None:
    path = tmp_path / "measured.csv"
    few = measure(RulesJudge(), first_replies(LABELLED, 20))
    keep_measured(RULES.assign(judge="another"), path)
    keep_measured(RULES, path)
    keep_measured(few, path)
    kept = pd.read_csv(path)
    assert len(kept[kept["judge"] == "another"]) == len(RULES)
    pd.testing.assert_frame_equal(
        kept[kept["judge"] == "rules"].reset_index(drop=True), few, check_dtype=False, atol=1e-4
    )
    assert few.query("question == 'detects' and arm == 'all'")["n"].item() == 20


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
