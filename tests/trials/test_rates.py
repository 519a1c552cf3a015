"""Rates: both conventions of refusals and their bounds against counting by hand, and what may not be pooled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechint import stats
from mechint.base.errors import UnknownNameError, UsageError
from mechint.trials.outcomes import CLAIMING
from mechint.trials.rates import COLUMNS, matches_of_others, rate_table
from mechint.trials.synthetic import Population, Sweep, draw
from mechint.trials.verdicts import VERDICT_COLUMNS
from tests.trials.sweeps import joined, prompts, sweep_of

# oceans: 2 of 5 claim, 1 rightly, 2 refuse; glass: 1 of 5 claims, rightly. Clean: 1 of 8 claims, 2 refuse.
HAND = sweep_of({"oceans": "nwrrd", "glass": "nddli"}, "cddddrrd")


def row(sweep: Sweep, measure: str, refusals: str = "in", **kwargs: object) -> pd.Series:
    table = rate_table(sweep.trials, sweep.truth, **kwargs)  # type: ignore[arg-type]
    (only,) = [row for _, row in table[(table["measure"] == measure) & (table["refusals"] == refusals)].iterrows()]
    return only


@pytest.mark.parametrize(
    ("measure", "refusals", "expected"),
    [
        ("hits", "in", 0.3),
        ("hits", "out", 3 / 8),
        ("hits", "lowest", 0.3),
        ("hits", "highest", 0.5),
        ("false alarms", "in", 1 / 8),
        ("false alarms", "out", 1 / 6),
        ("false alarms", "highest", 3 / 8),
        ("net", "in", 0.3 - 1 / 8),
        ("net", "out", 3 / 8 - 1 / 6),
        ("net", "lowest", 0.3 - 3 / 8),
        ("net", "highest", 0.5 - 1 / 8),
        ("introspection", "in", 0.2),
        ("introspection", "out", 2 / 8),
        ("identification", "in", 2 / 3),
        ("refusal", "in", 0.2),
        ("clean refusal", "in", 2 / 8),
        ("coherence", "in", 0.9),
        ("clean coherence", "in", 1.0),
        ("leaks", "in", 0.1),
    ],
)
def test_rates_are_what_counting_gives(measure: str, refusals: str, expected: float) -> None:
    assert row(HAND, measure, refusals)["value"] == pytest.approx(expected)


def test_bounds_hold_every_convention_and_every_answer_that_a_refusal_may_hide() -> None:
    table = rate_table(HAND.trials, HAND.truth, measures=["net"]).set_index("refusals")["value"]
    for hidden, clean in ((0, 0), (2, 0), (0, 2), (2, 2), (1, 1)):
        net = ((2 + hidden) / 5 + 1 / 5) / 2 - (1 + clean) / 8
        assert table["lowest"] - 1e-12 <= net <= table["highest"] + 1e-12
    assert table["lowest"] <= min(table["in"], table["out"])


def test_the_interval_of_a_share_is_that_of_the_means_of_concepts() -> None:
    sweep = draw(Population(), concepts=9, seed=3)
    claims = sweep.truth["outcome"].isin(CLAIMING)
    steered = sweep.trials["series"] == "injected"
    by_concept = claims[steered].groupby(sweep.trials["concept"][steered]).mean().to_numpy()
    expected = stats.mean_interval(by_concept, within=stats.PROBABILITY)
    hits = row(sweep, "hits")
    assert (hits["low"], hits["high"]) == pytest.approx((float(expected.low), float(expected.high)))
    alarms = row(sweep, "false alarms")
    exact = stats.binomial_interval(int(claims[~steered].sum()), int((~steered).sum()))
    assert (alarms["low"], alarms["high"]) == pytest.approx((float(exact.low), float(exact.high)))
    assert row(sweep, "net")["value"] == pytest.approx(by_concept.mean() - claims[~steered].mean())


def test_noise_of_clean_replies_widens_the_interval_of_net_detection() -> None:
    population = Population(false_alarms=0.5)
    few = row(draw(population, concepts=20, controls=30, seed=3), "net")
    many = draw(population, concepts=20, controls=4000, seed=3)
    net, hits = row(many, "net"), row(many, "hits")
    assert few["high"] - few["low"] > 1.2 * (net["high"] - net["low"])
    assert net["high"] - net["low"] == pytest.approx(hits["high"] - hits["low"], rel=0.15)


def test_few_concepts_are_warned_of_and_one_has_no_interval() -> None:
    assert "2 concepts" in row(HAND, "net")["warning"]
    one = row(sweep_of({"oceans": "nd"}, "dd"), "net")
    assert one["value"] == 0.5
    assert np.isnan([one["low"], one["high"]]).all()
    assert "no interval" in one["warning"]
    assert row(draw(Population(), concepts=10), "net")["warning"] == ""


def test_replies_that_are_all_alike_still_have_an_interval() -> None:
    net = row(sweep_of(dict.fromkeys("abcd", "dd"), "d" * 20), "net")
    assert net["value"] == 0.0
    assert net["low"] < -0.1 < 0.5 < net["high"]


def test_clean_replies_are_one_sample_for_all_cells_of_a_model_and_prompt() -> None:
    sweep = draw(Population(), concepts=5)
    cells = rate_table(sweep.trials, sweep.truth, ["layers", "strength"], measures=["false alarms", "net"])
    alarms = cells[(cells["measure"] == "false alarms") & (cells["refusals"] == "in")]
    assert len(alarms) == 4
    assert alarms["value"].nunique() == 1
    assert alarms["n_clean"].tolist() == [400] * 4
    assert set(COLUMNS) <= set(cells.columns)


def test_pooled_models_weigh_the_same_however_many_clean_replies_they_have() -> None:
    few = sweep_of({"a": "nd", "b": "nd"}, "cd", prompt="few", prompt_hash="few")
    many = sweep_of({"a": "dd", "b": "dd"}, "d" * 30, prompt="many", prompt_hash="many")
    pooled = row(joined(few, many), "net", by=["question"])
    assert pooled["value"] == pytest.approx(0.25 - 0.25)


def test_unequal_grids_are_not_pooled() -> None:
    sweep = joined(
        sweep_of({"a": "nd", "b": "nd"}, "dd"),
        sweep_of({"a": "nd"}, "", strength=0.8),
    )
    with pytest.raises(UsageError, match=r"unequal grids\. b .* has 1 of 2 cells"):
        rate_table(sweep.trials, sweep.truth)
    assert "grids may differ" in row(sweep, "net", unmatched=True)["warning"]
    assert len(rate_table(sweep.trials, sweep.truth, ["strength"], measures=["net"])) == 8


def test_missing_verdicts_are_counted_and_many_of_them_refused() -> None:
    sweep = draw(Population(), concepts=5, samples=20)
    steered = sweep.truth[sweep.trials["series"] == "injected"]
    missing = sweep.truth.drop(index=steered.index[:6])
    hits = row(Sweep(sweep.trials, missing), "hits")
    assert (hits["n_trials"], hits["n_judged"]) == (400, 794)
    many = sweep.truth.drop(index=steered.index[::4])
    with pytest.raises(UsageError, match="truth has judged 300 of 400 replies of synthetic, plain, injected"):
        rate_table(sweep.trials, many)
    assert row(Sweep(sweep.trials, many), "hits", max_missing=1.0)["n_judged"] == 700


def test_net_detection_needs_both_arms() -> None:
    sweep = sweep_of({"a": "nd", "b": "nd"}, "")
    assert "net" not in set(rate_table(sweep.trials, sweep.truth)["measure"])
    with pytest.raises(UsageError, match="no clean replies"):
        rate_table(sweep.trials, sweep.truth, measures=["net"])
    clean = rate_table(*_parts(sweep_of({}, "cd")), measures=["false alarms"])
    assert clean["value"].tolist()[0] == 0.5
    with pytest.raises(UnknownNameError, match="accuracy"):
        rate_table(sweep.trials, sweep.truth, measures=["accuracy"])
    with pytest.raises(UnknownNameError, match="depths"):
        rate_table(sweep.trials, sweep.truth, ["depths"])
    with pytest.raises(UsageError, match="series random"):
        rate_table(sweep.trials[sweep.trials["series"] == "none"], sweep.truth, series="random")


def _parts(sweep: Sweep) -> tuple[pd.DataFrame, pd.DataFrame]:
    return sweep.trials, sweep.truth


def test_two_outcomes_of_a_trial_and_unknown_ones_are_refused() -> None:
    twice = pd.concat([HAND.truth, HAND.truth.iloc[:1]])
    with pytest.raises(UsageError, match="several outcomes of hand"):
        rate_table(HAND.trials, twice)
    with pytest.raises(UsageError, match="the outcome 'passes'"):
        rate_table(HAND.trials, HAND.truth.assign(outcome="passes"))


def test_several_judges_and_passes_stand_apart() -> None:
    other = HAND.truth.assign(judge="other", outcome="denies")
    later = HAND.truth.assign(pass_no=1, outcome="refuses")
    table = rate_table(HAND.trials, pd.concat([HAND.truth, later, other]), measures=["hits"])
    hits = table[table["refusals"] == "in"].set_index("judge")["value"]
    assert hits.to_dict() == {"hand": pytest.approx(0.3), "other": 0.0}


def test_chance_of_identification_is_that_of_the_other_concepts() -> None:
    sweep = sweep_of({"oceans": "nn", "glass": "nw", "trees": "dd"}, "dd")
    named = ["the sea and glass", "sea", "glass", "trees", None, None, None, None]
    verdicts = pd.DataFrame(
        {"claims": "yes", "named": named, "id": sweep.trials["id"], "judge": "hand", "pass_no": 0, "error": ""}
    ).reindex(columns=list(VERDICT_COLUMNS))
    foils = matches_of_others(sweep.trials, verdicts, {"oceans": ("sea",)})
    assert foils["foils"].tolist() == [0.5, 0.0, 0.0, 0.5, 0.0, 0.0]
    assert row(sweep, "chance", foils=foils)["value"] == pytest.approx(1 / 4)
    assert row(sweep, "identification above chance", foils=foils)["value"] == pytest.approx(3 / 4 - 1 / 4)
    with pytest.raises(UsageError, match="without foils"):
        rate_table(sweep.trials, sweep.truth, measures=["chance"])


def test_rows_in_another_order_give_the_same_rates() -> None:
    sweep = prompts(concepts=4, samples=5, controls=50)
    shuffled = rate_table(sweep.trials.sample(frac=1, random_state=0), sweep.truth.sample(frac=1, random_state=1))
    keys = ["prompt", "measure", "refusals"]
    first = rate_table(sweep.trials, sweep.truth).set_index(keys)[["value", "low", "high"]]
    pd.testing.assert_frame_equal(first, shuffled.set_index(keys)[["value", "low", "high"]].loc[first.index])


def test_the_order_of_concepts_in_the_table_changes_no_interval() -> None:
    """Clean replies are dealt to concepts, so these have an order of their own."""
    steered = {"oceans": "nwcdd", "glass": "nddli", "iron": "ccccd", "rain": "ddddd", "wool": "cdddd"}
    sweep = sweep_of(steered, "cddcdddddc")
    turned = Sweep(sweep.trials[::-1].reset_index(drop=True), sweep.truth)
    straight, other = row(sweep, "net"), row(turned, "net")
    assert straight[["low", "high"]].tolist() == pytest.approx(other[["low", "high"]].tolist())
