"""Judges' errors in rates: exact where the judge is right or its errors are certain, nothing where it says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mechint.base.errors import UsageError
from mechint.trials.correction import Confusion, confusions, corrected_rates, rogan_gladen, share_draws
from mechint.trials.labelled import prediction_powered
from mechint.trials.rates import COLUMNS, rate_table
from mechint.trials.shares import Share, share_interval
from mechint.trials.synthetic import Population, draw, judged
from tests.trials.sweeps import sweep_of

CERTAIN = 10_000_000
PERFECT = Confusion(CERTAIN, 0, 0, CERTAIN)
SWEEP = draw(Population(), concepts=12, samples=10, controls=300, seed=5)


def net(table: pd.DataFrame, refusals: str = "in") -> pd.Series:
    return table[(table["measure"] == "net") & (table["refusals"] == refusals)].iloc[0]


def test_rogan_gladen_undoes_what_errors_do() -> None:
    truth = np.linspace(0, 1, 11)
    counted = 0.8 * truth + (1 - 0.7) * (1 - truth)
    assert rogan_gladen(counted, 0.8, 0.7) == pytest.approx(truth)
    assert rogan_gladen(0.1, 0.8, 0.7) == 0.0
    assert rogan_gladen(0.95, 0.8, 0.7) == 1.0


def test_a_judge_without_errors_is_not_corrected() -> None:
    corrected = corrected_rates(
        SWEEP.trials, SWEEP.truth, {"injected": PERFECT, "clean": PERFECT}, judge="truth", naming=PERFECT
    )
    raw = rate_table(SWEEP.trials, SWEEP.truth)
    assert tuple(corrected.columns[2:]) == COLUMNS
    assert set(corrected["measure"]) == {"hits", "false alarms", "net", "introspection"}
    for _, row in corrected.iterrows():
        same = raw[(raw["measure"] == row["measure"]) & (raw["refusals"] == row["refusals"])].iloc[0]
        assert row["value"] == pytest.approx(same["value"], abs=1e-6)
        if row["measure"] != "net":
            assert (row["low"], row["high"]) == pytest.approx((same["low"], same["high"]), abs=0.015)
        # Skewness is that of concepts alone here, and of concepts with clean replies there.
        assert (row["low"], row["high"]) == pytest.approx((same["low"], same["high"]), abs=0.1)


def test_known_errors_are_taken_out_and_unknown_ones_widen_the_interval() -> None:
    rates_of_errors = {"injected": 0.8, "clean": 0.8}
    sweep = draw(Population(), concepts=12, samples=40, controls=1500, seed=5)
    outcomes = judged(sweep, rates_of_errors, rates_of_errors, seed=1)
    certain, few = Confusion(8_000_000, 2_000_000, 2_000_000, 8_000_000), Confusion(16, 4, 4, 16)
    sure = net(corrected_rates(sweep.trials, outcomes, {"injected": certain, "clean": certain}, judge="planted"))
    unsure = net(corrected_rates(sweep.trials, outcomes, {"injected": few, "clean": few}, judge="planted"))
    truth, biased = net(rate_table(sweep.trials, sweep.truth)), net(rate_table(sweep.trials, outcomes))
    assert abs(sure["value"] - truth["value"]) < 0.06 < abs(biased["value"] - truth["value"])
    assert unsure["high"] - unsure["low"] > 1.3 * (sure["high"] - sure["low"])
    assert sure["value"] == pytest.approx(unsure["value"])


def test_a_judge_that_says_too_little_identifies_nothing() -> None:
    coin = Confusion(11, 9, 9, 11)
    table = corrected_rates(SWEEP.trials, SWEEP.truth, {"injected": PERFECT, "clean": coin}, judge="truth")
    assert np.isfinite(table.loc[table["measure"] == "hits", "low"]).all()
    row = net(table)
    assert np.isnan([row["value"], row["low"], row["high"]]).all()
    assert "not identified: sensitivity + specificity - 1 is 0.10 in clean replies" in row["warning"]


def test_each_arm_needs_labels() -> None:
    with pytest.raises(UsageError, match="no labelled replies of the series clean"):
        corrected_rates(SWEEP.trials, SWEEP.truth, {"injected": PERFECT}, judge="truth")


def test_confusions_are_counted_by_series() -> None:
    labels = sweep_of({"a": "nndd", "b": "cd"}, "dddc")
    steered = ["claims", "denies", "denies", "claims", "claims", "denies"]
    outcomes = labels.truth.assign(outcome=steered + ["denies"] * 4)
    counts = confusions(labels.trials, labels.truth, outcomes, "hand")
    assert counts == {"injected": Confusion(2, 1, 1, 2), "clean": Confusion(0, 0, 1, 3)}
    assert counts["injected"].sensitivity == counts["injected"].specificity == pytest.approx(2 / 3)
    assert counts["clean"].sensitivity == 0.0
    assert confusions(labels.trials, labels.truth, outcomes, "hand", counted="rightly")["injected"].tp == 0
    assert Confusion(0, 0, 0, 3).sensitivity == 0.5
    with pytest.raises(UsageError, match="counted='refuses'"):
        confusions(labels.trials, labels.truth, outcomes, "hand", counted="refuses")


@pytest.mark.parametrize("over", [[0.1, 0.5, 0.3, 0.9, 0.2], [0.0] * 6, [1.0] * 4])
def test_draws_of_a_share_have_its_interval(over: list[float]) -> None:
    share = Share(np.array(over), np.ones(len(over)))
    draws = share_draws(share, np.random.default_rng(0), 40_000)
    for level in (0.8, 0.95):
        interval = share_interval(share, level)
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        if 0 < np.mean(over) < 1:
            assert (low, high) == pytest.approx((float(interval.low), float(interval.high)), abs=0.01)
        else:
            far = (high, float(interval.high)) if np.mean(over) == 0 else (low, float(interval.low))
            assert far[0] == pytest.approx(far[1], abs=0.01)


def test_labels_of_everything_need_no_judge() -> None:
    wrong = SWEEP.truth.assign(judge="wrong", outcome=np.random.default_rng(0).permutation(SWEEP.truth["outcome"]))
    powered = net(prediction_powered(SWEEP.trials, wrong, SWEEP.truth, judge="wrong"))
    truth = net(rate_table(SWEEP.trials, SWEEP.truth))
    assert powered["value"] == pytest.approx(truth["value"], abs=0.01)


def test_a_judge_that_is_right_makes_few_labels_as_good_as_many() -> None:
    labels = SWEEP.truth.sample(120, random_state=2)
    right = net(prediction_powered(SWEEP.trials, SWEEP.truth, labels, judge="truth"))
    truth = net(rate_table(SWEEP.trials, SWEEP.truth))
    noise = SWEEP.truth.assign(outcome="denies", judge="mute")
    mute = net(prediction_powered(SWEEP.trials, noise, labels, judge="mute"))
    assert abs(right["value"] - truth["value"]) < 0.05
    assert right["high"] - right["low"] < 0.8 * (mute["high"] - mute["low"])
    with pytest.raises(UsageError, match="labelled clean replies of model synthetic"):
        prediction_powered(SWEEP.trials, SWEEP.truth, labels.iloc[:20], judge="truth")


def test_errors_that_differ_by_arm_make_a_difference_where_there_is_none() -> None:
    nothing = replace(Population(), claim=0.05, spread=0.1, wobble=0.0, incoherent=0.0)
    sweep = draw(nothing, concepts=10, seed=3)
    outcomes = judged(sweep, {"injected": 1.0, "clean": 1.0}, {"injected": 0.7, "clean": 1.0}, seed=1)
    assert net(rate_table(sweep.trials, outcomes))["low"] > 0.2
    errors = {"injected": Confusion(30, 30, 0, 70), "clean": Confusion(30, 0, 0, 70)}
    corrected = net(corrected_rates(sweep.trials, outcomes, errors, judge="planted"))
    assert corrected["low"] <= nothing.net <= corrected["high"]


def test_bounds_hold_what_refusals_may_hide() -> None:
    sweep = draw(Population(refusals=0.3, clean_refusals=0.2), concepts=12, samples=10, controls=300, seed=5)
    errors = {"injected": PERFECT, "clean": PERFECT}
    corrected = corrected_rates(sweep.trials, sweep.truth, errors, judge="truth", bounds=errors)
    raw = rate_table(sweep.trials, sweep.truth)
    for refusals in ("in", "out", "lowest", "highest"):
        assert net(corrected, refusals)["value"] == pytest.approx(net(raw, refusals)["value"], abs=1e-6)
    assert "introspection" not in set(corrected["measure"])
    with pytest.raises(UsageError, match="clean"):
        corrected_rates(sweep.trials, sweep.truth, errors, judge="truth", bounds={"injected": PERFECT})


def test_without_refusals_bounds_are_never_within_each_other() -> None:
    """Errors of claims and of claims or refusals are counted apart: neither may put the highest below the lowest."""
    sweep = draw(Population(refusals=0.0, clean_refusals=0.0), concepts=8, samples=5, controls=100, seed=1)
    errors = {"injected": Confusion(18, 5, 2, 75), "clean": Confusion(11, 1, 1, 55)}
    bounds = {"injected": Confusion(21, 9, 2, 70), "clean": Confusion(14, 3, 1, 50)}
    table = corrected_rates(sweep.trials, sweep.truth, errors, judge="truth", bounds=bounds)
    for end in ("value", "low", "high"):
        assert net(table, "lowest")[end] <= net(table)[end] <= net(table, "highest")[end]
