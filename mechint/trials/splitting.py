"""The best cell of a sweep, without its luck: chosen on half of the concepts, and measured on the others.

The largest of many noisy numbers is larger than what it measures. Each half of the concepts chooses a cell for the
other; a concept's value is that in a cell which it had no say in, and its mean is that of the cells so chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.base.errors import UsageError
from mechint.base.signatures import Count, Seed, checked
from mechint.stats.intervals import mean_interval
from mechint.trials.arms import MISSING, Arms, arms_of, check_grid, judged_trials, selected
from mechint.trials.rates import MEASURES, OPPOSITE
from mechint.trials.shares import Refusals, clean_share, concept_share

Grid = Float[np.ndarray, "cells concepts"]


@dataclass(frozen=True)
class BestCell:
    """What the best cell of a sweep is worth.

    `value` with [low, high] over concepts: in cells that other concepts chose. `naive`: the largest mean, which is what
    is published. `cells` are the values of the columns of each cell, `chosen` how often each was chosen, as shares.
    """

    value: float
    low: float
    high: float
    naive: float
    cells: tuple[tuple[object, ...], ...]
    chosen: tuple[float, ...]
    n_concepts: int


@checked
def best_cell(
    trials: pd.DataFrame,
    outcomes: pd.DataFrame,
    by: Sequence[str] = ("layers", "strength"),
    *,
    judge: str,
    measure: str = "net",
    refusals: Refusals = "in",
    series: str = "injected",
    question: str = "introspection",
    splits: Count = 20,
    max_missing: float = MISSING,
    level: float = 0.95,
    seed: Seed = 0,
) -> BestCell:
    """Return the best cell of one model's sweep under one prompt, by `splits` random halvings of its concepts.

    Raises UsageError for several models or prompts, fewer than four concepts, and a grid with cells missing.
    """
    table = judged_trials(selected(trials, series, question, by), outcomes, judge, max_missing=max_missing)
    (whole,) = _one_sweep(table)
    check_grid(whole.steered, "the sweep")
    concepts = sorted(set(whole.steered["concept"]))
    if len(concepts) < 4:
        raise UsageError(
            given=f"{len(concepts)} concepts",
            allowed="at least four: two to choose a cell by and two to measure it",
            advice="take more concepts, or name the cell beforehand",
        )
    cells = list(arms_of(table[~table["is_clean"]], by))
    grid = _grid(cells, whole, measure, refusals, concepts)
    values, chosen = split_values(grid, splits, seed)
    interval = mean_interval(values, level=level)
    keys = tuple([tuple(cell.key.values()) for cell in cells])
    naive = float(grid.mean(axis=1).max())
    low, high = float(interval.low), float(interval.high)
    return BestCell(float(interval.mean), low, high, naive, keys, tuple(chosen.tolist()), len(concepts))


def _one_sweep(table: pd.DataFrame) -> list[Arms]:
    if table.loc[~table["is_clean"], "source"].nunique() != 1:
        raise UsageError(
            given="trials of several models or prompts, or none that are steered",
            allowed="the sweep of one model under one prompt",
            advice="choose the rows of one of them",
        )
    return list(arms_of(table, ()))


def _grid(cells: Sequence[Arms], whole: Arms, measure: str, refusals: Refusals, concepts: Sequence[str]) -> Grid:
    """Return the measure by cell and concept, less the clean replies where it is net of them."""
    counted = MEASURES[measure]
    if counted.steered is None:
        raise UsageError(given=f"the measure {measure!r}", allowed="a measure of steered replies", advice="take net")
    rows = np.stack([concept_share(cell.steered, counted.steered, refusals, concepts).values() for cell in cells])
    if counted.clean is None:
        return rows
    return np.asarray(rows - clean_share(whole.clean, counted.clean, OPPOSITE[refusals]).folds(len(concepts)))


def split_values(
    grid: Grid, splits: int, seed: int
) -> tuple[Float[np.ndarray, " concepts"], Float[np.ndarray, " cells"]]:
    """Return by concept its mean value in cells that the other half chose, and by cell how often it was chosen."""
    rng = np.random.default_rng(seed)
    n_cells, n = grid.shape
    values, chosen = np.zeros(n), np.zeros(n_cells)
    for _ in range(splits):
        order = rng.permutation(n)
        for half, others in ((order[: n // 2], order[n // 2 :]), (order[n // 2 :], order[: n // 2])):
            best = int(grid[:, half].mean(axis=1).argmax())
            values[others] += grid[best, others] / splits
            chosen[best] += len(others) / n / splits
    return values, chosen
