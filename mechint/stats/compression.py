"""What training does to log odds: a shift apart from a compression towards indifference.

Log odds after training are a + b x those before. A model that has become indifferent has b < 1 and a = 0: its
answers to questions that it denied move up, those that it affirmed move down, and a mean over the former reads as
affirmation. `a` is the shift of a question on which the base was undecided.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.stats.estimates import Interval
from mechint.stats.jackknife import Rows, jackknife_interval

LogOdds = Float[np.ndarray, " items"]
Items = Shaped[np.ndarray, " items"]


@dataclass(frozen=True)
class Compression:
    """`shift` a in nats and `slope` b (1: none, 0: indifferent) of a + b x base, each with its interval over items."""

    shift: Interval
    slope: Interval


@checked
def compression(base: LogOdds, after: LogOdds, units: Items, *, level: float = 0.95) -> Compression:
    """Return the line by least squares; items of one unit are left out together.

    NaN where the base has the same log odds for all: then shift and compression cannot be told apart. Raises UsageError
    for values that are not finite.
    """
    _check(base, after)
    terms = [
        jackknife_interval(lambda rows, term=term: _line(base[rows], after[rows])[term], [units], level=level)  # type: ignore[misc]
        for term in (0, 1)
    ]
    return Compression(*terms)


@checked
def matched_contrast(
    base: LogOdds, after: LogOdds, is_control: Shaped[np.ndarray, " items"], units: Items, *, level: float = 0.95
) -> tuple[Interval, float]:
    """Return how far items lie above the line of the controls, at their own base log odds; and the share beyond them.

    The share is that of items whose base log odds lie outside of the controls': there the line is only believed. NaN
    where controls give no line. Raises UsageError for values that are not finite, and for none of either.
    """
    _check(base, after)
    control = is_control.astype(bool)
    if control.all() or not control.any():
        raise UsageError(f"{control.sum()} controls of {len(control)} items", "some of both", "add the other kind")

    def statistic(rows: Rows) -> float:
        shift, slope = _line(base[rows & control], after[rows & control])
        chosen = rows & ~control
        return float((after[chosen] - shift - slope * base[chosen]).mean()) if chosen.any() else float("nan")

    outside = (base[~control] < base[control].min()) | (base[~control] > base[control].max())
    return jackknife_interval(statistic, [units], level=level), float(outside.mean())


def _line(base: LogOdds, after: LogOdds) -> tuple[float, float]:
    """Return intercept and slope by least squares, NaN where there is no slope."""
    if len(base) < 2 or np.ptp(base) == 0.0:
        return float("nan"), float("nan")
    centred = base - base.mean()
    slope = float((centred * after).sum() / (centred**2).sum())
    return float(after.mean() - slope * base.mean()), slope


def _check(base: LogOdds, after: LogOdds) -> None:
    if not (np.isfinite(base).all() and np.isfinite(after).all()):
        raise UsageError("log odds that are not finite", "finite ones of every item", "leave such items out")
