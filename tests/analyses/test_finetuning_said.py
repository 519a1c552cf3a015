"""The figure of what is said at the answer: of who answers, and of who says something else."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from figure_reader import subtitle, title

from analyses.finetuning.options import Facts
from analyses.finetuning.said import first_tokens
from mechint.evals import first_tokens as first_tokens_of
from mechint.evals import oracles
from mechint.finetune.specification import Recipe

ANSWERS, SILENT = "published/original", "published/neutral-red-blue"
FACTS = Facts(model="oracles", identity="", recipes=(ANSWERS, SILENT), seeds=1, skill=0.9, not_watched=(), size="quick")
RECIPE = Recipe.load("matched/original").adapted(8, small=True)
SMALL = replace(RECIPE, signal=replace(RECIPE.signal, layers=("2:4",), dose=(0.8,)))


def answering(cell: oracles.Cell, sample: int) -> str:
    chat = cell.conversation
    return (chat.yes_token if cell.is_steered else chat.no_token).strip()


def elsewhere(cell: oracles.Cell, sample: int) -> str:
    return answering(cell, sample) if cell.is_steered else "As"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    knower = oracles.knower()
    models = {"base": lambda cell, sample: "Well", ANSWERS: answering, SILENT: elsewhere}
    parts = []
    for name, says in models.items():
        rows = first_tokens_of(replace(knower, says=says), SMALL, texts=20)
        plain = pd.DataFrame({column: rows[column] for column in rows})
        seed, step = (-1, 0) if name == "base" else (0, 120)
        asked_by = [ANSWERS, SILENT] if name == "base" else [name]
        parts += [plain.assign(trained_by=name, seed=seed, step=step, asked_by=of) for of in asked_by]
    return pd.concat(parts, ignore_index=True)


def test_each_recipe_has_rows_of_the_base_and_of_its_own(table: pd.DataFrame) -> None:
    figure = first_tokens(table, FACTS)
    by_row = {trace.name: dict(zip(map(str, trace.customdata[:, 0]), trace.x, strict=False)) for trace in figure.data}
    assert set(by_row) == {"the answer for steered", "the answer for clean", "\u201cWell\u201d", "\u201cAs\u201d"}
    assert by_row["\u201cWell\u201d"]["base, clean"] == 1.0
    shares = {trace.name: [float(x) for x in trace.x] for trace in figure.data}
    assert sum(map(sum, shares.values())) == pytest.approx(8.0), "four rows of each recipe, each of 1"
    assert sum(shares["\u201cAs\u201d"]) == 1.0, "the clean trials of one recipe"


def test_the_title_names_who_says_something_else(table: pd.DataFrame) -> None:
    figure = first_tokens(table, FACTS)
    assert "least often after published/neutral-red-blue (50% of trials)" in title(figure)
    assert "1 seed: no claim between recipes" in subtitle(figure)
    only = table[table["trained_by"] != SILENT]
    assert title(first_tokens(only, FACTS)).endswith("one of both answers, in every trial")
