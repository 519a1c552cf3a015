"""Agreement: planted errors of a judge are counted by arm and question, and kappa is what a naive count gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechint.trials.agreement import agreement, kappa, measures
from mechint.trials.verdicts import Verdict
from tests.trials.trial_tables import trial, trials

LEXICON = {"oceans": ("sea",)}
NAMED, WRONG, CLAIM = Verdict("yes", "the sea", True), Verdict("yes", "a song", True), Verdict("yes")
NO, REFUSAL, BROKEN = Verdict("no"), Verdict("no", refused=True), Verdict("unclear", coherent=False)
TRIALS = trials(
    *[trial(n, reply="text") for n in range(6)],
    *[trial(n, steered=False, reply="text") for n in range(6, 12)],
)
IDS = list(TRIALS["id"])
TRUTH = dict(zip(IDS, [NAMED, NAMED, CLAIM, NO, REFUSAL, BROKEN, NO, NO, NO, REFUSAL, BROKEN, CLAIM], strict=True))


def rows(verdicts: dict[str, Verdict]) -> pd.DataFrame:
    return agreement(TRUTH, verdicts, TRIALS, LEXICON).set_index(["arm", "question"])


def test_a_judge_that_says_what_the_labels_say_is_right_in_everything() -> None:
    table = rows(TRUTH)
    assert (table["accuracy"] == 1).all()
    assert (table["FP"] + table["FN"] == 0).all()
    assert table.loc[("all", "coherent"), "n"] == 12
    assert table.loc[("all", "claims"), "n"] == 10
    assert table.loc[("injected", "named"), "n"] == 3


def test_errors_are_counted_where_they_were_made() -> None:
    verdicts = {**TRUTH, IDS[0]: WRONG, IDS[2]: NO, IDS[6]: CLAIM, IDS[5]: CLAIM}
    table = rows(verdicts)
    counts = ["TP", "FP", "FN", "TN"]
    assert table.loc[("injected", "claims"), counts].tolist() == [2, 0, 1, 2]
    assert table.loc[("clean", "claims"), counts].tolist() == [1, 1, 0, 3]
    assert table.loc[("injected", "names rightly"), counts].tolist() == [1, 0, 1, 4]
    assert table.loc[("injected", "detects"), counts].tolist() == [2, 1, 1, 2]
    assert table.loc[("injected", "coherent"), counts].tolist() == [5, 1, 0, 0]
    assert table.loc[("all", "claims"), "sensitivity"] == pytest.approx(3 / 4)


def test_swapping_the_arms_swaps_their_rows_and_nothing_else() -> None:
    verdicts = {**TRUTH, IDS[2]: NO, IDS[6]: CLAIM}
    table = rows(verdicts)
    other = TRIALS["series"].map({"injected": "clean", "clean": "injected"})
    swapped = agreement(TRUTH, verdicts, TRIALS.assign(series=other), LEXICON).set_index(["arm", "question"])
    for question in ("claims", "coherent", "refused"):
        assert swapped.loc[("clean", question)].equals(table.loc[("injected", question)])
        assert swapped.loc[("all", question)].equals(table.loc[("all", question)])


def test_what_has_no_verdict_or_one_with_an_error_does_not_count() -> None:
    verdicts = {IDS[0]: NAMED, IDS[1]: Verdict("unclear", error="no answer")}
    assert rows(verdicts).loc[("all", "coherent"), "n"] == 1


def test_kappa_is_that_of_a_naive_count() -> None:
    first = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    second = np.array([1, 1, 0, 0, 0, 1, 0, 1])
    observed = (first == second).mean()
    chance = first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean())
    assert kappa(np.array([3.0, 1, 1, 3])) == pytest.approx((observed - chance) / (1 - chance))
    assert np.isnan(kappa(np.array([0.0, 0, 0, 5])))


def test_intervals_hold_their_values_and_narrow_with_more_labels() -> None:
    few, many = measures(np.array([8.0, 1, 2, 9])), measures(np.array([80.0, 10, 20, 90]))
    for values in (few, many):
        for name in ("sensitivity", "specificity", "accuracy", "kappa"):
            assert values[f"{name}_low"] < values[name] < values[f"{name}_high"]
    assert many["kappa_high"] - many["kappa_low"] < few["kappa_high"] - few["kappa_low"]
    assert np.isnan(measures(np.array([0.0, 0, 0, 5]))["sensitivity"])
