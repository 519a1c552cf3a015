"""d' and criterion against their definitions, areas under curves against counting pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechint.base.errors import UsageError
from mechint.stats.signal_detection import criterion, d_prime, log_linear
from mechint.trials.detection import confidence_scores, detection_table, logit_scores, roc_table
from mechint.trials.synthetic import Population, Sweep, draw
from mechint.trials.verdicts import VERDICT_COLUMNS
from tests.trials.sweeps import sweep_of


def values(sweep: Sweep, **kwargs: object) -> pd.Series:
    return detection_table(sweep.trials, sweep.truth, **kwargs).set_index("measure")["value"]  # type: ignore[arg-type]


def test_tables_have_both_of_the_shares_of_each_arm() -> None:
    sweep = sweep_of({"a": "ncdd", "b": "wddr"}, "cddddrdd")
    hits, alarms = log_linear(3.0, 8), log_linear(1.0, 8)
    assert values(sweep)["d_prime"] == pytest.approx(d_prime(hits, alarms))
    assert values(sweep)["criterion"] == pytest.approx(criterion(hits, alarms))
    assert values(sweep, refusals="out")["d_prime"] != pytest.approx(values(sweep)["d_prime"])


def test_shares_of_nothing_and_everything_have_values_and_a_yes_to_all_is_no_detection() -> None:
    assert np.isfinite(values(sweep_of({"a": "nn", "b": "nn"}, "dddd"))).all()
    yes = values(sweep_of({"a": "nnnn", "b": "nnnn"}, "cccccccc"))
    assert yes["d_prime"] == pytest.approx(0.0)
    assert yes["criterion"] < -1


def test_intervals_hold_the_truth_and_grow_with_the_noise_of_clean_replies() -> None:
    population = Population(wobble=0.0, strengths=(0.2,), layers=("1",))
    truth = d_prime(population.hits(("1", 0.2)), population.clean_hits)
    widths = []
    for controls in (60, 3000):
        sweep = draw(population, concepts=20, samples=20, controls=controls, seed=4)
        row = detection_table(sweep.trials, sweep.truth).set_index("measure").loc["d_prime"]
        assert row["low"] <= truth <= row["high"]
        widths.append(row["high"] - row["low"])
    assert widths[0] > 1.2 * widths[1]


def test_an_arm_that_is_missing_is_an_error() -> None:
    with pytest.raises(UsageError, match="2 steered and 0 clean replies"):
        values(sweep_of({"a": "nd"}, ""))


def test_areas_are_shares_of_pairs_in_order() -> None:
    sweep = draw(Population(), concepts=6, samples=5, controls=80, seed=2)
    rng = np.random.default_rng(0)
    steered = (sweep.trials["series"] == "injected").to_numpy()
    score = np.round(rng.normal(size=len(steered)) + 0.8 * steered, 1)  # with ties
    scores = pd.DataFrame({"id": sweep.trials["id"], "score": score})
    curve, areas = roc_table(sweep.trials, scores)
    pairs = score[steered][:, None] - score[~steered][None]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert areas["value"].iloc[0] == pytest.approx(expected)
    assert areas["low"].iloc[0] < expected < areas["high"].iloc[0]
    trapezes = np.trapezoid(curve["hits"], curve["false_alarms"])
    assert trapezes == pytest.approx(expected)
    assert curve[["hits", "false_alarms"]].iloc[[0, -1]].to_numpy() == pytest.approx(np.array([[0, 0], [1, 1]]))


def test_scores_that_say_nothing_have_an_area_of_a_half_and_perfect_ones_of_one() -> None:
    sweep = draw(Population(), concepts=4, samples=5, controls=50)
    same = pd.DataFrame({"id": sweep.trials["id"], "score": 1.0})
    assert roc_table(sweep.trials, same)[1]["value"].iloc[0] == pytest.approx(0.5)
    steered = (sweep.trials["series"] == "injected").astype(float)
    perfect = pd.DataFrame({"id": sweep.trials["id"], "score": steered})
    area = roc_table(sweep.trials, perfect)[1].iloc[0]
    assert (area["value"], area["high"]) == (1.0, 1.0)
    assert area["low"] < 0.7  # four concepts may have been lucky


def test_scores_come_from_confidence_or_first_tokens() -> None:
    sweep = sweep_of({"a": "nd", "b": "nd"}, "dd")
    assert logit_scores(sweep.trials)["score"].tolist() == [0.5] * 6
    with pytest.raises(UsageError, match="no scores"):
        logit_scores(sweep.trials.assign(first_token_logit_diff=np.nan))
    confidence = [0.9, None, 0.7, 0.1, 0.2, 0.3]
    verdicts = pd.DataFrame(
        {"id": sweep.trials["id"], "judge": "j", "pass_no": 0, "error": "", "confidence": confidence}
    )
    verdicts = verdicts.reindex(columns=list(VERDICT_COLUMNS))
    scores = confidence_scores(verdicts, "j")
    assert scores["score"].tolist() == [0.9, 0.7, 0.1, 0.2, 0.3]
    assert roc_table(sweep.trials, scores)[1]["n_scored"].iloc[0] == 5
