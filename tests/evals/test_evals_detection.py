"""Detection on oracles: planted truths are read, faults of the published estimator are shown, bad input is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import torch

import mechint as mi
from mechint.base.errors import UnknownNameError, UsageError
from mechint.evals import oracles
from mechint.evals.detection import detection
from mechint.evals.detection_rates import clean_rates, detection_rates
from mechint.finetune.specification import Recipe

RECIPE = Recipe.load("matched/original").adapted(8, small=True)
SMALL = replace(RECIPE, signal=replace(RECIPE.signal, layers=("2:4",), dose=(0.4, 0.8)))
MAKERS = {
    "knower": oracles.knower,
    "other-knower": oracles.other_knower,
    "constant": oracles.constant,
    "collapsed": oracles.collapsed,
    "noisy": oracles.noisy,
    "liar": oracles.liar,
    "pushed": oracles.pushed,
    "startled": oracles.startled,
}


@lru_cache
def trials(name: str) -> pd.DataFrame:
    return detection(MAKERS[name](), SMALL, vectors=12, texts=24, dev_texts=40)


@lru_cache
def held_out(name: str) -> pd.Series:
    return detection_rates(trials(name)).set_index("pool").loc["held-out"]


def test_every_trial_has_its_rows() -> None:
    table = trials("knower")
    counts = table.groupby(["kind", "question"]).size().to_dict()
    assert counts == {
        **{(kind, "own"): 24 for kind in ("clean", "seen", "odd", "long", "null")},
        ("clean", "control"): 24,
        ("null", "control"): 24,
        ("dev", "own"): 40,
        ("steered", "own"): 48,
        ("steered", "control"): 48,
    }
    assert set(table["dose"]) == {0.0, 0.4, 0.8}
    clean = table[(table["kind"] == "clean") & (table["question"] == "own")]
    assert clean["text"].nunique() == 24
    assert len(clean["positive"].unique()) > 1, "balanced pairs"


def test_texts_of_training_and_others_are_apart() -> None:
    wordings = {
        kind: set(rows["wording"]) for kind, rows in trials("knower").query("question == 'own'").groupby("kind")
    }
    assert not wordings["seen"] & (wordings["clean"] | wordings["dev"])
    assert not wordings["clean"] & wordings["dev"]
    assert wordings["steered"] <= wordings["clean"]
    vectors = {pool: set(rows["vector"]) for pool, rows in trials("knower").query("kind == 'steered'").groupby("pool")}
    assert not vectors["trained"] & vectors["held-out"]


@pytest.mark.parametrize("name", MAKERS)
def test_strength_zero_is_clean_to_the_last_bit(name: str) -> None:
    table = trials(name).set_index(["question", "text"])
    columns = ["score", "mass", "says"]
    assert table[table["kind"] == "null"][columns].equals(table[table["kind"] == "clean"][columns])


def test_oracles_are_read_as_they_were_planted() -> None:
    assert held_out("knower")["auc_low"] > 0.7
    assert held_out("knower")["auc_above_control_low"] > 0.1
    assert held_out("knower")["says"] > 0.9
    assert held_out("liar")["auc_high"] < 0.3
    for name in ("other-knower", "constant", "noisy", "startled"):
        row = held_out(name)
        assert row["auc_low"] <= 0.5 <= row["auc_high"], name
        assert row["hits_at"] < 0.15 or name == "other-knower", name


def test_odd_text_is_told_apart_from_steering() -> None:
    startled = clean_rates(trials("startled")).set_index("pool")
    assert startled.loc["odd", "auc_low"] > 0.8
    assert startled.loc["odd", "alarms"] > 0.8
    knower = clean_rates(trials("knower")).set_index("pool")
    assert knower.loc["odd", "auc_low"] < 0.5 < knower.loc["odd", "auc_high"]
    assert (knower.loc["null", "auc"], startled.loc["null", "auc"]) == (0.5, 0.5)


def test_a_push_is_no_detection() -> None:
    row = held_out("pushed")
    assert row["auc_low"] > 0.7
    assert row["auc_above_control_low"] < 0 < row["auc_above_control_high"]


def test_answers_that_are_hardly_given_are_marked() -> None:
    assert held_out("collapsed")["warning"] == "mass below 0.1"
    assert held_out("collapsed")["says"] == 0.0
    assert held_out("knower")["warning"] == ""


def test_a_threshold_that_does_not_carry_over_is_marked() -> None:
    """Where each wording has a level of its own, dev texts say nothing of others."""
    moody = oracles.Planted("moody", lambda cell: -4.0 * (cell.tags["kind"] == "dev") + cell.noise())
    row = detection_rates(detection(moody, SMALL, vectors=12, texts=24, dev_texts=40), by="recipe").iloc[0]
    assert row["hits_at"] > 0.9, "as good as perfect, but for:"
    assert row["alarms_at"] > 0.9
    assert row["warning"] == "the threshold of the dev texts does not hold on others"


def test_groups_are_cells_of_the_grid() -> None:
    cells = detection_rates(trials("knower"), by=("pool", "layers", "dose"))
    assert len(cells) == 4
    assert (cells["n_trials"] == 12).all()
    assert (cells["n_clean"] == 24).all()
    with pytest.raises(UnknownNameError, match="colour"):
        detection_rates(trials("knower"), by="colour")


class TestPublished:
    """Faults of the published estimator, by their number in the list of faults; ours reads the planted truth."""

    def test_11_always_yes_scores_the_share_that_is_steered(self) -> None:
        table = trials("constant")
        published = detection_rates(table, by="recipe", estimator="published").iloc[0]
        assert published["accuracy"] > 0.65, "it knows nothing"
        ours = detection_rates(table, by="recipe").iloc[0]
        assert (ours["auc"], ours["hits"], ours["alarms"]) == (0.5, 1.0, 1.0)

    def test_11_sensitivity_has_no_ceiling_and_says_how_little_is_known(self) -> None:
        perfect = oracles.knower(gain=30.0, criterion=15.0)
        table = detection(perfect, SMALL, vectors=12, texts=24, dev_texts=40)
        published = detection_rates(table, by="recipe", estimator="published").iloc[0]
        ours = detection_rates(table, by="recipe").iloc[0]
        assert published["d_prime"] == pytest.approx(4.65, abs=0.01)
        assert ours["d_prime_low"] < 3.5
        assert np.isinf(ours["d_prime_high"])

    def test_12_repeated_clean_trials_are_no_more_texts(self) -> None:
        table = trials("knower")
        clean = (table["kind"] == "clean") & table["text"].isin([f"clean-{number:03d}" for number in range(10)])
        repeated = pd.concat([table[table["kind"] != "clean"], *[table[clean]] * 5])
        published = detection_rates(repeated, by="recipe", estimator="published").iloc[0]
        assert published["n_trials"] == 48 + 50
        with pytest.raises(UsageError, match="10 distinct clean texts"):
            detection_rates(repeated)

    def test_12_no_alarm_among_few_texts_is_not_a_rate_of_zero(self) -> None:
        row = detection_rates(trials("knower"), by="recipe").iloc[0]
        published = detection_rates(trials("knower"), by="recipe", estimator="published").iloc[0]
        assert published["alarms"] == row["alarms"] == 0.0
        assert row["alarms_high"] > 0.1

    def test_13_vectors_of_training_are_a_pool_of_their_own(self) -> None:
        """A model that knows its training vectors by heart."""
        known = set(trials("knower").query("pool == 'trained'")["vector"])

        def recalled(cell: oracles.Cell) -> float:
            is_known = any(f" {name} " in f" {cell.intervention.name} " for name in known)
            return 6.0 * is_known - 3.0 + cell.noise()

        table = detection(oracles.Planted("rote", recalled), SMALL, vectors=12, texts=24, dev_texts=40)
        rows = detection_rates(table).set_index("pool")
        assert rows.loc["trained", "auc_low"] > 0.7
        assert rows.loc["held-out", "auc_low"] < 0.5 < rows.loc["held-out", "auc_high"]

    def test_14_wordings_that_were_trained_are_a_pool_of_their_own(self) -> None:
        """A model that calls everything steered where it does not know the wording."""
        known = set(trials("knower").query("kind == 'seen'")["wording"])

        def recalled(cell: oracles.Cell) -> float:
            return (-3.0 if cell.conversation.messages[-2].content in known else 3.0) + cell.noise()

        table = detection(oracles.Planted("rote", recalled), SMALL, vectors=12, texts=24, dev_texts=40)
        alarms = clean_rates(table).set_index("pool")["alarms"]
        assert alarms["seen"] < 0.1
        assert alarms["clean"] > 0.9

    def test_15_a_criterion_near_the_threshold_is_no_detection(self) -> None:
        leaning = oracles.noisy(level=1.5, spread=0.5)
        table = detection(leaning, SMALL, vectors=12, texts=24, dev_texts=40)
        published = detection_rates(table, by="recipe", estimator="published").iloc[0]
        ours = detection_rates(table, by="recipe").iloc[0]
        assert published["hits"] > 0.9
        assert published["alarms"] > 0.9
        assert ours["auc_low"] < 0.5 < ours["auc_high"]
        assert ours["criterion"] < -1
        assert ours["hits_at"] < 0.2

    def test_16_a_detector_of_oddness_is_told_from_one_of_steering(self) -> None:
        """It reports whatever is odd, steered or not; detection alone cannot tell."""
        both = oracles.Planted(
            "odd or steered", lambda cell: 6.0 * (cell.is_steered or cell.tags["kind"] == "odd") - 3.0 + cell.noise()
        )
        table = detection(both, SMALL, vectors=12, texts=24, dev_texts=40)
        assert detection_rates(table, by="recipe", estimator="published").iloc[0]["accuracy"] > 0.95
        assert clean_rates(table).set_index("pool").loc["odd", "auc_low"] > 0.8


def test_other_pools_are_brought_along() -> None:
    axes = torch.eye(16)
    concepts = {name: mi.ConceptVector({2: axes[at], 3: axes[at]}, name) for at, name in enumerate("abcd")}
    table = detection(
        oracles.knower(), SMALL, pools=("negated", "concept"), vectors=4, texts=20, dev_texts=20, concepts=concepts
    )
    steered = table[table["kind"] == "steered"]
    assert set(steered[steered["pool"] == "concept"]["vector"]) == set("abcd")
    assert all(name.startswith("-random-") for name in steered[steered["pool"] == "negated"]["vector"])


def test_what_cannot_be_evaluated_is_refused() -> None:
    oracle = oracles.knower()
    with pytest.raises(UsageError, match="adds nothing"):
        detection(oracle, Recipe.load("matched/no-steer").adapted(8, small=True))
    with pytest.raises(UsageError, match="which concept"):
        detection(oracle, Recipe.load("matched/which-concept").adapted(8, small=True))
    with pytest.raises(UnknownNameError, match="pool 'others'"):
        detection(oracle, SMALL, pools=("others",))
    with pytest.raises(UsageError, match="501 vectors"):
        detection(oracle, SMALL, vectors=501)
    with pytest.raises(UsageError, match="which has 0"):
        detection(oracle, SMALL, pools=("concept",), vectors=2)
    with pytest.raises(UsageError, match="control questions"):
        detection(oracle, SMALL, controls=("explicit",))


def test_a_recipe_without_a_signal_is_asked_under_another_ones() -> None:
    recipe = Recipe.load("matched/no-steer").adapted(8, small=True)
    table = detection(oracles.noisy(), recipe, signal=SMALL.signal, vectors=4, texts=20, dev_texts=20)
    assert set(table["recipe"]) == {"matched/no-steer"}
    assert table[table["kind"] == "steered"]["dose"].gt(0).all()
