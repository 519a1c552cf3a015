"""The tables of a run: trials, verdicts, outcomes, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from analyses.trials import summaries
from analyses.trials.rates import Errors, rates
from mechint.trials.correction import Confusion
from mechint.trials.pilot import PILOT, dropped_trials, pilot_cells
from mechint.trials.records import COLUMNS
from mechint.trials.verdicts import VERDICT_COLUMNS

if TYPE_CHECKING:
    from analyses.trials.judging import JudgeFacts

_ERRORS = "judge"


def noted(table: pd.DataFrame, judge: JudgeFacts, *, unmatched: bool) -> pd.DataFrame:
    """Return a table with what its rates need besides it, which stays with the table."""
    counts = {name: {arm: _counts(of) for arm, of in getattr(judge, name).items()} for name in ("errors", "bounds")}
    naming = None if judge.naming is None else _counts(judge.naming)
    table.attrs[_ERRORS] = {**counts, "naming": naming, "unmatched": unmatched}
    return table


def all_tables(table: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Return what is written: the table of replies, and by name what it is made of and comes to."""
    trials, verdicts = table[list(COLUMNS)], table[list(VERDICT_COLUMNS)].dropna(subset=["judge"])
    outcomes = table.loc[table["outcome"].notna(), ["id", "judge", "pass_no", "outcome"]]
    extra = table.attrs[_ERRORS]
    claims = {arm: Confusion(*counts) for arm, counts in extra["errors"].items()}
    bounds = {arm: Confusion(*counts) for arm, counts in extra["bounds"].items()}
    errors = Errors(claims, bounds, None if extra["naming"] is None else Confusion(*extra["naming"]))
    tables = {
        "rates": rates(trials, verdicts, errors, unmatched=extra["unmatched"]),
        "grid": summaries.grids(trials, verdicts, outcomes),
        "wording": summaries.wording(trials, outcomes),
        "shifts": summaries.shifted_cells(table),
    }
    if PILOT in table.attrs:
        tables |= {"pilot": pilot_cells(table), "dropped": dropped_trials(table)}
    bare = {"trials": trials, "verdicts": verdicts, "outcomes": outcomes}
    plain = {name: frame.reset_index(drop=True).copy() for name, frame in bare.items()}
    for frame in plain.values():
        frame.attrs = {}
    plain["trials"].attrs = {name: table.attrs[name] for name in (PILOT,) if name in table.attrs}
    return {"table": table, **plain, **tables}


def _counts(confusion: Confusion) -> list[int]:
    return [confusion.tp, confusion.fp, confusion.fn, confusion.tn]
