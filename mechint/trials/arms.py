"""Trials joined with what they count as by one judge, and their groups: steered replies beside the clean ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mechint.base.errors import UnknownNameError, UsageError
from mechint.trials.outcomes import CLAIMING, CLASSES
from mechint.trials.pilot import left_by_pilot

# What the clean replies depend on, and what a cell of a grid is; `source` and `cell` number their combinations.
SAMPLED = ("model", "weights_hash", "prompt", "prompt_hash")
CELL = ("layers", "strength", "steer")
MISSING = 0.02  # share of replies without a verdict above which nothing is computed
_LEFT = "left"  # in the attrs of selected trials: which cells their rates are of
_KEPT = ("id", "series", "concept", "category", "depth", "stopped", "first_token_logit_diff")


@dataclass(frozen=True)
class Arms:
    """The judged replies of a group, steered and clean, its values by column, and how many there are, judged or not."""

    key: dict[str, object]
    steered: pd.DataFrame
    clean: pd.DataFrame
    n_steered: int
    n_clean: int

    @property
    def description(self) -> str:
        """The group in words."""
        return ", ".join(f"{name} {value}" for name, value in self.key.items()) or "all trials"

    @property
    def left(self) -> str:
        """Which cells its steered replies are of, where a pilot has dropped some of concepts; "" where it has not."""
        return str(self.steered.attrs.get(_LEFT, "")) if (self.steered["series"] == "injected").any() else ""


def selected(trials: pd.DataFrame, series: str | Sequence[str], question: str, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return the trials of one series or more and the clean ones to a question, with `source` and `cell` and no texts.

    Raises UsageError where there are none, and UnknownNameError for columns that are not there.
    """
    if missing := [name for name in by if name not in trials.columns]:
        allowed = ", ".join(map(str, trials.columns))
        raise UnknownNameError(given=f"the columns {', '.join(missing)}", allowed=allowed, advice="name these")
    several = [series] if isinstance(series, str) else list(series)
    chosen = (trials["question"] == question) & trials["series"].isin([*several, "clean"])
    columns = list(dict.fromkeys([*_KEPT, *SAMPLED, *CELL, *by]))
    table = trials.loc[chosen, columns].sort_values("id", kind="stable", ignore_index=True)
    if not len(table):
        raise UsageError(
            given=f"no trial of the series {', '.join(several)} and the question {question!r}",
            allowed="a series and a question that the table of trials has",
            advice="see which there are: trials.value_counts(['series', 'question'])",
        )
    source = table.groupby(list(SAMPLED), sort=False, dropna=False).ngroup()
    cell = table.groupby(list(CELL), sort=False, dropna=False).ngroup()
    table = table.assign(source=source, cell=cell, is_clean=table["series"] == "clean")
    table.attrs = {_LEFT: left_by_pilot(trials) if question == "introspection" else ""}
    return table


def judged_trials(
    trials: pd.DataFrame, outcomes: pd.DataFrame, judge: str, *, max_missing: float = MISSING
) -> pd.DataFrame:
    """Return the trials with `outcome` by one judge (NaN where there is none), and flags for what it counts as.

    Of several passes the first is taken. Raises UsageError where more than `max_missing` of the replies of a model, a
    prompt and a series have no verdict: those that a judge fails at are no random sample.
    """
    chosen = outcomes[outcomes["judge"] == judge]
    chosen = chosen[chosen["pass_no"] == chosen["pass_no"].min()]
    if chosen["id"].duplicated().any():
        raise UsageError(
            given=f"several outcomes of {judge} for one trial, {chosen['id'][chosen['id'].duplicated()].iloc[0]!r}",
            allowed="one outcome of a judge for each trial and pass",
            advice="two judges of one name: give them two names, or keep one version",
        )
    unknown = ~chosen["outcome"].isin(CLASSES)
    if unknown.any():
        raise UsageError(
            given=f"the outcome {chosen.loc[unknown, 'outcome'].iloc[0]!r}",
            allowed=", ".join(CLASSES),
            advice="take outcomes from mechint.trials.outcomes.outcome_table",
        )
    table = trials.assign(outcome=trials["id"].map(chosen.set_index("id")["outcome"]).to_numpy(dtype=object))
    _check_missing(table, judge, max_missing)
    return flagged(table)


