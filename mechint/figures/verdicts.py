"""What is said of features in figures: how their verdicts look, and how much of the stream they do not hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mechint.base.errors import UsageError
from mechint.figures.style import BLUE, GREEN, INK, MINUS, ORANGE, VERMILION, VIOLET, Series

if TYPE_CHECKING:
    import pandas as pd

    from mechint.attribution.features.dictionary import Quality

UNTESTED = ""
# Shapes differ, so that they can be told apart without colour.
VERDICTS = {
    "cause": Series("verdict: cause", VERMILION, "solid", "diamond"),
    "opposes": Series("verdict: opposes", VIOLET, "solid", "triangle-down"),
    "sufficient only": Series("verdict: sufficient only", ORANGE, "dash", "triangle-up"),
    "correlate": Series("verdict: correlate", BLUE, "dash", "square-open"),
    "neither": Series("verdict: neither", "#777777", "dot", "x-thin-open"),
    "undecided": Series("verdict: undecided", "#777777", "dashdot", "diamond-open"),
    "no effect to explain": Series("verdict: no effect to explain", GREEN, "longdash", "triangle-up-open"),
    UNTESTED: Series("no verdict", INK, "longdashdot", "hexagon-open"),
}


def check_components(table: pd.DataFrame, needed: Iterable[str]) -> None:
    """Raise UsageError for a table of components without rows, without columns, or with unknown verdicts."""
    if missing := [name for name in needed if name not in table.columns]:
        raise UsageError(f"a table without {', '.join(missing)}", ", ".join(needed), "add these columns")
    if table.empty:
        raise UsageError("a table without components", "one row or more", "see whether any feature is active")
    if unknown := sorted(set(table.get("verdict", ())) - set(VERDICTS)):
        allowed = ", ".join(name or "(empty)" for name in VERDICTS)
        raise UsageError(f"verdicts {', '.join(map(str, unknown))}", allowed, "use these words")


def sae_notice(quality: Quality) -> str:
    """Return the sentence of a subtitle on what an SAE leaves out; bold, and a warning, where that is most of it."""
    left = f"{1 - quality.explained:.0%}".replace("-", MINUS)
    numbers = f"mean |x {MINUS} x'| / |x| = {quality.error:.2f}, {quality.l0:.0f} features active"
    where = f"at {quality.positions} read positions, special tokens left out ({numbers})"
    if quality.poor:
        return (
            f"<b>WARNING: the SAE's error holds {left} of the variance, more than its features do, {where}: what is "
            "said of features is little of what happens.</b>"
        )
    return f"The SAE's error holds {left} of the variance {where}."
