"""What figures are drawn from: the sweeps, the scorecard, and rates of groups on cells that all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.trial_contrasts.declaring import design_of, kind_of
from analyses.trial_contrasts.sizes import by_size, parameters
from mechint.stats.intervals import binomial_interval
from mechint.trials.arms import judged_trials, selected
from mechint.trials.contrasts import Difference, difference
from mechint.trials.outcomes import CLAIMING
from mechint.trials.rates import rate_table

if TYPE_CHECKING:
    from analyses.trial_contrasts.options import Facts
    from mechint.trials.plans import Contrast

_KEY = ["model", "prompt"]  # of clean replies


@dataclass(frozen=True)
class Material:
    """The trials and outcomes of all sweeps, the scorecard with the kind of each contrast, and the facts of the run.

    `allowed` are the contrasts that the data allow, whatever was declared: figures show what there is.
    """

    trials: pd.DataFrame
    outcomes: pd.DataFrame
    scorecard: pd.DataFrame
    allowed: Sequence[Contrast]
    facts: Facts

    @cached_property
    def design(self) -> pd.DataFrame:
        """What was sampled, a row for each cell."""
        return design_of(self.trials)

    @cached_property
    def models(self) -> list[str]:
        """The models, from small to large as far as that is known."""
        return by_size(list(dict.fromkeys(self.design["model"])), self.sizes)

    @cached_property
    def sizes(self) -> Mapping[str, float]:
        """Numbers of parameters by model, where they are known."""
        return parameters(list(dict.fromkeys(self.design["model"])), self.facts.sources)

    @cached_property
    def steered(self) -> pd.DataFrame:
        """The replies to the question under concepts."""
        is_introspection = (self.trials["question"] == "introspection") & (self.trials["series"] == "injected")
        return self.trials[is_introspection]

    @cached_property
    def clean(self) -> pd.DataFrame:
        """The clean replies to the question, with whether they claim something; without those that nobody judged."""
        return self._with_claims(self.trials[self.trials["series"] == "clean"])

    @cached_property
    def _judged(self) -> pd.DataFrame:
        table = selected(self.trials, "injected", "introspection", ["category"])
        return judged_trials(table, self.outcomes, str(self.outcomes["judge"].iloc[0]))

    def of_kind(self, kind: str) -> list[Contrast]:
        """Return the contrasts of a kind that the data allow."""
        return [contrast for contrast in self.allowed if kind_of(contrast) == kind]

    def verdicts(self, kind: str) -> pd.DataFrame:
        """Return the scorecard's contrasts of a kind."""
        return self.scorecard[self.scorecard["kind"] == kind]

    def measure(self, rows: pd.DataFrame) -> str:
        """Return "net" if each model and prompt of some rows has clean replies, else "hits"."""
        cleaned = set(map(tuple, self.clean[_KEY].drop_duplicates().to_numpy()))
        return "net" if set(map(tuple, rows[_KEY].drop_duplicates().to_numpy())) <= cleaned else "hits"

    def rates(self, rows: pd.DataFrame, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
        """Return `rate_table` of some steered rows by group, with the clean replies of their models and prompts."""
        keys = pd.MultiIndex.from_frame(self.clean[_KEY])
        used = self.clean[keys.isin(pd.MultiIndex.from_frame(rows[_KEY]))]
        table = pd.concat([rows, used[list(rows.columns)]], ignore_index=True)
        outcomes = self.outcomes[self.outcomes["id"].isin(table["id"])]
        # Cells were matched before: groups of one figure have the same ones.
        return rate_table(table, outcomes, by, measures=measures, unmatched=True)

    def singles(self, rows: pd.DataFrame, by: Sequence[str], measure: str) -> pd.DataFrame:
        """Return `*by, concept, value`: the share of claims by group and concept, of "net" less that of clean replies.

        Clean replies of several models or prompts of a group weigh the same, as in `rates`.
        """
        claims = self._with_claims(rows)
        values = claims.groupby([*by, "concept"], sort=False)["claims"].mean().rename("value").reset_index()
        if measure != "net":
            return values
        alarms = self.clean.groupby(_KEY)["claims"].mean().rename("alarms").reset_index()
        sources = claims[list(dict.fromkeys([*by, *_KEY]))].drop_duplicates().merge(alarms, on=_KEY)
        of_groups = sources.groupby(list(by), sort=False)["alarms"].mean().reset_index()
        both = values.merge(of_groups, on=list(by))
        return both.assign(value=both["value"] - both["alarms"])

    def _with_claims(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the judged rows to the question, with whether each claims something."""
        replies = rows[(rows["question"] == "introspection") & rows["id"].isin(self._outcome.index)]
        return replies.assign(claims=replies["id"].map(self._outcome).isin(CLAIMING))

    @cached_property
    def _outcome(self) -> pd.Series:
        return self.outcomes.drop_duplicates("id").set_index("id")["outcome"]

    def difference(self, contrast: Contrast) -> Difference:
        """Return a contrast as measured."""
        return difference(contrast, self._judged)

    def alarms(self, model: str, before: str, after: str) -> dict[str, float]:
        """Return how much more often clean replies claim something after one prompt than after another.

        The interval joins the exact ones of both shares (Zou and Donner, 2008); NaN where a prompt has no clean reply.
        """
        claims = [
            self.clean.loc[(self.clean["model"] == model) & (self.clean["prompt"] == prompt), "claims"]
            for prompt in (after, before)
        ]
        if not all(map(len, claims)):
            return dict.fromkeys(("mean", "low", "high"), float("nan"))
        intervals = [binomial_interval(int(of.sum()), len(of)) for of in claims]
        shares = [float(of.mean()) for of in claims]
        to_low = [share - float(interval.low) for share, interval in zip(shares, intervals, strict=True)]
        to_high = [float(interval.high) - share for share, interval in zip(shares, intervals, strict=True)]
        mean = shares[0] - shares[1]
        below, above = np.hypot(to_low[0], to_high[1]), np.hypot(to_high[0], to_low[1])
        return {"mean": mean, "low": mean - float(below), "high": mean + float(above)}


def summary_of(result: Difference) -> dict[str, float]:
    """Return the value of a contrast with its 95% interval over concepts, and their number, for `dots`."""
    interval = result.interval(0.95)
    return {"mean": result.value, "low": float(interval.low), "high": float(interval.high), "n": result.n_concepts}
