"""Exact tests against brute force, and means over units."""

import itertools

import numpy as np
import pandas as pd
import pytest

from mechint import stats
from mechint.base.errors import UsageError


def test_sign_flip_is_exact() -> None:
    values = np.array([0.3, 1.2, -0.4, 0.9, 0.8, 0.1, 0.5])
    flips = np.array(list(itertools.product([-1, 1], repeat=values.size)))
    exact = np.mean(np.abs((flips * values).mean(axis=1)) >= abs(values.mean()) - 1e-12)
    assert stats.sign_flip_test(values) == pytest.approx(exact)
    assert stats.sign_flip_test(np.ones(5)) == pytest.approx(2 / 2**5)
    assert stats.sign_flip_test(np.ones(5), alternative="greater") == pytest.approx(1 / 2**5)
    assert stats.sign_flip_test(np.array([1.0, -1.0])) == 1.0


def _table() -> pd.DataFrame:
    rows = [
        {"concept": concept, "layer": layer, "prompt": prompt, "p_yes": value + layer + 10 * prompt}
        for concept, value in (("cats", 0.0), ("bread", 1.0), ("rain", 5.0))
        for layer in (3, 1)
        for prompt in range(2)
    ]
    return pd.DataFrame(rows)


def test_group_means_average_within_the_unit_first_and_keep_the_order() -> None:
    uneven = pd.concat([_table(), _table().query("concept == 'rain'").assign(p_yes=100.0)])
    tidy = stats.group_means(uneven, ["layer"], "p_yes")
    assert tidy.columns.tolist() == ["layer", "mean", "low", "high", "n"]
    assert tidy["layer"].tolist() == [3, 1]
    assert tidy["n"].tolist() == [3, 3]
    rain = np.mean([8.0, 18.0, 100.0, 100.0])
    assert tidy["mean"].iloc[0] == pytest.approx(np.mean([8.0, 9.0, rain]))


def test_group_means_count_only_the_units_of_each_group() -> None:
    table = _table()
    table = table[(table["concept"] != "rain") | (table["layer"] == 1)]
    tidy = stats.group_means(table, ["layer"], "p_yes").set_index("layer")
    assert tidy.loc[3, "n"] == 2
    assert tidy.loc[1, "n"] == 3
    assert tidy.loc[3, "mean"] == pytest.approx(np.mean([8.0, 9.0]))


def test_group_means_never_hide_a_missing_value() -> None:
    table = _table()
    table.loc[(table["layer"] == 3) & (table["concept"] == "cats") & (table["prompt"] == 0), "p_yes"] = np.nan
    tidy = stats.group_means(table, ["layer"], "p_yes").set_index("layer")
    assert np.isnan(tidy.loc[3, "mean"])
    assert np.isfinite(tidy.loc[1, "mean"])
    assert tidy.loc[3, "n"] == 3


def test_group_means_keep_within_bounds_which_may_differ_by_measure() -> None:
    table = pd.DataFrame(
        {
            "panel": ["p"] * 6 + ["shift"] * 6,
            "concept": list("abcdef") * 2,
            "value": [0.0, 0.01, 0.0, 0.02, 0.9, 0.0] * 2,
        }
    )
    free = stats.group_means(table, ["panel"], "value").set_index("panel")
    tidy = stats.group_means(table, ["panel"], "value", within={"p": (0.0, 1.0)}).set_index("panel")
    assert free.low["p"] < 0
    assert tidy.low["p"] == 0
    assert tidy.loc["shift"].equals(free.loc["shift"])
    assert stats.group_means(table, ["panel"], "value", within=(0.0, 1.0)).low.tolist() == [0, 0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.sign_flip_test(np.ones(0)),
        lambda: stats.group_means(_table(), ["layr"], "p_yes"),
    ],
)
def test_bad_arguments_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        call()
