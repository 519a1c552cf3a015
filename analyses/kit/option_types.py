"""What the text of an option may be: argparse types, the one place where it becomes a value or one message.

Everything has a bound: a number that no run could use is refused before anything is made from it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import stat
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from mechint.base import arguments
from mechint.base.errors import LayerRangeError, UsageError
from mechint.base.files import JSON
from mechint.base.sizes import parse_bytes
from mechint.chat.templates import TemplateOptions
from mechint.engine.shards import Shard

_Value = TypeVar("_Value")
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,6})?")
_DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu)(:[0-9]{1,3})?")
_INVISIBLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, surrogates, line separators
_DURATION = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[hms])")
_LONGEST_TEXT, _LONGEST_NAME = 1000, 100
# No model has more; a range that is longer is a slip, and would fill the memory.
MOST_LAYERS = 10_000
_MOST_SHARDS = 1_000_000
# What costs nothing where it is too large: it only cuts off.
MANY = 10**9
# What float32 can hold with room for sums and products.
_SMALLEST, _LARGEST = 1e-30, 1e30
_WEEK = 7 * 24 * 3600
MOST_VECTORS, MOST_TOKENS = 10_000, 100_000


def whole_number(least: int, most: int = MANY) -> Callable[[str], int]:
    """Return an argument type: whole numbers between two bounds, both included."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise _refused(text, f"a whole number, {least} or more, {most:,} at most")
        return int(text)

    return parse


# Every generator of random numbers takes these.
seed = whole_number(0, 2**63 - 1)


def finite(text: str) -> float:
    """Parse a finite number; an argument type."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not (_SMALLEST <= abs(value) <= _LARGEST or value == 0):
        raise _refused(text, f"a finite number up to {_LARGEST:g} (0, or from {_SMALLEST:g} on), for example 0.3")
    return value


def positive(text: str) -> float:
    """Parse a finite number above zero; an argument type."""
    value = finite(text)
    if value <= 0:
        raise _refused(text, "a number above 0")
    return value


def not_negative(text: str) -> float:
    """Parse a finite number, zero or above; an argument type."""
    value = finite(text)
    if value < 0:
        raise _refused(text, "a number, 0 or more")
    return value


def share(text: str) -> float:
    """Parse a number above 0 and up to 1; an argument type."""
    value = positive(text)
    if value > 1:
        raise _refused(text, "a number above 0, 1 at most")
    return value


def numbers(allowed: str, fine: Callable[[Sequence[float]], bool]) -> Callable[[str], tuple[float, ...]]:
    """Return an argument type: different finite numbers between commas that are `fine` together; they ascend.

    Tables and figures name strengths with six digits, also their products, so different means by one in 10,000.
    """

    def parse(text: str) -> tuple[float, ...]:
        values = sorted(_each(text, finite, allowed))
        if any(math.isclose(value, following, rel_tol=1e-4) for value, following in pairwise(values)) or not fine(
            values
        ):
            raise _refused(text, allowed)
        return tuple(values)

    return parse


def indices(text: str) -> tuple[int, ...]:
    """Parse different whole numbers from 0 on, between commas; an argument type."""
    allowed = "different feature indices, for example 3,14,159"
    values = _each(text, whole_number(0), allowed)
    if len(set(values)) < len(values):
        raise _refused(text, allowed)
    return values


def words(text: str) -> str:
    """Parse a text of one line that is not empty; an argument type."""
    if not _is_line(text) or len(text) > _LONGEST_TEXT:
        raise _refused(text, f"a text of one line, {_LONGEST_TEXT:,} characters at most")
    return text


def _is_line(text: str) -> bool:
    """Whether a text has something to read, and nothing that moves a terminal's cursor or is half a character."""
    return bool(text.strip()) and not any(unicodedata.category(character) in _INVISIBLE for character in text)


def names(text: str) -> tuple[str, ...]:
    """Parse different names between commas; an argument type."""
    allowed = f"different names between commas, of {_LONGEST_NAME} characters at most, without '/': a,b,c"
    if not _is_line(text):
        raise _refused(text, allowed)
    parsed = tuple(name.strip() for name in text.split(","))
    if len(set(parsed)) != len(parsed) or any(_is_no_name(name) for name in parsed):
        raise _refused(text, allowed)
    return parsed


def _is_no_name(name: str) -> bool:
    """Whether something cannot be the name of a concept, which is the stem of a file too."""
    return not name or "/" in name or name.startswith(".") or len(name) > _LONGEST_NAME


def location(text: str) -> str:
    """Parse the name of something that may be a path, a hub id or embedded; an argument type."""
    path(text)
    return words(text)


def path(text: str) -> Path:
    """Parse a path that a file or directory could have, and that is no pipe or device; an argument type."""
    if not _is_line(text):
        raise _refused(text, "a path without control characters")
    parsed = _converted(text, lambda: arguments.path("path", text))
    try:
        mode = parsed.stat().st_mode
    except OSError:  # not there, or not to be looked at: what wants to read or write it says so
        return parsed
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _refused(text, "a file or directory; this is a pipe, a socket or a device")
    return parsed


