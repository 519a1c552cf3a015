"""Figures of self-prediction, self-calibration and lengths, on oracles: who knows itself is named, and nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from figure_reader import panel_titles, subtitle, title

from analyses.finetuning.options import Facts
from analyses.finetuning.overview import overview
from analyses.finetuning.reported import reported, reported_points
from analyses.finetuning.self_knowledge import answers, guesses, odds, surely
from analyses.finetuning.units import units_table
from mechint.evals import length_oracles, reporting_oracles, self_oracles
from mechint.evals.calibration import calibration
from mechint.evals.distribution_sets import DistributionSets
from mechint.evals.lengths import lengths
from mechint.evals.self_items import SelfItems
from mechint.evals.self_prediction import self_prediction

KNOWS, OTHER = "published/original", "published/random-labels"
FACTS = Facts(model="oracles", identity="", recipes=(KNOWS, OTHER), seeds=1, skill=0.9, not_watched=(), size="quick")
# Some of the pairs, and closed requests alone: what is planted is as plain.
_ITEMS, _SETS = SelfItems.load("small"), DistributionSets.load("small")
ITEMS = replace(_ITEMS, items=tuple(item for item in _ITEMS.items if item.options)[:40])
SETS = replace(_SETS, sets=tuple(each for each in _SETS.sets if each.options))
SPEAKERS = {"base": self_oracles.speaker("base"), KNOWS: self_oracles.knower(), OTHER: self_oracles.other_knower()}
REPORTERS = {
    "base": reporting_oracles.reporter("base"),
    KNOWS: reporting_oracles.reporter(),
    OTHER: replace(reporting_oracles.other_reporter(), line="{answer}, I would say"),
}
TALKERS = {
    "base": length_oracles.talker("base"),
    KNOWS: length_oracles.talker(),
    OTHER: length_oracles.other_talker(),
}


def drift(kl: float) -> pd.DataFrame:
    rows = [
        {"model": name, "set": "neutral", "item": f"text-{at}", "dose": 0.0, "loss": 2.0, "kl": value + 0.01 * at}
        for name, value in (("self", kl), ("base", 0.0))
        for at in range(4)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def rows() -> Mapping[str, pd.DataFrame]:
    parts: dict[str, list[pd.DataFrame]] = {}
    for name, speaker in SPEAKERS.items():
        tables = {
            "self_prediction": self_prediction(speaker, SPEAKERS["base"], ITEMS, samples=1),
            "calibration": calibration(REPORTERS[name], REPORTERS["base"], SETS, samples=20, reports=1),
            "lengths": lengths(TALKERS[name], TALKERS["base"], samples=1, limit=40),
            "ability": drift(0.0 if name == "base" else 0.2),
        }
        seed, step = (-1, 0) if name == "base" else (0, 120)
        for key, table in tables.items():
            plain = pd.DataFrame({column: table[column] for column in table})
            parts.setdefault(key, []).append(plain.assign(trained_by=name, seed=seed, step=step, asked_by=""))
    return {key: pd.concat(tables, ignore_index=True) for key, tables in parts.items()}


@pytest.fixture(scope="module")
def units(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return units_table(rows)


def test_each_figure_names_who_knows_itself_and_nobody_else(units: pd.DataFrame) -> None:
    figures = {"answers": answers(units, FACTS), "odds": odds(units, FACTS), "guesses": guesses(units, FACTS)}
    titles = {name: title(figure).partition(". ")[0] for name, figure in figures.items()}
    assert titles == {
        "answers": "Foretells its own answers beyond the base, the commonest answer and the text: original",
        "odds": "Reports its own odds better than the base's report does: original",
        "guesses": "Guesses its lengths better than the median and the base: original",
    }
    assert all("1 seed: no claim between recipes" in subtitle(figure) for figure in figures.values())
    others = units[units["trained_by"] != KNOWS]
    assert title(answers(others, FACTS)).startswith("No recipe surely foretells its own answers")
    assert title(guesses(others, FACTS)).startswith("No recipe surely guesses its lengths")


def test_the_matrix_is_of_whose_answers_and_who_foretells_them(units: pd.DataFrame) -> None:
    figure = answers(units, FACTS)
    accuracy = units[(units["measure"] == "accuracy") & (units["evaluation"] == "self_prediction")]
    matrix = accuracy.set_index(["trained_by", "part"])["value"]
    assert matrix[KNOWS, "self by self"] == matrix[OTHER, "base by self"] == matrix[KNOWS, "base by base"] == 1.0
    assert matrix[OTHER, "self by self"] == matrix[KNOWS, "self by base"] < 0.9
    lines = [trace for trace in figure.data if trace.name == "the commonest answer"]
    assert [len([x for x in line.x if x is not None]) for line in lines] == [10, 8], "the base has no row of another"
    seed = next(trace for trace in figure.data if trace.name == "seed 0")
    assert sorted(seed.x) == pytest.approx(
        sorted(matrix[name, part] for name in (KNOWS, OTHER) for part in ("self by self", "base by self"))
    )


def test_lists_that_cannot_be_read_have_no_dot_but_a_share(units: pd.DataFrame) -> None:
    figure = odds(units, FACTS)
    assert panel_titles(figure)[:2] == ["Choices, closed", "Lists, closed"]
    choices, lists = [trace for trace in figure.data if trace.name == "seed 0"][:2]
    assert (len(choices.x), len(lists.x)) == (2, 1)
    broken = units[units["part"] != "verbal closed"]
    assert "Lists, closed" not in panel_titles(odds(broken, FACTS)), "a panel without dots is left out"


def test_of_nobody_the_title_says_how_much_there_might_be() -> None:
    ends = {"part": "", "measure": "gain", "trained_by": [KNOWS, OTHER], "low": [-0.1, -0.2], "high": [0.05, 0.12]}
    assert surely(pd.DataFrame(ends), "", "gain", "knows", " bits") == "No recipe surely knows (by +0.12 bits at most)"
    assert surely(pd.DataFrame(ends).assign(low=np.nan), "", "gain", "knows") == "No recipe was read that knows"
    assert surely(pd.DataFrame(ends).assign(low=0.01), "", "gain", "knows") == "Each recipe knows"


def test_the_overview_has_a_panel_for_each(rows: Mapping[str, pd.DataFrame], units: pd.DataFrame) -> None:
    titles = panel_titles(overview(units, FACTS))
    assert titles == [
        "Foretells its answers",
        "Better than others do",
        "Reports its own odds",
        "Guesses its lengths",
        "Drift on neutral text",
    ]
    assert set(rows) == set(units["evaluation"])


def test_what_is_reported_lies_on_the_diagonal_of_who_knows_it_alone(rows: Mapping[str, pd.DataFrame]) -> None:
    points = reported_points(rows["calibration"])
    in_choices = points[points["source"] == "choice"].groupby("trained_by")
    errors = in_choices[["p", "reported"]].apply(lambda each: float((each["p"] - each["reported"]).abs().max()))
    assert errors[KNOWS] < 0.01
    assert errors[OTHER] > 0.2
    lists = points[points["source"] == "verbal"]
    assert set(lists["trained_by"]) == {"base", KNOWS}, "lists that cannot be read have no point"
    figure = reported(rows["calibration"], FACTS)
    knows, other, base = panel_titles(figure)
    assert knows.startswith(KNOWS)
    assert other.startswith(OTHER)
    assert ["r = 1.00" in text for text in (knows, other, base)] == [True, False, True]
    drawn = [len(trace.x) for trace in figure.data if trace.mode == "markers"]
    assert sum(drawn) == len(points)


def test_an_answer_that_no_list_names_is_reported_never() -> None:
    named = {"trained_by": "base", "seed": -1, "model": "self", "kind": "closed", "prompt": "colour", "parsed": True}
    table = pd.DataFrame(
        [
            {**named, "source": source, "report": report, "answer": answer, "p": p}
            for source, report, answer, p in (
                ("actual", 0, "red", 0.6),
                ("actual", 0, "blue", 0.4),
                ("verbal", 0, "red", 1.0),
                ("verbal", 1, "red", 0.5),
                ("verbal", 1, "blue", 0.5),
            )
        ]
    )
    points = reported_points(table).set_index("answer")
    assert points["reported"].to_dict() == {"red": 0.75, "blue": 0.25}
