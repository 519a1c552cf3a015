"""Shares by concept and shares of clean replies, and the intervals of both and of their difference.

The unit of every interval is the concept, whose trials share a vector. The clean replies of a model and a prompt have
none: they are one sample, dealt at random into as many folds as there are concepts. What a fold is off from the whole
is added to one concept each, so that the mean over concepts is exact and its spread has the noise of both arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.stats.intervals import PROBABILITY, Interval, binomial_interval, mean_interval, ratio_interval

Values = Float[np.ndarray, " units"]
# What refusals count as: denials; nothing (they are left out of both arms); the worst and the best for what is counted.
Refusals = Literal["in", "out", "lowest", "highest"]
REFUSALS: tuple[Refusals, ...] = ("in", "out", "lowest", "highest")


@dataclass(frozen=True)
class Share:
    """A share by unit: what is counted over what it is a share of, both per trial of the unit.

    The share of all is the ratio of their means: the mean of the units' shares where `under` is 1 throughout.
    """

    over: Values
    under: Values

    @property
    def value(self) -> float:
        """The share of all units; NaN where there is nothing to take a share of."""
        whole = float(self.under.mean()) if len(self.under) else 0.0
        return float(self.over.mean()) / whole if whole > 0 else float("nan")

    @property
    def of_everything(self) -> bool:
        """Whether it is a share of all trials of each unit."""
        return bool((self.under == 1.0).all())

    def values(self) -> Values:
        """Return values by unit whose mean is the share, and whose spread is that of the ratio (linearised)."""
        if self.of_everything:
            return self.over
        value, whole = self.value, float(self.under.mean()) if len(self.under) else float("nan")
        return value + (self.over - value * self.under) / whole if whole > 0 else np.full(len(self.over), np.nan)


@dataclass(frozen=True)
class Counted:
    """What is counted in a trial, by its flags: `over` among those with `under`, which may be all."""

    over: str
    under: str = ""

    def columns(self, table: pd.DataFrame, refusals: Refusals) -> tuple[Values, Values]:
        """Return by row whether it is counted, and whether it is one of those that a share is taken of."""
        over = table[self.over].to_numpy(dtype=np.float64)
        under = table[self.under].to_numpy(dtype=np.float64) if self.under else np.ones(len(table))
        refuses = table["refuses"].to_numpy(dtype=np.float64)
        if refusals == "highest":
            over = np.maximum(over, refuses)
        if refusals == "out":
            under = under * (1 - refuses)
        return over * under, under


def concept_share(
    table: pd.DataFrame, counted: Counted, refusals: Refusals = "in", units: Sequence[str] | None = None
) -> Share:
    """Return the share by concept; `units` are the concepts and their order, by default all, by name.

    Not by where they stand in the table: which clean replies are dealt to a concept must not depend on that.
    """
    over, under = counted.columns(table, refusals)
    codes, names = pd.factorize(table["concept"].to_numpy(dtype=object), sort=True)
    sizes = np.bincount(codes, minlength=len(names))
    sums = [np.bincount(codes, weights=flags, minlength=len(names)) / sizes for flags in (over, under)]
    if units is None:
        return Share(sums[0], sums[1])
    order = pd.Index(names).get_indexer(list(units))
    return Share(sums[0][order], sums[1][order])


@dataclass(frozen=True)
class CleanShare:
    """The share of the clean replies, and by reply what it moves that share by, times the number of replies."""

    value: float
    influence: Values
    counts: tuple[int, int] | None = None  # of a share of one sample: what counts, of how many

    def folds(self, units: int) -> Values:
        """Return values by unit whose mean is the share, and whose spread is its noise."""
        n = len(self.influence)
        if not n:
            return np.full(units, np.nan)
        sums = np.bincount(np.arange(n) % units, weights=self.influence, minlength=units)
        return self.value + units / n * sums


def clean_share(table: pd.DataFrame, counted: Counted, refusals: Refusals = "in") -> CleanShare:
    """Return the share of clean replies; where several models or prompts are pooled, each weighs the same.

    Replies are in the order of their ids, which are hashes: a random one.
    """
    over, under = counted.columns(table, refusals)
    codes, source = np.unique(table["source"].to_numpy(), return_inverse=True)
    weights = 1.0 / np.bincount(source, minlength=1)[source]
    whole = float((weights * under).sum())
    if whole <= 0:
        return CleanShare(float("nan"), np.full(len(table), np.nan))
    value = float((weights * over).sum()) / whole
    counts = (int(over.sum()), int(under.sum())) if len(codes) == 1 else None
    return CleanShare(value, weights * len(table) * (over - value * under) / whole, counts)


def share_interval(share: Share, level: float = 0.95) -> Interval:
    """Return the interval of a share over concepts, within 0 and 1.

    Of a ratio it is Fieller's (`ratio_interval`); where all or none of what there is counts, the exact one of as many
    draws as there are concepts with any of it.
    """
    if share.of_everything:
        return mean_interval(share.over, level=level, within=PROBABILITY)
    some = share.under > 0
    if share.value in PROBABILITY:
        interval = mean_interval(share.over[some] / share.under[some], level=level, within=PROBABILITY)
        return Interval(interval.mean, interval.low, interval.high, len(share.under))
    interval = ratio_interval(share.over, share.under, level=level)
    return _within(Interval(np.asarray(share.value), interval.low, interval.high, interval.n), 0.0)


def clean_interval(clean: CleanShare, level: float = 0.95) -> Interval:
    """Return the interval of a share of clean replies: exact, over replies, of which each is a draw of its own."""
    if clean.counts is None or not clean.counts[1]:
        return _within(mean_interval(clean.value + clean.influence, level=level), 0.0)
    return binomial_interval(*clean.counts, level=level)


def net_interval(share: Share, clean: CleanShare, level: float = 0.95) -> Interval:
    """Return the interval of a share over concepts less that of clean replies.

    Where no concept differs from another and no clean reply from any other, the intervals of both arms are joined
    (Zou and Donner, 2008): there is no spread to take one from, and the shares may be 0 or 1 by chance.
    """
    values = share.values() - clean.folds(len(share.over))
    interval = mean_interval(values, level=level)
    if len(values) > 1 and np.ptp(values) == 0.0:
        arms = share_interval(share, level), clean_interval(clean, level)
        below = np.hypot(arms[0].mean - arms[0].low, arms[1].high - arms[1].mean)
        above = np.hypot(arms[0].high - arms[0].mean, arms[1].mean - arms[1].low)
        low, high = np.asarray(interval.mean - below), np.asarray(interval.mean + above)
        interval = Interval(interval.mean, low, high, interval.n)
    return _within(interval, -1.0)


def _within(interval: Interval, least: float) -> Interval:
    """Return an interval that ends at the least value that there can be, and at 1."""
    low, high = np.clip(interval.low, least, 1.0), np.clip(interval.high, least, 1.0)
    return Interval(interval.mean, np.asarray(low), np.asarray(high), interval.n)
