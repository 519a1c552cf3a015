"""A sweep over layers and strengths: rates of every cell, and which of them differ from what clean replies show.

Of many cells some differ by chance, so what marks a cell holds for all of its panel at once: simultaneous bands over
concepts (`mi.stats.mean_bands`) of its difference to the clean replies, whose noise is dealt to the concepts.

A clean reply and one under a random vector have no right name. Beside how often the injected concept is named stands
how often each concept of the design is named there: what naming rightly is by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.stats.bands import mean_bands
from mechint.stats.intervals import PROBABILITY, Interval, mean_interval
from mechint.trials.arms import MISSING, Arms, arms_of, judged_trials, selected
from mechint.trials.outcomes import Lexicon, mentions
from mechint.trials.shares import Counted, clean_share, concept_share

MEASURES: tuple[str, ...] = ("claims", "names rightly", "coherence", "refusal")
_COUNTED: Mapping[str, str] = {"claims": "claims", "coherence": "coherent", "refusal": "refuses"}
COLUMNS = ("series", "measure", "value", "clean", "difference", "low", "high", "n_concepts", "n_trials")
_ROUNDING = 1e-9  # of sums
_NAMES = ("names wrongly", "names rightly")
Values = Float[np.ndarray, " units"]


@checked
def grid_table(
    trials: pd.DataFrame,
    verdicts: pd.DataFrame,
    outcomes: pd.DataFrame,
    lexicon: Lexicon,
    by: Sequence[str] = ("layers", "strength"),
    *,
    judge: str,
    question: str = "introspection",
    max_missing: float = MISSING,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the cells of one model's sweep, under concepts and under random vectors: `*by` and `COLUMNS`.

    `value` is the mean over concepts (random vectors), `clean` the share of clean replies to the same prompts,
    `difference` what is between them; [low, high] is its simultaneous band over all cells of a series and a measure:
    NaN for fewer than six units, and in cells that lack one of them. A band reaches zero where fewer than six units
    differ from it: flips of so few signs have no p below 0.05; and units that are all 0, or all 1, have the width of
    as many draws (at a level for all cells). Refusals count as denials. Raises UsageError for
    several models, and what `judged_trials` raises.
    """
    if trials["model"].nunique() > 1:
        raise UsageError("trials of several models", "the sweep of one model", "choose the rows of one of them")
    everything = selected(trials, ["injected", "random"], question, by)
    table = judged_trials(everything, outcomes, judge, max_missing=max_missing)
    concepts = sorted(set(table.loc[table["series"] == "injected", "concept"]))
    named = _named(trials, verdicts, outcomes, lexicon, concepts, judge)
    parts = []
    for series in ("injected", "random"):
        rows = table[table["series"].isin([series, "clean"])]
        cells = [cell for cell in arms_of(rows, by) if len(cell.steered) and len(cell.clean)]
        if cells:
            sweep = _Cells(series, cells, concepts, named)
            parts += [sweep.rates(measure, level) for measure in MEASURES]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*by, *COLUMNS])


@dataclass(frozen=True)
class _Cells:
    """The cells of one series; `named` are the concepts of the design that each reply names, by id."""

    series: str
    cells: Sequence[Arms]
    concepts: Sequence[str]
    named: pd.DataFrame

    def rates(self, measure: str, level: float) -> pd.DataFrame:
        """Return the rows of a measure."""
        units = sorted({name for cell in self.cells for name in cell.steered["concept"]})
        pairs = [self._pair(cell, measure, units) for cell in self.cells]
        steered, clean = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
        differences = steered - clean
        bands = mean_bands(np.where(np.abs(differences) < _ROUNDING, 0.0, differences), level=level)
        alike = _alike(steered, 1 - (1 - level) / len(steered))
        values = {"value": np.nanmean(steered, axis=1), "clean": np.nanmean(clean, axis=1)}
        values["difference"] = values["value"] - values["clean"]
        frame = pd.DataFrame([cell.key for cell in self.cells]).assign(series=self.series, measure=measure, **values)
        return frame.assign(
            low=np.minimum(bands.low, alike.low - values["clean"]),
            high=np.maximum(bands.high, alike.high - values["clean"]),
            n_concepts=[cell.steered["concept"].nunique() for cell in self.cells],
            n_trials=[cell.n_steered for cell in self.cells],
        )

    def _pair(self, cell: Arms, measure: str, units: Sequence[str]) -> tuple[Values, Values]:
        """Return values by unit of a cell (NaN for a unit that it lacks), and those of the clean replies for them."""
        there = [name for name in units if (cell.steered["concept"] == name).any()]
        if measure == "names rightly":
            steered, clean = self._naming(cell, there)
        else:
            counted = Counted(_COUNTED[measure])
            steered = concept_share(cell.steered, counted, units=there).values()
            clean = clean_share(cell.clean, counted).folds(len(there))
        rows = pd.DataFrame({"steered": steered, "clean": clean}, index=there).reindex(units)
        return rows["steered"].to_numpy(float), rows["clean"].to_numpy(float)

    def _naming(self, cell: Arms, there: Sequence[str]) -> tuple[Values, Values]:
        named = self.named.loc[cell.clean["id"]]
        if self.series == "injected":
            steered = concept_share(cell.steered, Counted("rightly"), units=there).values()
            return steered, named.groupby(cell.clean["source"].to_numpy()).mean().mean()[there].to_numpy()
        by_chance, counted = self.named.mean(axis=1), Counted("by_chance")
        arms = [arm.assign(by_chance=by_chance.loc[arm["id"]].to_numpy()) for arm in (cell.steered, cell.clean)]
        return concept_share(arms[0], counted, units=there).values(), clean_share(arms[1], counted).folds(len(there))


def _alike(steered: Float[np.ndarray, "cells units"], level: float) -> Interval:
    """Return exact intervals of cells whose units are all 0, or all 1, which may be chance; no width in others."""
    interval = mean_interval(steered, level=level, within=PROBABILITY)
    is_end = (np.ptp(steered, axis=1) == 0.0) & np.isin(interval.mean, PROBABILITY)
    low, high = np.where(is_end, interval.low, interval.mean), np.where(is_end, interval.high, interval.mean)
    return Interval(interval.mean, low, high, interval.n)


def _named(
    trials: pd.DataFrame,
    verdicts: pd.DataFrame,
    outcomes: pd.DataFrame,
    lexicon: Lexicon,
    concepts: Sequence[str],
    judge: str,
) -> pd.DataFrame:
    """Return by id, for every concept, whether a reply counts as naming something that it fits."""
    chosen = outcomes[(outcomes["judge"] == judge) & outcomes["outcome"].isin(_NAMES)]
    first = verdicts[(verdicts["judge"] == judge) & verdicts["id"].isin(chosen["id"])]
    texts = first.sort_values("pass_no", kind="stable").drop_duplicates("id").set_index("id")["named"]
    fits = {
        concept: [any(mentions(text, name, lexicon) for name in concept.split("+")) for text in texts]
        for concept in concepts
    }
    return pd.DataFrame(fits, index=texts.index, dtype=float).reindex(trials["id"], fill_value=0.0)
