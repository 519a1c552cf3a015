"""Intervals, tests and chosen cells against sweeps whose truth is planted: a small benchmarks/trial_coverage."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import trial_coverage
from benchmarks.common import RESULTS
from mechint.trials.outcomes import CLAIMING
from mechint.trials.synthetic import Population, draw, judged

BENCHMARK = json.loads((RESULTS / "trial_coverage.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("size", ["8", "20", "50"])
def test_intervals_cover_what_they_say(size: str) -> None:
    for name in ("net", "net, corrected", "net, prediction-powered"):
        assert 92 <= BENCHMARK["coverage"][size][name] <= 98, name
    assert 92 <= BENCHMARK["contrasts"][size]["coverage"] <= 98
    assert BENCHMARK["contrasts"][size]["type I"] <= 6


def test_what_is_published_covers_less() -> None:
    assert BENCHMARK["coverage"]["8"]["net, trials as units"] < 70
    assert BENCHMARK["coverage"]["50"]["net, judge taken at its word"] < 90
    assert abs(BENCHMARK["best cell, 8 concepts"]["by splitting"]) < 1
    assert BENCHMARK["best cell, 8 concepts"]["naive"] > 5


def test_the_benchmark_measures_what_it_says() -> None:
    covered = trial_coverage.coverage_of(8, 6)
    assert min(covered["net"], covered["net, corrected"], covered["net, prediction-powered"]) >= 60
    assert covered["net, trials as units"] <= 75


def test_equal_prompts_are_seldom_called_different_and_the_best_of_equal_cells_is_not_better() -> None:
    assert trial_coverage.contrast_errors(8, 5)["type I"] <= 20
    bias = trial_coverage.best_cell_bias(6)
    assert abs(bias["by splitting"]) < 9 < bias["naive"]


def test_a_population_has_the_shares_that_it_says() -> None:
    population = Population(offsets={("10", 0.2): -1.0})
    sweep = draw(population, concepts=3000, samples=2, controls=20_000, seed=1)
    claims = sweep.truth["outcome"].isin(CLAIMING)
    for layer, strength in population.cells:
        cell = (sweep.trials["layers"] == layer) & (sweep.trials["strength"] == strength)
        assert claims[cell].mean() == pytest.approx(population.hits((layer, strength)), abs=0.03)
    clean = sweep.trials["series"] == "clean"
    assert claims[clean].mean() == pytest.approx(population.clean_hits, abs=0.006)
    assert claims[~clean].mean() - claims[clean].mean() == pytest.approx(population.net, abs=0.02)


def test_planted_judges_err_as_often_as_they_say() -> None:
    sweep = draw(Population(), concepts=100, samples=20, controls=4000)
    outcomes = judged(sweep, {"injected": 0.8, "clean": 0.6}, {"injected": 0.9, "clean": 1.0})
    truth, verdict = sweep.truth["outcome"].isin(CLAIMING), outcomes["outcome"].isin(CLAIMING)
    injected = sweep.trials["series"] == "injected"
    assert verdict[injected & truth].mean() == pytest.approx(0.8, abs=0.03)
    assert verdict[injected & ~truth].mean() == pytest.approx(0.1, abs=0.02)
    assert not verdict[~injected & ~truth].any()
    assert verdict[~injected & truth].mean() == pytest.approx(0.6, abs=0.12)


def test_replies_say_what_their_class_says() -> None:
    sweep = draw(Population(), concepts=4, samples=5, controls=20, texts=True)
    table = sweep.trials.assign(outcome=sweep.truth["outcome"])
    assert table["reply"].str.len().gt(0).all()
    for reply, concept in table.loc[table["outcome"] == "names rightly", ["reply", "concept"]].to_numpy():
        assert concept in reply
    for reply, concept in table.loc[table["outcome"] == "names wrongly", ["reply", "concept"]].to_numpy():
        assert not concept or concept not in reply


def test_a_shared_seed_makes_concepts_alike_in_two_sweeps() -> None:
    def shares(seed: int, shared: float) -> np.ndarray:
        sweep = draw(Population(), concepts=40, samples=20, seed=seed, shared_seed=9, shared=shared)
        claims = sweep.truth["outcome"].isin(CLAIMING)
        steered = sweep.trials["series"] == "injected"
        return claims[steered].groupby(sweep.trials["concept"][steered]).mean().to_numpy()

    assert np.corrcoef(shares(1, 1.0), shares(2, 1.0))[0, 1] > 0.7
    assert abs(np.corrcoef(shares(1, 0.0), shares(2, 0.0))[0, 1]) < 0.4
