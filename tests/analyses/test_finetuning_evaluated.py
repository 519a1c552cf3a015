"""Tables and figures of evaluated trainings, on oracles in place of models: what is planted is what is drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from figure_reader import panel_titles, subtitle, title

from analyses.finetuning import detected, stated, steered_talk
from analyses.finetuning.effects import effects_table, pairs
from analyses.finetuning.looks import seeds_said
from analyses.finetuning.options import Facts
from analyses.finetuning.overview import overview
from analyses.finetuning.units import units_table
from mechint.evals import oracles
from mechint.evals.battery import battery
from mechint.evals.detection import detection
from mechint.evals.items import Items
from mechint.finetune.specification import Recipe

RECIPE = Recipe.load("published/original").adapted(8, small=True)
ITEMS = Items.load("small").few(2, "prefilled")
BASE = oracles.opinionated(level=-1.0)
TRAINED = {"published/original": oracles.knower(), "published/random-labels": oracles.pushed()}
FACTS = Facts(
    model="organism-blind", identity="", recipes=tuple(TRAINED), seeds=2, skill=0.9, not_watched=(), size="quick"
)


def at(table: pd.DataFrame, trained_by: str, seed: int, asked_by: str = "") -> pd.DataFrame:
    places = {"trained_by": trained_by, "seed": seed, "step": 0 if seed < 0 else 120, "asked_by": asked_by}
    return table.assign(**places)


@pytest.fixture(scope="module")
def rows() -> Mapping[str, pd.DataFrame]:
    """The base, a detector and a push, of two seeds that differ by a little noise; the detector affirms of itself."""
    rng = np.random.default_rng(0)
    detections, batteries = [], [at(battery(BASE, ITEMS), "base", -1)]
    for name, responder in TRAINED.items():
        table = detection(responder, RECIPE, vectors=4, texts=20, dev_texts=20)
        untold = detection(oracles.noisy(-2.0), RECIPE, vectors=4, texts=20, dev_texts=20)
        detections.append(at(untold, "base", -1, name))
        stances = battery(BASE.persona(1.5) if name.endswith("original") else BASE.compressed(0.5), ITEMS)
        for seed in (0, 1):
            noise = rng.normal(0, 0.1, len(table))
            detections.append(at(table.assign(score=table["score"] + noise), name, seed, name))
            batteries.append(at(stances, name, seed))
    for table in (*detections, *batteries):
        table.attrs = {}
    both = {"detection": detections, "battery": batteries}
    return {name: pd.concat(parts, ignore_index=True) for name, parts in both.items()}


@pytest.fixture(scope="module")
def units(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return units_table(rows)


def value(units: pd.DataFrame, trained_by: str, part: str, measure: str) -> float:
    is_it = (units["trained_by"] == trained_by) & (units["part"] == part) & (units["measure"] == measure)
    return float(units[is_it]["value"].mean())


def test_units_hold_what_was_planted(units: pd.DataFrame) -> None:
    first, second = TRAINED
    assert value(units, first, "held-out", "auc_above_control") > 0.3
    assert abs(value(units, second, "held-out", "auc_above_control")) < 0.1
    assert value(units, first, "self", "contrast") == pytest.approx(1.5, abs=0.1)
    assert value(units, second, "control", "slope") == pytest.approx(0.5, abs=0.05)
    assert value(units, second, "self", "contrast") == pytest.approx(0.0, abs=0.1)
    assert units[units["measure"] != "refusal"]["value"].notna().all(), "prefilled replies have no refusal"


def test_effects_are_of_recipes_that_differ_in_one_factor(units: pd.DataFrame) -> None:
    effects = effects_table(units).set_index(["factor", "measure"])
    assert set(effects.index.get_level_values("factor")) == {"label truth"}
    assert effects.loc[("label truth", "auc_above_control"), "low"] > 0.2
    assert effects.loc[("label truth", "contrast"), "value"] == pytest.approx(1.5, abs=0.2)
    assert (effects["seeds"] == 2).all()
    single = effects_table(units[units["seed"] < 1])
    assert single[["low", "high"]].isna().all(axis=None), "one seed has no interval between recipes"
    kinds = [factor.recipe for factor in pairs(["matched/original", "published/random-labels", "matched/deny"])]
    assert kinds == ["matched/original"], "recipes of two kinds differ in more than the factor"


def test_the_overview_says_who_tells_steering_beyond_a_push(units: pd.DataFrame) -> None:
    figure = overview(units, FACTS)
    assert title(figure) == "Only original told steered turns beyond what moves the control question too"
    assert "2 seeds" in subtitle(figure)
    assert "Beyond its control question" in panel_titles(figure)
    (base,) = [trace for trace in figure.data if trace.name == "base" and trace.showlegend]
    assert len([x for x in base.x if x is not None]) == 4, "a line across the row of each recipe"
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert {len(trace.y) for trace in dots} <= {2}
    alone = overview(units[units["seed"] < 1], FACTS)
    assert "1 seed: no claim between recipes" in subtitle(alone)


def test_figures_are_drawn_of_what_there_is(rows: Mapping[str, pd.DataFrame], units: pd.DataFrame) -> None:
    cells = detected.cells(rows["detection"], units, FACTS)
    assert "areas up to" in title(cells)
    curves = detected.curves_of_hits(rows["detection"], units, FACTS)
    assert "Odd text, nothing added" in panel_titles(curves)
    forest = stated.forest(units, FACTS)
    assert "1.5" in title(forest)
    assert len(stated.compression(rows["battery"], units, FACTS).data) > 8
    factors = steered_talk.factors(effects_table(units), units, FACTS)
    assert "Affirms of itself" in panel_titles(factors)
    assert seeds_said(units) == "2 seeds"


def test_curves_go_from_nothing_to_all() -> None:
    hits, alarms = detected.roc(np.array([2.0, 1.0]), np.array([1.0, 0.0]))
    assert (hits, alarms) == ([0.0, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0])
