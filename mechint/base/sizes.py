"""Amounts of memory as people write them: 4GB, 512 MB, 2GiB."""

from __future__ import annotations

import re

from mechint.base.errors import UsageError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([kmgt]?i?b?)", re.IGNORECASE)
# More than any machine has: a slip of the unit.
_MOST = 2**60


def parse_bytes(amount: int | str) -> int:
    """Return an amount of memory in bytes; a plain number is one of bytes. Raises UsageError for anything else."""
    if isinstance(amount, int) and not isinstance(amount, bool):
        count = amount
    else:
        match = _FORM.fullmatch(amount.strip()) if isinstance(amount, str) else None
        unit = None if match is None else _unit(match[2])
        count = 0 if match is None or unit is None else int(float(match[1]) * unit)
    if not 1 <= count <= _MOST:
        raise UsageError(
            f"an amount of memory {str(amount)[:40]!r}", "a number with a unit: 4GB, 512MB, 2GiB", "write one of these"
        )
    return count


def format_bytes(count: int) -> str:
    """Return an amount of memory with three digits and a unit: 1.23 GB."""
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _unit(text: str) -> int | None:
    name = text.lower()
    return _UNITS.get(name, _UNITS.get(f"{name}b"))
