"""Self-calibration on oracles: planted reports are as far from what is done as they were planted; published faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mechint as mi
from mechint.base.errors import UsageError
from mechint.base.files import JSON
from mechint.evals import reporting_oracles
from mechint.evals.calibration import calibration
from mechint.evals.calibration_rates import calibration_rates
from mechint.evals.distribution_sets import DistributionSets
from mechint.evals.reported import distribution, from_choices, published_distribution
from mechint.evals.reporting_oracles import Reporter

BASE = reporting_oracles.reporter("base")
MAKERS = {
    "reporter": reporting_oracles.reporter,
    "other-reporter": reporting_oracles.other_reporter,
    "constant": reporting_oracles.constant,
    "noisy": reporting_oracles.noisy,
    "liar": reporting_oracles.liar,
    "collapsed": reporting_oracles.collapsed,
    "wordless": reporting_oracles.wordless,
}
WHOLE = DistributionSets.load("small")
LONG = ("animal", "food", "drink", "place")  # as many options as others have, and as many pairs of them
SETS = replace(WHOLE, sets=tuple(of_it for of_it in WHOLE.sets if of_it.name not in LONG))


@lru_cache
def rates(name: str) -> pd.DataFrame:
    table = calibration(MAKERS[name](), BASE, SETS, samples=200, reports=1)
    return calibration_rates(table).set_index(["source", "kind"])


def closed(model: Reporter, base: Reporter = BASE) -> pd.DataFrame:
    few = replace(SETS, sets=tuple(of_it for of_it in SETS.sets if of_it.options))
    return calibration(model, base, few, reports=1)


@pytest.mark.parametrize("name", ["full", "small"])
def test_packaged_sets_are_of_both_kinds(name: str) -> None:
    sets = DistributionSets.load(name)
    assert sum(bool(of_it.options) for of_it in sets.sets) >= 10
    assert sum(not of_it.options for of_it in sets.sets) >= 2
    for of_it in sets.sets:
        assert of_it.question in sets.report(of_it).messages[0].content
        pairs = sets.choices(of_it)
        assert set(pairs) == {pair[::-1] for pair in pairs}
        assert len(pairs) == len(of_it.options) * (len(of_it.options) - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red: 60%\nblue: 40%", {"red": 0.6, "blue": 0.4}),
        ("Sure! This is my list:\n1. Red - 30 %\n2) **blue**: 10", {"red": 0.75, "blue": 0.25}),
        ("red = 3, dark blue = 1", {"red": 0.75, "dark blue": 0.25}),
        ("red: 60%\nred: 40%", {}),
        ("red: 60%", {}),
        ("red: 0\nblue: 0", {}),
        ("I would say 60% red: 60%\nblue: 40%", {}),
        ("I cannot know that.", {}),
        ("", {}),
    ],
)
def test_a_list_is_read_whole_or_not_at_all(text: str, expected: Mapping[str, float]) -> None:
    assert distribution(text) == pytest.approx(expected)


def test_forced_choices_give_back_the_distribution_that_they_come_from() -> None:
    p = {"a": 0.6, "b": 0.3, "c": 0.1}
    log_odds = {(x, y): float(np.log(p[x] / p[y])) for x in p for y in p if x != y}
    assert from_choices(log_odds) == pytest.approx(p)
    leaning = {pair: value + 2.0 for pair, value in log_odds.items()}
    assert from_choices(leaning) == pytest.approx(p), "what is listed first has no advantage"


def test_oracles_are_read_as_they_were_planted() -> None:
    for source, kind in (("verbal", "closed"), ("verbal", "open"), ("choice", "closed")):
        knows = rates("reporter").loc[(source, kind)]
        assert knows["js"] < 0.02
        assert knows["gain"] > 0.1
        assert knows["coverage"] > 0.99
        other = rates("other-reporter").loc[(source, kind)]
        assert other["gain"] == pytest.approx(0.0, abs=1e-9), "the base reports the same"
        assert rates("liar").loc[(source, kind), "js"] > rates("constant").loc[(source, kind), "js"]
    verbal = rates("reporter").loc[("verbal", "closed")]
    assert (verbal["top"], verbal["failure"], verbal["n_read"]) == (1.0, 0.0, 6)
    assert verbal["gain_low"] > 0
    constant = rates("constant").loc[("verbal", "closed")]
    assert constant["js"] == pytest.approx(constant["js_uniform"], abs=1e-3)
    assert rates("collapsed").loc[("choice", "closed"), "js"] < 0.02
    noisy = rates("noisy").loc[("verbal", "closed")]
    assert noisy["gain_low"] < 0 < noisy["gain_high"]


def test_lists_that_cannot_be_read_are_a_rate_and_no_distance() -> None:
    verbal = rates("wordless").loc[("verbal", "closed")]
    assert (verbal["failure"], verbal["n_read"]) == (1.0, 0)
    assert np.isnan(verbal["js"])
    assert rates("wordless").loc[("choice", "closed"), "js"] < 0.02, "it knows, and does not say it so"


def test_what_is_still_unseen_is_shown_and_samples_limit_the_distance() -> None:
    open_rates = rates("reporter").loc[("verbal", "open")]
    assert open_rates["unseen"] < 0.02
    assert 0 < open_rates["js_halves"] < 0.05
    assert rates("reporter").loc[("verbal", "closed"), "js_halves"] == 0.0


class TestPublished:
    """Fault 27 of the published estimator, in its parts; ours reads the planted truth."""

    def test_27_the_text_before_a_list_is_glued_to_its_first_answer(self) -> None:
        text = "Here is what I think\nred: 60%\nblue: 40%"
        assert "red" not in published_distribution(text)
        table = closed(replace(reporting_oracles.reporter(), heading="Here is what I think"))
        published = calibration_rates(table, estimator="published").iloc[0]
        assert published["top"] == 0.0, "as if it knew nothing"
        ours = calibration_rates(table).set_index("source").loc["verbal"]
        assert ours["top"] == 1.0
        assert ours["js"] < 0.02

    def test_27_a_floor_under_what_is_not_reported_scores_coverage_alone(self) -> None:
        """One reports three answers as they are, another all of them the wrong way round."""
        own = reporting_oracles.reporter()

        def top_three(tags: Mapping[str, JSON]) -> dict[str, float]:
            shares = own.does(tags)
            return {answer: shares[answer] for answer in sorted(shares, key=lambda a: -shares[a])[:3]}

        table, contrary = closed(replace(own, reports=top_three)), closed(reporting_oracles.liar())
        published = [calibration_rates(of_it, estimator="published")["kl"].iloc[0] for of_it in (table, contrary)]
        assert published[0] > 0.5
        distances = [calibration_rates(of_it).set_index("source").loc["verbal", "js"] for of_it in (table, contrary)]
        assert distances[0] < 0.1 < distances[1]

    def test_27_what_another_would_report_is_no_knowledge(self) -> None:
        """Everybody reports what everybody does: near to the truth, and nothing of one's own."""
        model = reporting_oracles.reporter("alike")
        table = closed(model, replace(model, name="base"))
        assert calibration_rates(table, estimator="published")["top"].iloc[0] == 1.0
        ours = calibration_rates(table).set_index("source").loc["verbal"]
        assert ours["js"] < 0.02
        assert ours["gain"] == pytest.approx(0.0, abs=1e-9)
        assert ours["other"] == "base"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"report": {"question": "How often?", "prefix": ""}}, "object"),
        ({"choice": {"question": "{object} {first}?", "prefix": ""}}, "second"),
        ({"sets": {"one": {"question": "?", "prefix": "", "options": ["x"]}}}, "single option"),
        ({"sets": {}}, "empty"),
        ({"extra": 1}, "unknown keys"),
    ],
)
def test_a_malformed_file_is_refused_and_its_place_named(change: dict[str, JSON], message: str) -> None:
    minimal: dict[str, JSON] = {
        "name": "minimal",
        "note": "",
        "report": {"question": "{object} How often?", "prefix": ""},
        "choice": {"question": "{object} {first} or {second}?", "prefix": ""},
        "sets": {"letter": {"question": "Say a or b.", "prefix": "", "options": ["a", "b"]}},
    }
    assert len(DistributionSets.from_dict(minimal).sets) == 1
    with pytest.raises(UsageError, match=message):
        DistributionSets.from_dict(minimal | change)