def flagged(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of trials with `outcome`, and with its flags."""
    outcome = table["outcome"].to_numpy(dtype=object)
    flags = {name: outcome == value for name, value in _FLAGS.items()}
    is_judged = np.array(pd.notna(outcome), dtype=bool)
    claims = np.isin(outcome.astype(str), CLAIMING)
    return table.assign(**flags, claims=claims, coherent=is_judged & ~flags["incoherent"], is_judged=is_judged)


_FLAGS = {"rightly": "names rightly", "refuses": "refuses", "leaks": "leaks", "incoherent": "incoherent"}


def _check_missing(table: pd.DataFrame, judge: str, most: float) -> None:
    if table["outcome"].notna().all():
        return
    for group, outcome in table.groupby(["model", "prompt", "series"], sort=False)["outcome"]:
        n, judged = len(outcome), int(outcome.notna().sum())
        if judged < n * (1 - most):
            raise UsageError(
                given=f"{judge} has judged {judged} of {n} replies of {', '.join(group)}",
                allowed=f"at most {most:.0%} of replies without a verdict",
                advice="judge the others too, or say max_missing=1.0",
            )


def arms_of(table: pd.DataFrame, by: Sequence[str]) -> Iterator[Arms]:
    """Yield the groups of a table of `judged_trials`.

    Clean replies belong to each group with steered ones of their model and prompt; to one by themselves, where there
    are none.
    """
    is_clean, source = table["is_clean"].to_numpy(), table["source"].to_numpy()
    is_lonely = is_clean & ~np.isin(source, source[~is_clean])
    with_rows = ~is_clean | (is_lonely if set(by) <= set(SAMPLED) else False)
    is_judged = table["is_judged"].to_numpy()
    for key, rows in _groups(table, by, np.flatnonzero(with_rows)):
        steered = rows[~is_clean[rows]]
        clean = np.flatnonzero(is_clean & np.isin(source, source[rows]))
        arms = [table.iloc[arm[is_judged[arm]]] for arm in (steered, clean)]
        yield Arms(dict(zip(by, key, strict=True)), arms[0], arms[1], len(steered), len(clean))


def _groups(
    table: pd.DataFrame, by: Sequence[str], rows: np.ndarray
) -> Iterator[tuple[tuple[object, ...], np.ndarray]]:
    """Yield the groups of some rows in order of appearance: the values of the columns, and the rows; all, for none."""
    if not by:
        yield (), rows
        return
    grouped = table.iloc[rows].groupby(list(by), sort=False, dropna=False, observed=True)
    for key, places in grouped.indices.items():
        yield key if isinstance(key, tuple) else (key,), rows[places]


def check_grid(table: pd.DataFrame, description: str) -> None:
    """Raise UsageError unless each concept of each model and prompt has the same layers and strengths."""
    distinct = table[["source", "concept", "cell"]].drop_duplicates()
    units, cells = distinct.groupby(["source", "concept"], sort=False).ngroup(), distinct["cell"]
    sizes = units.value_counts()
    if len(distinct) == len(sizes) * cells.nunique():
        return
    odd = table.loc[distinct[units == sizes.index[-1]].index[0]]
    raise UsageError(
        given=f"{description}: unequal grids. {odd['concept']} ({odd['model']}, {odd['prompt']}) has "
        f"{sizes.iloc[-1]} of {cells.nunique()} cells of layers and strength",
        allowed="groups whose concepts, models and prompts have the same layers and strengths",
        advice="group by layers and strength too, compare matched cells (contrast_table), or say unmatched=True",
    )
