"""Contrasts: matched cells against recomputing by hand, what cancels, what cannot be tested, and what is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mechint import stats
from mechint.base.errors import UnknownNameError, UsageError
from mechint.trials.arms import judged_trials, selected
from mechint.trials.contrasts import difference
from mechint.trials.outcomes import CLAIMING
from mechint.trials.plans import Contrast, Measured, holm, read_plan, verdict
from mechint.trials.scorecard import contrast_table
from mechint.trials.splitting import best_cell, split_values
from mechint.trials.synthetic import Population, Sweep, draw
from tests.trials.sweeps import joined, prompts, sweep_of

SWEEP = prompts(concepts=8, samples=10, controls=200)
B_LESS_A = Contrast("b less a", left=[{"prompt": "b"}], right=[{"prompt": "a"}])


def only(sweep: Sweep, contrast: Contrast) -> pd.Series:
    (row,) = contrast_table(sweep.trials, sweep.truth, [contrast]).to_dict("records")
    return pd.Series(row)


def by_concept(sweep: Sweep, **values: object) -> pd.Series:
    claims = sweep.truth["outcome"].isin(CLAIMING)
    rows = sweep.trials["series"] == "injected"
    for name, value in values.items():
        rows &= sweep.trials[name] == value
    return claims[rows].groupby(sweep.trials["concept"][rows]).mean()


def test_within_a_prompt_clean_replies_cancel_and_concepts_are_compared_with_themselves() -> None:
    contrast = Contrast("dose", left=[{"strength": 0.4, "prompt": "a"}], right=[{"strength": 0.2, "prompt": "a"}])
    differences = by_concept(SWEEP, strength=0.4, prompt="a") - by_concept(SWEEP, strength=0.2, prompt="a")
    row, expected = only(SWEEP, contrast), stats.mean_interval(differences.to_numpy())
    assert row["value"] == pytest.approx(differences.mean())
    assert (row["low"], row["high"]) == pytest.approx((float(expected.low), float(expected.high)))
    assert row["p"] == pytest.approx(stats.sign_flip_test(differences.to_numpy()))
    assert row["smallest_p"] == 2 / 2**8


def test_between_prompts_the_false_alarms_of_each_are_taken_off() -> None:
    claims = SWEEP.truth["outcome"].isin(CLAIMING)
    clean = SWEEP.trials["series"] == "clean"
    alarms = claims[clean].groupby(SWEEP.trials["prompt"][clean]).mean()
    hits = by_concept(SWEEP, prompt="b").mean() - by_concept(SWEEP, prompt="a").mean()
    assert only(SWEEP, B_LESS_A)["value"] == pytest.approx(hits - (alarms["b"] - alarms["a"]))
    reversed_ = Contrast("a less b", left=[{"prompt": "a"}], right=[{"prompt": "b"}])
    assert only(SWEEP, reversed_)["value"] == pytest.approx(-only(SWEEP, B_LESS_A)["value"])
    assert only(SWEEP, reversed_)["p"] == pytest.approx(only(SWEEP, B_LESS_A)["p"])


def test_a_group_less_itself_is_nothing() -> None:
    row = only(SWEEP, Contrast("same", left=[{"prompt": "a"}], right=[{"prompt": "a"}]))
    assert (row["value"], row["low"], row["high"], row["p"]) == (0.0, 0.0, 0.0, 1.0)
    assert row["reason"].startswith("equivalent")


def test_an_asymmetry_is_the_difference_of_two_differences() -> None:
    groups = [{"prompt": p, "strength": s} for p, s in itertools.product("ab", (0.2, 0.4))]
    row = only(SWEEP, Contrast("asymmetry", left=[groups[3], groups[0]], right=[groups[1], groups[2]]))
    parts = [
        only(SWEEP, Contrast("dose", left=[{"prompt": p, "strength": 0.4}], right=[{"prompt": p, "strength": 0.2}]))
        for p in "ba"
    ]
    assert row["value"] == pytest.approx(parts[0]["value"] - parts[1]["value"])


def test_cells_that_only_some_groups_have_are_dropped_and_counted() -> None:
    narrow = SWEEP.trials[(SWEEP.trials["prompt"] != "b") | (SWEEP.trials["strength"] != 0.4)]
    sweep = Sweep(narrow, SWEEP.truth)
    row = only(sweep, B_LESS_A)
    assert (row["cells_matched"], row["cells_dropped"], row["note"]) == (16, 16, "")
    same = Contrast("at .2", left=[{"prompt": "b", "strength": 0.2}], right=[{"prompt": "a", "strength": 0.2}])
    assert row["value"] == pytest.approx(only(SWEEP, same)["value"])
    pooled = only(sweep, Contrast("all", left=[{"prompt": "b"}], right=[{"prompt": "a"}], unmatched=True))
    assert pooled["note"].startswith("unmatched")
    assert pooled["value"] != pytest.approx(row["value"], abs=1e-6)


def test_groups_without_a_cell_in_common_are_refused() -> None:
    contrast = Contrast("models", left=[{"prompt": "b", "strength": 0.4}], right=[{"prompt": "a", "layers": "10"}])
    names = SWEEP.trials["concept"] + SWEEP.trials["prompt"]
    trials = SWEEP.trials.assign(concept=names.where(SWEEP.trials["concept"] != "", ""))
    with pytest.raises(UsageError, match="no cell of model, series, concept, steer in common"):
        contrast_table(trials, SWEEP.truth, [contrast])
    with pytest.raises(UsageError, match="no trials of prompt c"):
        only(SWEEP, Contrast("none", left=[{"prompt": "c"}], right=[{"prompt": "a"}]))
    with pytest.raises(UnknownNameError, match="temper"):
        only(SWEEP, Contrast("none", left=[{"temper": "c"}], right=[{"prompt": "a"}]))


def test_categories_are_compared_by_exchanging_concepts() -> None:
    contrast = Contrast(
        "kinds", left=[{"category": "objects", "prompt": "a"}], right=[{"category": "feelings", "prompt": "a"}]
    )
    row = only(SWEEP, contrast)
    shares = by_concept(SWEEP, prompt="a").to_numpy()
    value = shares[::2].mean() - shares[1::2].mean()
    every = [
        shares[list(chosen)].mean() - np.delete(shares, chosen).mean() for chosen in itertools.combinations(range(8), 4)
    ]
    assert row["value"] == pytest.approx(value)
    assert row["p"] == pytest.approx(np.mean(np.abs(every) >= abs(value) - 1e-12))
    assert row["smallest_p"] == 2 / 70
    with pytest.raises(UsageError, match="4 groups that share no concepts"):
        only(SWEEP, Contrast("four", left=contrast.left * 2, right=contrast.right * 2))


def test_a_single_concept_is_ranked_among_all() -> None:
    category = ["alone" if c == "concept00" else "rest" for c in SWEEP.trials["concept"]]
    sweep = Sweep(SWEEP.trials.assign(category=category), SWEEP.truth)
    shares = by_concept(SWEEP, prompt="a").to_numpy()
    ranks = (shares >= shares[0]).mean(), (shares <= shares[0]).mean()
    sides = {"category": "alone", "prompt": "a"}, {"category": "rest", "prompt": "a"}
    for left, right in (sides, sides[::-1]):
        row = only(sweep, Contrast("alone", left=[left], right=[right]))
        assert row["p"] == pytest.approx(min(1.0, 2 * min(ranks)))
        assert (row["smallest_p"], row["verdict"]) == (2 / 8, "not testable")


def test_units_of_a_difference_have_names() -> None:
    table = selected(SWEEP.trials, "injected", "introspection", ["category"])
    judged = judged_trials(table, SWEEP.truth, "truth")
    paired = difference(B_LESS_A, judged)
    expected = by_concept(SWEEP, prompt="b") - by_concept(SWEEP, prompt="a")
    hits = difference(replace(B_LESS_A, measure="hits"), judged)
    np.testing.assert_allclose(hits.left, expected[list(hits.concepts)])
    kinds = Contrast("kinds", left=[{"category": "objects"}], right=[{"category": "feelings"}], match=["prompt"])
    sides = difference(kinds, judged)
    assert set(sides.concepts) == set(paired.concepts)
    assert {name: SWEEP.trials.set_index("concept")["category"][name].iloc[0] for name in sides.concepts[:4]} == (
        dict.fromkeys(sides.concepts[:4], "objects")
    )


def test_two_of_eight_concepts_cannot_be_told_from_the_rest() -> None:
    trials = SWEEP.trials.assign(
        category=["few" if c in ("concept00", "concept01") else "rest" for c in SWEEP.trials["concept"]]
    )
    contrast = Contrast("few", left=[{"category": "few", "prompt": "a"}], right=[{"category": "rest", "prompt": "a"}])
    (row,) = contrast_table(trials, SWEEP.truth, [contrast]).to_dict("records")
    assert row["smallest_p"] == pytest.approx(2 / 28)
    assert (row["verdict"], row["reason"]) == ("not testable", "the smallest p of this design is 0.071")
    assert np.isnan(row["p_holm"])


def test_a_large_difference_is_supported_and_holm_counts_all_contrasts() -> None:
    weak, strong = Population(claim=0.1, spread=0.2), Population(claim=0.8, spread=0.2)
    sweep = joined(draw(weak, prompt="a", concepts=10, seed=1), draw(strong, prompt="b", concepts=10, seed=2))
    others = [
        Contrast(f"{name}", left=[{"layers": "10", "prompt": name}], right=[{"layers": "20", "prompt": name}])
        for name in "ab"
    ]
    table = contrast_table(sweep.trials, sweep.truth, [B_LESS_A, *others]).set_index("name")
    assert table.loc["b less a", "verdict"] == "supported"
    assert table.loc["b less a", "p_holm"] == pytest.approx(3 * table.loc["b less a", "p"])
    assert set(table.loc[["a", "b"], "verdict"]) == {"not supported"}
    less = Contrast("less", left=[{"prompt": "b"}], right=[{"prompt": "a"}], expects="less")
    assert only(sweep, less)["reason"] == "the other way round: less was expected"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (Measured(0.3, 0.01, 0.001, (0.2, 0.4), (0.22, 0.38)), ("supported", "at least 0.1")),
        (Measured(0.3, 0.01, 0.001, (0.05, 0.4), (0.1, 0.38)), ("supported", "not zero; may be smaller than 0.1")),
        (
            Measured(0.02, 0.01, 0.001, (0.01, 0.03), (0.01, 0.03)),
            ("not supported", "equivalent: smaller than 0.1"),
        ),
        (
            Measured(0.3, 0.06, 0.001, (0.2, 0.4), (0.2, 0.4)),
            ("not supported", "undecided: the interval is clear of zero, but p is 0.06"),
        ),
        (Measured(0.3, 0.06, 0.001, (-0.1, 0.4), (0.0, 0.4)), ("not supported", "undecided: the interval holds zero")),
        (Measured(0.3, 0.01, 0.06, (0.2, 0.4), (0.2, 0.4)), ("not testable", "the smallest p of this design is 0.06")),
        (Measured(0.3, 0.01, 0.01, (np.nan, np.nan), (np.nan, np.nan)), ("not testable", "there is no interval")),
    ],
)
def test_verdicts(measured: Measured, expected: tuple[str, str]) -> None:
    outcome, reason = verdict(B_LESS_A, measured, 0.05)
    assert outcome == expected[0]
    assert reason.startswith(expected[1])


def test_holm_is_stepwise() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_groups_that_were_cut_off_differently_are_not_compared() -> None:
    sweep = joined(
        sweep_of({"a": "nd", "b": "dd"}, "dd", prompt="a", prompt_hash="a"),
        sweep_of({"a": "nd", "b": "dd"}, "dd", prompt="b", prompt_hash="b", stopped="length"),
    )
    with pytest.raises(UsageError, match="from 0% to 100% of replies were cut off"):
        only(sweep, B_LESS_A)
    longer = Contrast("any", left=[{"prompt": "b"}], right=[{"prompt": "a"}], any_length=True)
    assert only(sweep, longer)["value"] == 0.0
    unknown = Sweep(sweep.trials.assign(stopped=""), sweep.truth)
    assert only(unknown, B_LESS_A)["note"] == "whether replies were cut off is not recorded"


def test_a_plan_is_read_and_its_slips_are_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    entry = {"name": "b less a", "left": {"prompt": "b"}, "right": [{"prompt": "a"}], "smallest_effect": 0.2}
    path.write_text(json.dumps([entry]))
    (contrast,) = read_plan(path)
    assert contrast == Contrast("b less a", left=[{"prompt": "b"}], right=[{"prompt": "a"}], smallest_effect=0.2)
    for wrong, complaint in (
        ({**entry, "colour": 1}, "contrast 0: unknown colour"),
        ({"name": "x"}, "missing left, right"),
        ({**entry, "refusals": "maybe"}, "contrast 0: refusals='maybe'"),
        ({**entry, "measure": "accuracy"}, "measure 'accuracy'"),
        ({**entry, "right": []}, "1 groups on the left and 0 on the right"),
        ({**entry, "smallest_effect": 20}, "smallest_effect 20"),
    ):
        path.write_text(json.dumps([wrong]))
        with pytest.raises(UsageError, match=complaint):
            read_plan(path)
    path.write_text(json.dumps([entry, entry]))
    with pytest.raises(UsageError, match="two contrasts of the name 'b less a'"):
        read_plan(path)
    path.write_text("{}")
    with pytest.raises(UsageError, match="a list of contrasts"):
        read_plan(path)


def test_the_best_cell_is_measured_where_it_was_not_chosen() -> None:
    grid = np.zeros((2, 8))
    grid[0, :4], grid[1, 4:] = 1.0, 1.0
    values, chosen = split_values(grid, 200, 0)
    assert values.mean() < 0.5  # a cell is chosen for just those concepts that it does not work for
    assert chosen.sum() == pytest.approx(1.0)
    clear = np.stack([np.full(8, 0.1), np.full(8, 0.6)])
    values, chosen = split_values(clear, 5, 0)
    assert (values.tolist(), chosen.tolist()) == ([pytest.approx(0.6)] * 8, [0.0, pytest.approx(1.0)])


def test_the_best_cell_of_a_sweep_is_named() -> None:
    better = Population(offsets={("20", 0.4): 3.0})
    sweep = draw(better, concepts=8, samples=10)
    best = best_cell(sweep.trials, sweep.truth, judge="truth")
    assert best.cells[int(np.argmax(best.chosen))] == ("20", 0.4)
    assert best.low <= better.hits(("20", 0.4)) - better.clean_hits <= best.high
    with pytest.raises(UsageError, match="several models or prompts"):
        best_cell(SWEEP.trials, SWEEP.truth, judge="truth")
    with pytest.raises(UsageError, match="3 concepts"):
        best_cell(*_sweep_of(3), judge="truth")


def _sweep_of(concepts: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    sweep = draw(Population(), concepts=concepts)
    return sweep.trials, sweep.truth