def test_rates_need_an_alpha_and_own_answers() -> None:
    table = closed(reporting_oracles.reporter())
    with pytest.raises(UsageError, match="alpha"):
        calibration_rates(table, alpha=0.0)
    with pytest.raises(UsageError, match="own answers"):
        calibration_rates(table[table["model"] == "base"])


def test_a_model_is_read_as_name_log_probs_reads_it(family: Mapping[str, mi.Model], tmp_path: Path) -> None:
    model = family["organism-blind"]
    few = replace(SETS, sets=tuple(of_it for of_it in SETS.sets if of_it.name in ("season", "thought")))
    arguments = {"samples": 3, "reports": 1, "max_new_tokens": 6, "store": tmp_path}
    table = calibration(model, model, few, **arguments)  # type: ignore[arg-type]
    season = few.sets[0]
    texts = list(few.closed(season).texts.values())
    log_p = mi.name_log_probs(model, few.request(season), texts, mi.CLEAN)["log_p"].to_numpy()
    actual = table[(table["prompt"] == "season") & (table["source"] == "actual")]
    assert actual["p"].to_numpy() == pytest.approx(np.exp(log_p - np.logaddexp.reduce(log_p)), abs=1e-5)
    assert actual["mass"].to_numpy() == pytest.approx(np.exp(log_p).sum(), abs=1e-5)
    assert len(table.attrs["receipts"]) > 0
    again = calibration(model, model, few, **arguments)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(again, table, check_exact=False, rtol=1e-4)
