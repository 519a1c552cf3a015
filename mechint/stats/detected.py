"""How well trials with something added are told from clean ones by their scores, with intervals over vectors and texts.

    trials = Trials(scores, steered, vectors, texts)
    trials.area(), trials.rates(threshold=0.0)     # sensitivity apart from the criterion
    trials.hits_at(dev_scores, alarms=0.01)        # at a threshold that other clean texts set

Without a vector a trial is a function of its text alone, so that clean trials count by their distinct texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import stats

from mechint.base.errors import UsageError
from mechint.stats.intervals import PROBABILITY, Interval, binomial_interval
from mechint.stats.jackknife import NO_UNIT, Rows, Units, jackknife_interval
from mechint.stats.signal_detection import auc, criterion, d_prime, log_linear

Combine = Callable[[float, float], float]
FEWEST_TEXTS = 20  # distinct clean ones, for a rate of false alarms
Scores = Float[np.ndarray, " row"]


@dataclass(frozen=True)
class Trials:
    """Scores of trials, larger for surer detections, with what they belong to: a vector (none for clean), and a text.

    Raises UsageError unless there are both kinds of trials, for clean trials with a vector, steered ones without, and
    scores that are NaN.
    """

    scores: Scores
    steered: Bool[np.ndarray, " row"]
    vectors: Shaped[np.ndarray, " row"]
    texts: Shaped[np.ndarray, " row"]

    def __post_init__(self) -> None:
        faults = {
            "trials of one kind, which nothing can be told from": self.steered.all() or not self.steered.any(),
            "a steered trial without a vector, or a clean one with one": (
                (self.vectors.astype(str) != NO_UNIT) != self.steered
            ).any(),
            "scores that are NaN": np.isnan(self.scores).any(),
        }
        for fault, is_so in faults.items():
            if is_so:
                raise UsageError(fault, "steered trials with a vector, clean ones without, a score each", "check them")

    @property
    def clean_texts(self) -> int:
        """The number of distinct clean texts: of as many trials the clean ones are worth."""
        return len(np.unique(self.texts[~self.steered]))

    def area(self, *, level: float = 0.95) -> Interval:
        """Return the area under the curve, 0.5 for chance; its interval is over vectors and texts."""
        return jackknife_interval(self._area, self._units, level=level, within=PROBABILITY)

    def area_above(self, control: Trials, *, level: float = 0.95) -> Interval:
        """Return this area less that of the same trials with another question, by the same vectors and texts.

        What pushes any answer of that form moves both. Raises UsageError for trials that are not the same ones.
        """
        pairs = [(self.steered, control.steered), (self.vectors, control.vectors), (self.texts, control.texts)]
        if not all(np.array_equal(mine, other) for mine, other in pairs):
            raise UsageError("control trials of other vectors or texts", "the same trials, row by row", "align them")
        difference = jackknife_interval(
            lambda rows: self._area(rows) - control._area(rows), self._units, level=level, within=(-1.0, 1.0)
        )
        area, other = self.area(level=level), control.area(level=level)
        if not {float(area.mean), float(other.mean)} & set(PROBABILITY):
            return difference
        # At an end leaving units out changes nothing: what so many units may have missed counts instead.
        low = difference.mean - np.hypot(area.mean - area.low, other.high - other.mean)
        high = difference.mean + np.hypot(area.high - area.mean, other.mean - other.low)
        return Interval(
            difference.mean,
            np.asarray(np.clip(np.minimum(difference.low, low), -1.0, 1.0)),
            np.asarray(np.clip(np.maximum(difference.high, high), -1.0, 1.0)),
            difference.n,
        )

    def rates(self, threshold: float = 0.0, *, level: float = 0.95) -> Mapping[str, Interval]:
        """Return hits, alarms, d_prime and criterion of calling steered what scores above a threshold.

        Hits are over vectors and texts, alarms over distinct texts. d' and criterion are those of log-linear rates.
        Each has the wider of two intervals: of leaving units out, and of the limits of both rates together (MOVER; Zou
        and Donner, 2008), which says how little is known where all are hits; a bound may be infinite. Raises UsageError
        for fewer than 20 distinct clean texts: of 20 without an alarm the rate may still be 17%.
        """
        self.check_alarms()
        hits, alarms = self._hits(threshold, level), self.alarms(threshold, level=level)
        return {
            "hits": hits,
            "alarms": alarms,
            "d_prime": self._combined(d_prime, (1.0, -1.0), threshold, level),
            "criterion": self._combined(criterion, (-0.5, -0.5), threshold, level),
        }

    def hits_at(
        self, dev_scores: Float[np.ndarray, " dev"], alarms: float = 0.01, *, level: float = 0.95
    ) -> tuple[Interval, float]:
        """Return the rate of hits above the lowest threshold with at most that share of alarms, and the threshold.

        `dev_scores` are those of other clean texts, one each. Alarms at the threshold on these texts are
        `rates(threshold)["alarms"]`. Raises UsageError for fewer than 20 of them.
        """
        if len(dev_scores) < FEWEST_TEXTS:
            raise _too_few(len(dev_scores))
        threshold = float(np.sort(dev_scores)[::-1][int(np.floor(alarms * len(dev_scores)))])
        return self._hits(threshold, level), threshold

    def alarms(self, threshold: float = 0.0, *, level: float = 0.95) -> Interval:
        """Return the rate of false alarms above a threshold, over distinct texts: the exact interval."""
        scores, texts = self.scores[~self.steered], self.texts[~self.steered]
        first = np.unique(texts, return_index=True)[1]
        return binomial_interval(int((scores[first] > threshold).sum()), len(first), level=level)

    def check_alarms(self) -> None:
        """Raise UsageError for fewer clean texts than a rate of false alarms needs."""
        if self.clean_texts < FEWEST_TEXTS:
            raise _too_few(self.clean_texts)

    @property
    def _units(self) -> tuple[Units, Units]:
        return self.vectors, self.texts

    def _area(self, rows: Rows) -> float:
        return auc(self.scores[rows & self.steered], self.scores[rows & ~self.steered])

    def _hits(self, threshold: float, level: float) -> Interval:
        hit = self.scores > threshold
        return jackknife_interval(
            lambda rows: _share(hit, rows & self.steered), self._units, level=level, within=PROBABILITY
        )

    def _combined(self, combine: Combine, signs: tuple[float, float], threshold: float, level: float) -> Interval:
        """Return the interval of a sum of the normal quantiles of both rates, each with its sign."""
        above, n_hits, n_alarms = self.scores > threshold, int(self.steered.sum()), self.clean_texts

        def statistic(rows: Rows) -> float:
            hits, alarms = _share(above, rows & self.steered), _share(above, rows & ~self.steered)
            return combine(log_linear(hits * n_hits, n_hits), log_linear(alarms * n_alarms, n_alarms))

        interval = jackknife_interval(statistic, self._units, level=level)
        of_hits = _arms(self._hits(threshold, level), signs[0], n_hits)
        of_alarms = _arms(self.alarms(threshold, level=level), signs[1], n_alarms)
        low = np.minimum(interval.low, interval.mean - np.hypot(of_hits[0], of_alarms[0]))
        high = np.maximum(interval.high, interval.mean + np.hypot(of_hits[1], of_alarms[1]))
        return Interval(interval.mean, np.asarray(low), np.asarray(high), interval.n)


def _share(flags: Rows, rows: Rows) -> float:
    return float(flags[rows].mean()) if rows.any() else float("nan")


def _arms(rate: Interval, sign: float, n: int) -> tuple[float, float]:
    """Return how far the signed normal quantile of a rate reaches below and above its log-linear value."""
    middle = sign * stats.norm.ppf(log_linear(float(rate.mean) * n, n))
    ends = sorted(sign * stats.norm.ppf([float(rate.low), float(rate.high)]))
    return max(0.0, float(middle - ends[0])), max(0.0, float(ends[1] - middle))


def _too_few(n: int) -> UsageError:
    return UsageError(
        given=f"{n} distinct clean texts",
        allowed=f"{FEWEST_TEXTS} or more: repeated texts give the same score again and count once",
        advice="draw more openers, replies and wordings",
    )
