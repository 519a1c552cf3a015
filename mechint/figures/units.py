"""What figures say where an interval is over few units."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from mechint.stats.intervals import Interval

FEW = 6  # units, below which intervals of skewed effects cover less than they say, and sweeps have no bands


def with_units(subtitle: str, estimates: Iterable[pd.DataFrame | Interval]) -> str:
    """Return a subtitle, with a note if any interval among the estimates is over fewer than six units.

    Frames have the number of units in a column `n`; those without it are taken for what they are, and say nothing.
    """
    few = sorted({count for of in estimates for count in _counts(of) if 2 <= count < FEW})
    if not few:
        return subtitle
    counts = f"{few[0]}" if len(few) == 1 else f"{few[0]} to {few[-1]}"
    ended = subtitle if not subtitle or subtitle.endswith((".", "!", "?")) else f"{subtitle}."
    note = (
        f"Few units ({counts}): below six, intervals cover less than 95% where effects are skewed, and bands of sweeps "
        "do not exist."
    )
    return f"{ended} {note}".strip()


def _counts(of: pd.DataFrame | Interval) -> set[int]:
    """Return the numbers of units of what has bounds; one unit has none."""
    if isinstance(of, Interval):
        return {of.n} if of.n > 1 and np.isfinite(of.mean).any() else set()
    if "n" not in of or "low" not in of:
        return set()
    return set(of.loc[of["low"].notna() & of["n"].notna(), "n"].astype(int))
