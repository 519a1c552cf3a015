"""Checks of numbers and lists that several sides of a recipe share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mechint.base.errors import UsageError

FORBID_UNKNOWN = {"extra": "forbid"}  # what pydantic is told of fields that a record does not have


def at_least(name: str, value: int | float, least: int | float) -> None:
    """Raise UsageError for a number below the least."""
    if not (math.isfinite(value) and value >= least):
        raise UsageError(f"{name}={value}", f"{least:g} or more", f"give {name} of at least {least:g}")


def within(name: str, value: int | float, least: int | float, most: int | float) -> None:
    """Raise UsageError for a number outside of its bounds."""
    if not least <= value <= most:
        raise UsageError(f"{name}={value}", f"{least:g} to {most:g}", "give a number between the two")


def distinct(name: str, values: Sequence[object]) -> None:
    """Raise UsageError for a value that comes twice."""
    if len(set(values)) < len(values):
        raise UsageError(f"{name} {list(values)}, one of them twice", "each once", "leave the second out")
