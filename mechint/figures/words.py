"""Numbers in titles, subtitles and labels of figures: one way to write a signed number, an interval, a share, a count.

signed(-0.4123)                     # -0.41, with the sign that is as wide as +
bounded(0.5, 0.2, 0.8)              # +0.50 [+0.20, +0.80]
bounded(0.5, 0.2, 0.8, percent)     # 50% [20%, 80%]
counted(1, "concept")               # 1 concept
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mechint.figures.style import MINUS

_NOISE = 12  # decimal places behind which sums differ from machine to machine


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign; that of what is zero but for the noise of sums is plus on every machine."""
    return f"{round(float(value), _NOISE) + 0.0:+.{digits}f}".replace("-", MINUS)


def plain(value: float, digits: int = 2) -> str:
    """Return a number that has a sign only below zero."""
    rounded = round(float(value), digits) + 0.0  # which turns -0.0 into 0.0
    return f"{rounded:.{digits}f}".replace("-", MINUS)


def percent(share: float, digits: int = 0) -> str:
    """Return a share as a percentage."""
    return f"{share:.{digits}%}".replace("-", MINUS)


def bounded(mean: float, low: float, high: float, form: Callable[[float], str] = signed) -> str:
    """Return a mean with the bounds of its interval, where it has one."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return form(mean)
    return f"{form(mean)} [{form(low)}, {form(high)}]"


def counted(count: int, noun: str) -> str:
    """Return how many of something there are."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
