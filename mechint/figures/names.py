"""Names in frames that a figure knows nothing of: what would silently be left out is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from mechint.base.errors import UnknownNameError


def check_names(column: pd.Series, names: Iterable[str], noun: str) -> None:
    """Raise UnknownNameError for other names (`noun` says what they name) in a column, NaN among them."""
    allowed = list(names)
    unknown = [str(name) for name in column.unique() if name not in allowed]
    if unknown:
        raise UnknownNameError(
            given=f"unknown {noun} {', '.join(map(repr, unknown[:5]))}",
            allowed=", ".join(allowed) or "none at all",
            advice=f"choose among these, or say how each other {noun} is drawn",
        )


def only(frame: pd.DataFrame, series: Iterable[str], others: Iterable[str]) -> pd.DataFrame:
    """Return the rows of some series, without those of `others`; raises UnknownNameError for any that is neither."""
    kept = list(series)
    check_names(frame["series"], [*kept, *others], "series")
    return frame[frame["series"].isin(kept)]


def mapped(column: pd.Series, names: Mapping[str, str], noun: str) -> pd.Series:
    """Return a column with each name replaced; raises UnknownNameError for names that have no other."""
    check_names(column, names, noun)
    return column.map({**names})
