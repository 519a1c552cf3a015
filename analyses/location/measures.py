"""What the location table says: right answers, places told apart by the logits alone, and both net of preference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.kit import choices
from analyses.location import PLACES, options
from mechint import stats
from mechint.figures.names import check_names
from mechint.figures.style import layer_position
from mechint.stats import intervals
from mechint.stats.intervals import PROBABILITY

if TYPE_CHECKING:
    from jaxtyping import Float

MEASURES = ("right", "apart")
_TIE = 1e-4  # logits that differ by less are equal: what no injection can have reached differs by rounding
# Question and series of the table's rows, by the series of figures.
_ROWS = {
    "location": ("location", "injected"),
    "preference": ("preference", "injected"),
    "random": ("location", "random"),
    "random-preference": ("preference", "random"),
}


@dataclass(frozen=True)
class Measures:
    """Both measures of every vector by place, series and readout layer, and the table that they were made of.

    `scores`: place, series, layer, unit, right, apart. `right` is the share of trials in which the likeliest option
    is where it was injected; a constant answer has exactly chance, as every site is injected equally often. `apart`
    is the share of pairs of sites at which the logit of one option over the other is larger where it is true; chance is
    one half, whichever option or digit the model likes.
    """

    scores: pd.DataFrame
    table: pd.DataFrame

    @classmethod
    def of(cls, table: pd.DataFrame) -> Measures:
        """Return the measures of a finished table."""
        check_names(table["series"], ("clean", "injected", "random"), "series")
        parts = [scored(table[table["place"] == place]) for place in PLACES]
        return cls(pd.concat(parts, ignore_index=True), table)

    @property
    def output(self) -> str:
        """The last layer, whose readout is the output."""
        return str(max(self.scores["layer"].unique(), key=layer_position))

    def chance(self, place: str, measure: str) -> float:
        """Return what a measure is without any knowledge of the place."""
        return 0.5 if measure == "apart" else 1 / self.count(place)

    def count(self, place: str) -> int:
        """Return how many sites a place has."""
        return int(self.table.loc[self.table["place"] == place, "site"].max()) + 1

    def long(self) -> pd.DataFrame:
        """Return place, series, layer, unit, panel (measure), value."""
        return self.scores.melt(
            id_vars=["place", "series", "layer", "unit"], value_vars=list(MEASURES), var_name="panel"
        )

    def summary(self) -> pd.DataFrame:
        """Return panel (measure), place, series, layer, mean, low, high over vectors."""
        keys = ["panel", "place", "series", "layer"]
        return stats.group_means(self.long(), keys, "value", unit="unit", within=PROBABILITY)

    def verdict(self) -> pd.DataFrame:
        """Return place, measure, mean, low, high, chance, net, net_low, net_high, above: for concepts at the output.

        `net` is what a concept has more than at the preference question under the same injections. `above`: both
        intervals lie above what there would be by chance.
        """
        return pd.DataFrame([self._verdict(place, measure) for place in PLACES for measure in MEASURES])

    def _verdict(self, place: str, measure: str) -> dict[str, str | float | bool]:
        rows = self.scores[(self.scores["place"] == place) & (self.scores["layer"] == self.output)]
        wide = rows.pivot(index="unit", columns="series", values=measure)
        location = wide["location"].dropna()
        net = (wide["location"] - wide["preference"]).dropna()
        mean = intervals.mean_interval(location.to_numpy(), within=PROBABILITY)
        more, chance = intervals.mean_interval(net.to_numpy(), within=(-1, 1)), self.chance(place, measure)
        return {
            "place": place,
            "measure": measure,
            "chance": chance,
            "mean": float(mean.mean),
            "low": float(mean.low),
            "high": float(mean.high),
            "net": float(more.mean),
            "net_low": float(more.low),
            "net_high": float(more.high),
            "above": bool(mean.low > chance and more.low > 0),
        }

    def moved(self, place: str, series: str) -> Float[np.ndarray, "site option vector"]:
        """Return how the probabilities of options move against clean, by site (rows), option and vector."""
        count, (question, series_of_rows) = self.count(place), _ROWS[series]
        rows = self.table[(self.table["place"] == place) & (self.table["layer"] == self.output)]
        rows = rows[rows["question"] == question]
        clean = _by_site(rows[rows["series"] == "clean"], count, 1)
        injected = _by_site(rows[rows["series"] == series_of_rows], count, count)
        return np.moveaxis(injected - clean, 0, -1)


def _by_site(rows: pd.DataFrame, count: int, sites: int) -> Float[np.ndarray, "vector site option"]:
    """Return the mean over orders of the probabilities among options."""
    names = options(count)
    chances = pd.DataFrame(choices.among_options(rows, names), columns=names, index=rows.index)
    means = rows[["unit", "site"]].join(chances).groupby(["unit", "site"], sort=True)[names].mean()
    return np.asarray(means).reshape(-1, sites, count)


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """Return both measures of each vector, at each layer and to each question, of the rows of one place."""
    keys = ["place", "series", "layer", "unit"]
    injected = rows[rows["series"] != "clean"]
    names = {pair: name for name, pair in _ROWS.items()}
    pairs = zip(injected["question"], injected["series"], strict=True)
    injected = injected.assign(series=[names[pair] for pair in pairs])
    injected = injected.sort_values([*keys, "order", "site"], kind="stable")
    sites = int(injected["site"].max()) + 1
    logits = choices.logits(injected, options(sites))
    right = choices.right(logits, injected["site"].to_numpy(dtype=np.int64))
    apart = np.repeat(told_apart(logits.reshape(-1, sites, sites)), sites)
    return injected[keys].assign(right=right, apart=apart).groupby(keys, sort=False, as_index=False).mean()


def told_apart(logits: Float[np.ndarray, "trial site option"]) -> Float[np.ndarray, " trial"]:
    """Return the share of pairs of sites a, b with logit(a) - logit(b) larger when injected at a; ties count half."""
    own_logits = np.diagonal(logits, axis1=1, axis2=2)
    gain = own_logits[:, :, None] + own_logits[:, None, :] - logits - logits.transpose(0, 2, 1)
    first, second = np.triu_indices(logits.shape[1], 1)
    pairs = gain[:, first, second]
    return np.asarray(((pairs > _TIE) + 0.5 * (np.abs(pairs) <= _TIE)).mean(axis=1))
