"""Arguments of callers, converted and checked: the one place where a wrong value becomes one clear message.

Numbers of NumPy and of one-element tensors are numbers; truth values and texts are none, and nothing is ever rounded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from itertools import islice
from numbers import Integral, Real
from pathlib import Path

from mechint.base.errors import UsageError

Bound = int | float
# What file systems take.
_LONGEST_NAME, _LONGEST_PATH = 255, 4096
# More values than any list of layers, positions or features has; an endless generator ends here.
MOST_VALUES = 1_000_000


def number(name: str, value: object, least: Bound = -math.inf, most: Bound = math.inf) -> float:
    """Return a finite number between two bounds as a float. Raises UsageError for anything else."""
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise wrong(name, value, "a number")
    try:
        converted = float(plain)
    except OverflowError:
        converted = math.inf
    if not (math.isfinite(converted) and least <= converted <= most):
        raise wrong(name, value, f"a finite number{_bounds(least, most)}")
    return converted


def whole(name: str, value: object, least: Bound = -math.inf, most: Bound = math.inf) -> int:
    """Return a whole number between two bounds as an int. Raises UsageError for anything else, 2.0 among it."""
    plain = _plain(value)
    if isinstance(plain, bool) or not isinstance(plain, Integral) or not least <= int(plain) <= most:
        raise wrong(name, value, f"a whole number{_bounds(least, most)}")
    return int(plain)


def text(name: str, value: object) -> str:
    """Return a text that can be written as UTF-8. Raises UsageError for anything else."""
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(name, value, "a text that can be written as UTF-8") from error
    return str(value)


def flag(name: str, value: object) -> bool:
    """Return a truth value. Raises UsageError for anything else: "no" would be true."""
    plain = _plain(value)
    if not isinstance(plain, bool):
        raise wrong(name, value, "True or False")
    return plain


def path(name: str, value: object) -> Path:
    """Return a path that a file could have. Raises UsageError for anything else."""
    if not isinstance(value, str | os.PathLike) or isinstance(value, bytes):
        raise wrong(name, value, "a path")
    plain = os.fspath(value)
    fine = isinstance(plain, str) and plain and "\0" not in plain and len(plain) < _LONGEST_PATH
    if not fine or any(len(component) > _LONGEST_NAME for component in Path(plain).parts):
        raise wrong(name, value, "a path of fewer than 4,096 characters, 255 a part, none of them NUL")
    return Path(text(name, str(plain)))


def several(name: str, values: object, plural: str = "values") -> tuple[object, ...]:
    """Return the values of a list, range, array or generator. Raises UsageError for all else."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise wrong(name, values, f"a list of {plural}")
    try:
        listed = tuple(islice(values, MOST_VALUES + 1))
    except TypeError as error:  # an array without an axis looks like something to go through
        raise wrong(name, values, f"a list of {plural}") from error
    if len(listed) > MOST_VALUES:
        raise wrong(name, values, f"at most {MOST_VALUES:,} {plural}")
    return listed


def wholes(name: str, values: object, least: Bound = -math.inf) -> tuple[int, ...]:
    """Return whole numbers as a tuple, in their order. Raises UsageError for anything else among them."""
    return tuple([whole(name, value, least) for value in several(name, values, "whole numbers")])


def wrong(name: str, value: object, allowed: str) -> UsageError:
    """The error for an argument that cannot be used as given."""
    return UsageError(f"{name}={shown(value)}", f"{name}: {allowed}", f"correct {name}")


def shown(value: object) -> str:
    """Return a value as it is shown in a message: shortened, and with its type where it has no short text."""
    kind = type(value).__name__
    if isinstance(value, str | bytes | int | float | complex | bool | list | tuple | dict | range | None):
        try:
            full = ascii(value)
        except (ValueError, RecursionError):  # an integer of thousands of digits has no text
            return f"<{kind}>"
        return full if len(full) <= _LONGEST else f"{full[:_LONGEST]}..."
    return f"<{kind}>"


_LONGEST = 80


def _plain(value: object) -> object:
    """Return the number in an array or tensor of one element without an axis; anything else as it is."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def _bounds(least: Bound, most: Bound) -> str:
    if math.isinf(least):
        return "" if math.isinf(most) else f" up to {most:,}"
    return f" from {least:,} on" if math.isinf(most) else f" from {least:,} to {most:,}"
