"""Plans of contrasts: what will be compared, written down before it is; and what becomes of them, with Holm's rule.

A contrast is supported, not supported, or not testable: its design may be too small to find anything (two categories
of four concepts have no p below .03), and no result says so by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import JSON, read_json, write_atomically
from mechint.base.signatures import checked
from mechint.trials.rates import MEASURES, NEED_FOILS
from mechint.trials.shares import Refusals

Value = str | float | bool
Group = Mapping[str, Value | Sequence[Value]]  # values of columns, or lists of those that are allowed
Expected = Literal["more", "less", "different"]
Verdict = Literal["supported", "not supported", "not testable"]


@checked
@dataclass(frozen=True)
class Contrast:
    """The sum of the groups on the left less the sum of those on the right.

    `smallest_effect`: the smallest difference that would matter, in shares; one that is certainly smaller is
    "equivalent". `expects` is which way it was declared. `match`: columns in which the groups must agree, by default
    all of a cell that no group names. `unmatched` takes all cells of each group; the result says so. `any_length`: also
    where replies were cut off more often in one group. Raises UsageError for groups or names that cannot be.
    """

    name: str
    left: Sequence[Group]
    right: Sequence[Group]
    measure: str = "net"
    refusals: Refusals = "in"
    smallest_effect: float = 0.1
    expects: Expected = "different"
    match: Sequence[str] = ()
    unmatched: bool = False
    any_length: bool = False

    def __post_init__(self) -> None:
        if len(self.left) != len(self.right) or not self.left:
            raise UsageError(
                given=f"{self.name}: {len(self.left)} groups on the left and {len(self.right)} on the right",
                allowed="as many groups on either side, at least one: else there is no difference to be zero",
                advice="declare pairs of groups",
            )
        allowed = [name for name, rate in MEASURES.items() if rate.steered is not None and name not in NEED_FOILS]
        if self.measure not in allowed:
            raise UnknownNameError(f"{self.name}: measure {self.measure!r}", ", ".join(allowed), "name one of these")
        if not 0 < self.smallest_effect < 1:
            raise UsageError(
                given=f"{self.name}: smallest_effect {self.smallest_effect}",
                allowed="a share between 0 and 1",
                advice="give the smallest difference that would matter, 0.1 for ten points",
            )

    @property
    def groups(self) -> list[Group]:
        """All groups, those on the left first."""
        return [*self.left, *self.right]

    @property
    def signs(self) -> list[int]:
        """+1 for each group on the left, -1 for each on the right."""
        return [1] * len(self.left) + [-1] * len(self.right)


def read_plan(path: str | Path) -> list[Contrast]:
    """Return the contrasts of a JSON file: a list of objects with the fields of `Contrast`.

    A side with one group may be the group itself. Raises UsageError for unknown or missing fields and repeated names.
    """
    content = read_json(Path(path))
    if not isinstance(content, list):
        raise UsageError(
            given=f"{path}: {type(content).__name__}", allowed="a list of contrasts", advice="write [{...}, ...]"
        )
    plan = [_contrast(entry, f"{path}, contrast {place}") for place, entry in enumerate(content)]
    check_names(plan)
    return plan


def write_plan(plan: Sequence[Contrast], path: str | Path) -> Path:
    """Write contrasts as `read_plan` reads them; returns the path. Raises UsageError for repeated names."""
    check_names(plan)
    return write_atomically(Path(path), json.dumps([asdict(contrast) for contrast in plan], indent=1) + "\n")


def _contrast(entry: JSON, where: str) -> Contrast:
    allowed = [field.name for field in fields(Contrast)]
    names = list(entry) if isinstance(entry, dict) else []
    unknown = [name for name in names if name not in allowed]
    missing = [name for name in ("name", "left", "right") if name not in names]
    if unknown or missing or not isinstance(entry, dict):
        raise UsageError(
            given=f"{where}: unknown {', '.join(unknown) or 'nothing'}, missing {', '.join(missing) or 'nothing'}",
            allowed=f"an object with {', '.join(allowed)}",
            advice="correct the fields of that contrast",
        )
    sides = {side: [entry[side]] if isinstance(entry[side], dict) else entry[side] for side in ("left", "right")}
    arguments: dict[str, object] = {**entry, **sides}
    try:
        return Contrast(**arguments)  # type: ignore[arg-type]  # what is in a file is checked by the class
    except UsageError as error:
        raise UsageError(f"{where}: {error.given}", error.allowed, error.advice) from error


def check_names(plan: Sequence[Contrast]) -> None:
    """Raise UsageError unless each contrast has a name of its own."""
    names = [contrast.name for contrast in plan]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            given=f"two contrasts of the name {repeated[0]!r}", allowed="a name for each", advice="rename one of them"
        )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, 1979), in their order."""
    order = np.argsort(p_values, kind="stable")
    corrected, largest = np.ones(len(p_values)), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return [float(value) for value in corrected]


@dataclass(frozen=True)
class Measured:
    """What a verdict is made from: the corrected p, the smallest there can be, and the bounds of two intervals.

    `wide` is the interval at 1 - alpha, `narrow` that at 1 - 2 alpha, by which two one-sided tests decide.
    """

    value: float
    p: float
    smallest_p: float
    wide: tuple[float, float]
    narrow: tuple[float, float]


def verdict(contrast: Contrast, measured: Measured, alpha: float) -> tuple[Verdict, str]:
    """Return what has become of a contrast, and why in a few words."""
    low, high = measured.wide
    margin = contrast.smallest_effect
    if measured.smallest_p > alpha:
        return "not testable", f"the smallest p of this design is {measured.smallest_p:.2g}"
    if not np.isfinite([low, high]).all():
        return "not testable", "there is no interval"
    equivalent = measured.narrow[0] > -margin and measured.narrow[1] < margin
    differs = measured.p <= alpha and (low > 0 or high < 0)
    is_expected = contrast.expects == "different" or (measured.value > 0) == (contrast.expects == "more")
    if equivalent:
        return "not supported", f"equivalent: smaller than {margin:g} either way"
    if differs and not is_expected:
        return "not supported", f"the other way round: {contrast.expects} was expected"
    if differs:
        beyond = min(abs(low), abs(high)) >= margin
        return "supported", f"at least {margin:g}" if beyond else f"not zero; may be smaller than {margin:g}"
    return "not supported", f"undecided: {_undecided(measured)}"


def _undecided(measured: Measured) -> str:
    """Return why a contrast that may differ is not said to: by its interval, or by p after correction alone."""
    if measured.wide[0] > 0 or measured.wide[1] < 0:
        return f"the interval is clear of zero, but p is {measured.p:.2g} after correction for all contrasts"
    return "the interval holds zero and differences that would matter"
