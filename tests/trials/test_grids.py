"""Cells of a sweep: shares of a naive count, planted effects marked and others not, chance beside right names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechint.base.errors import UsageError
from mechint.trials.grids import grid_table
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.outcomes import CLAIMING
from mechint.trials.synthetic import Population, Sweep, draw
from mechint.trials.verdicts import Item, verdict_table

STRONG = ("20", 0.4)


def verdicts_of(sweep: Sweep) -> pd.DataFrame:
    """Verdicts that name what the written replies name, under the judge of the truth."""
    items = [Item(key, "", reply) for key, reply in zip(sweep.trials["id"], sweep.trials["reply"], strict=True)]
    table = verdict_table(RulesJudge(), items, RulesJudge().judge(items))
    named = sweep.trials["reply"].str.extract(r"(concept\d\d|\bit\b)", expand=False)
    return table.assign(judge="truth", named=named.to_numpy(dtype=object))


def planted(**changed: float) -> Sweep:
    """A sweep in which one cell of four has claims."""
    offsets = {cell: 0.0 if cell == STRONG else -4.0 for cell in Population().cells}
    population = Population(claim=0.6, offsets=offsets, false_alarms=0.02, refusals=0.0, clean_refusals=0.0, **changed)
    return draw(population, concepts=12, samples=8, controls=200, seed=4, texts=True)


SWEEP = planted()
TABLE = grid_table(SWEEP.trials, verdicts_of(SWEEP), SWEEP.truth, {}, judge="truth")


def of(measure: str, table: pd.DataFrame = TABLE) -> pd.DataFrame:
    return table[table["measure"] == measure].set_index(["layers", "strength"])


def test_values_are_those_of_a_naive_count() -> None:
    joined = SWEEP.trials.merge(SWEEP.truth, on="id")
    clean = joined[joined["series"] == "clean"]
    for (layers, strength), cell in joined[joined["series"] == "injected"].groupby(["layers", "strength"]):
        row = of("claims").loc[layers, strength]
        assert row["value"] == pytest.approx(cell["outcome"].isin(CLAIMING).mean())
        assert row["clean"] == pytest.approx(clean["outcome"].isin(CLAIMING).mean())
        assert row["difference"] == pytest.approx(row["value"] - row["clean"])
        assert row[["n_concepts", "n_trials"]].tolist() == [12, 96]
        rightly = of("names rightly").loc[layers, strength]
        assert rightly["value"] == pytest.approx((cell["outcome"] == "names rightly").mean())


@pytest.mark.parametrize("measure", ["claims", "names rightly"])
def test_the_planted_cell_is_marked_and_no_other(measure: str) -> None:
    rows = of(measure)
    assert rows.loc[STRONG, "low"] > 0
    others = rows.drop([STRONG])
    assert (others["low"] <= 0).all()
    assert (others["high"] >= 0).all()


def test_broken_replies_show_as_a_fall_of_coherence() -> None:
    sweep = planted(incoherent=0.5)
    rows = of("coherence", grid_table(sweep.trials, verdicts_of(sweep), sweep.truth, {}, judge="truth"))
    assert (rows["high"] < 0).all()
    assert (rows["clean"] == 1).all()


def test_random_vectors_name_by_chance() -> None:
    """The same replies, called random: what is named is a given concept in one of so many cases."""
    trials = SWEEP.trials
    steered = trials[trials["series"] == "injected"]
    randoms = steered.assign(series="random", id="r" + steered["id"], concept="random-" + steered["concept"])
    verdicts, truth = verdicts_of(SWEEP), SWEEP.truth
    both = [
        pd.concat([table, table[table["id"].isin(steered["id"])].assign(id=lambda rows: "r" + rows["id"])])
        for table in (verdicts, truth)
    ]
    table = grid_table(pd.concat([trials, randoms], ignore_index=True), *both, {}, judge="truth")
    naming = table[(table["measure"] == "names rightly") & (table["series"] == "random")]
    claims = table[(table["measure"] == "claims") & (table["series"] == "random")].set_index(["layers", "strength"])
    assert (naming["value"] <= 1 / 12).all()
    assert naming["value"].max() > 0
    pd.testing.assert_series_equal(claims["value"], of("claims")["value"])


def test_one_concept_with_an_effect_marks_nothing() -> None:
    """Flips of one sign have p = 1, whatever the size of the effect."""
    sweep = planted()
    is_named = sweep.trials["concept"] == "concept03"
    truth = sweep.truth.assign(outcome=np.where(is_named, "names rightly", "denies"))
    verdicts = verdicts_of(sweep).assign(named=np.where(is_named, "concept03", None))
    rows = of("names rightly", grid_table(sweep.trials, verdicts, truth, {}, judge="truth"))
    assert rows["value"].max() > 0
    assert (rows["low"] <= 0).all()


def test_rare_answers_of_clean_replies_mark_nothing() -> None:
    """One clean refusal and none under any vector: all cells differ from it by the same noise."""
    clean = SWEEP.trials["series"] == "clean"
    outcome = np.where(clean & (clean.cumsum() == 1), "refuses", "denies")
    table = grid_table(SWEEP.trials, verdicts_of(SWEEP), SWEEP.truth.assign(outcome=outcome), {}, judge="truth")
    assert (of("refusal", table)["difference"] < 0).all()
    assert (of("refusal", table)["high"] >= 0).all()


def test_few_concepts_have_no_bands_and_several_models_no_grid() -> None:
    few = draw(Population(), concepts=4, samples=2, controls=20, texts=True)
    assert grid_table(few.trials, verdicts_of(few), few.truth, {}, judge="truth")["low"].isna().all()
    other = few.trials.assign(model="another", id="x" + few.trials["id"])
    with pytest.raises(UsageError, match="several models"):
        grid_table(pd.concat([few.trials, other]), verdicts_of(few), few.truth, {}, judge="truth")