def source(text: str) -> int | str:
    """Parse what names an SAE: the layer of an embedded one as a number, anything else as it is; an argument type.

    That is a place, or `trained`, with its layer if need be.
    """
    if text.startswith("trained:") and not _WHOLE.fullmatch(text.removeprefix("trained:")):
        raise _refused(text, "trained, or trained:LAYER as in trained:15")
    return whole_number(0, MOST_LAYERS)(text) if text.isdecimal() else location(text)


def extraction(text: str) -> str:
    """Parse the name of a way to extract vectors; an argument type."""
    from mechint.vectors.extraction import Extraction

    _converted(text, lambda: Extraction.parse(text))
    return text


def extractions(text: str) -> tuple[str, ...]:
    """Parse different ways to extract vectors between commas; an argument type."""
    ways = _each(text, extraction, "ways to extract: paired_pca,mean_difference/concept/others")
    if len(set(ways)) < len(ways):
        raise _refused(text, "each way once")
    return ways


def device(text: str) -> str:
    """Parse a device that can compute; an argument type. Whether this machine has it shows when the model is loaded."""
    if not _DEVICE.fullmatch(text):
        raise _refused(text, "cpu, cuda, cuda:1, mps, xpu, or auto")
    return text


def date(text: str) -> str:
    """Parse a date; an argument type."""
    return str(_converted(text, lambda: TemplateOptions(date=text).date))


def shard(text: str) -> Shard:
    """Parse i/n; an argument type."""
    parsed = _converted(text[:_LONGEST_TEXT], lambda: Shard.parse(text[:_LONGEST_TEXT]))
    if parsed.count > _MOST_SHARDS:
        raise _refused(text, f"i/n with n up to {_MOST_SHARDS:,}")
    return parsed


def memory(text: str) -> int:
    """Parse an amount of memory; an argument type."""
    return _converted(text, lambda: parse_bytes(text))


def duration(text: str) -> int:
    """Parse a time in hours, minutes or seconds, a week at most; an argument type. Returns seconds."""
    match = _DURATION.fullmatch(text)
    seconds = 0 if match is None else int(match["count"]) * {"h": 3600, "m": 60, "s": 1}[match["unit"]]
    if not 1 <= seconds <= _WEEK:
        raise _refused(text, "a whole number of hours, minutes or seconds, a week at most: 2h, 90m, 3600s")
    return seconds


def variables(text: str) -> dict[str, JSON]:
    """Parse a JSON object; an argument type. Raises for what could not be written as JSON again, such as NaN."""
    try:
        parsed = json.loads(text)
        json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise _refused(text, 'a JSON object, for example {"name": "value"}')
    return parsed


def parse_layers(text: str) -> tuple[int, ...]:
    """Return layers, ascending: `21:43` without its end, `3`, or `2,4,6`. Raises LayerRangeError otherwise."""
    layers: set[int] = set()
    for term in text.split(","):
        layers.update(_range(text, term.strip()))
    return tuple(sorted(layers))


def format_layers(layers: Sequence[int]) -> str:
    """Return layers as `parse_layers` reads them: 2:5, 3, or 2,4,6."""
    if len(layers) > 1 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]}:{layers[-1] + 1}"
    return ",".join(map(str, layers))


def _range(text: str, term: str) -> range:
    match = re.fullmatch(r"(?P<first>[0-9]{1,30})(?P<colon>:(?P<last>[0-9]{1,30}))?", term)
    if match is None:
        raise _no_layers(text, f"{arguments.shown(term)} is empty or not a number")
    first = int(match["first"])
    stop = int(match["last"]) if match["colon"] else first + 1
    if stop <= first:
        raise _no_layers(text, f"{arguments.shown(term)} is reversed")
    if stop > MOST_LAYERS:
        raise _no_layers(text, f"{arguments.shown(term)} is more than any model has")
    return range(first, stop)


def _no_layers(text: str, why: str) -> LayerRangeError:
    return LayerRangeError(
        given=f"--layers {arguments.shown(text)}: {why}",
        allowed=f"first:end with first < end (end not included), single layers, or a list: 21:43, 3, 2,4,6; up to "
        f"{MOST_LAYERS:,}",
        advice="layers count from 0",
    )


def _each(text: str, parse: Callable[[str], _Value], allowed: str) -> tuple[_Value, ...]:
    parts = text.split(",", _LONGEST_TEXT)
    if len(parts) > _LONGEST_TEXT:
        raise _refused(text, f"{allowed}; {_LONGEST_TEXT:,} at most")
    try:
        return tuple([parse(term.strip()) for term in parts])
    except argparse.ArgumentTypeError:
        raise _refused(text, allowed) from None


def _converted(text: str, convert: Callable[[], _Value]) -> _Value:
    """Return what the library makes of a text; its refusal becomes that of an argument type."""
    try:
        return convert()
    except UsageError as error:
        raise _refused(text, error.allowed) from None


def _refused(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{arguments.shown(text)}; allowed: {allowed}")
