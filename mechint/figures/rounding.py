"""Numbers of figures without the digits that mean nothing, so that a figure is the same text on any machine.

Machines add in different orders, and a double differs by its last bits. Two rules keep that out of what is written:

- Numbers have six significant digits. They are first rounded to twelve, so that last bits do not decide which way a
  number goes that lies midway between two of six digits.
- A coordinate on a linear axis that is below 1e-12 of the largest on that axis is zero: it lies on the zero line in
  any picture, and is what rounding leaves of a sum that is zero. Axes that show nothing but such small numbers keep
  them, and so do logarithmic axes. Log-odds are numbers of usual size, however small their probability is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from mechint.base.files import JSON

_EXACT = 1e15  # up to here a double holds every whole number
_NOISE = 1e-12
_NO_AXIS: Mapping[str, JSON] = {}


def six_digits(number: float) -> float | int:
    """Return a finite number with six significant digits, as a whole one where it is one."""
    rounded = float(f"{float(f'{number:.12g}'):.6g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < _EXACT else rounded


def remove_noise(traces: Sequence[dict[str, JSON]], layout: Mapping[str, JSON]) -> None:
    """Set to zero, in place, the coordinates of a figure's traces that are rounding noise on their axis.

    Where a point's coordinate becomes zero, numbers under the pointer there that are as small become zero too.
    """
    by_axis = defaultdict(list)
    for number, trace in enumerate(traces):
        for coordinates, key, axis in _coordinates(trace, number):
            by_axis[_shared(layout, axis)].append((trace, coordinates, key))
    for axis, places in by_axis.items():
        if _axis(layout, axis).get("type") == "log":
            continue
        sizes = [size for _, coordinates, key in places for size in _sizes(coordinates[key])]
        smallest = _NOISE * max(sizes, default=0.0)
        for trace, coordinates, key in places:
            before = coordinates[key]
            coordinates[key] = _without(before, smallest)
            if "customdata" in trace:
                trace["customdata"] = _beside(trace["customdata"], before, coordinates[key], smallest)


def _coordinates(trace: dict[str, JSON], number: int) -> Iterator[tuple[dict[str, JSON], str, str]]:
    """Yield where a trace's coordinates lie, and the name of the axis or colour scale that shows them."""
    length = "x" if trace.get("orientation") == "h" else "y"  # of bars
    for key, direction in (("x", "x"), ("y", "y"), ("base", length)):
        if key in trace:
            yield trace, key, str(trace.get(f"{direction}axis", direction))
    for direction in ("x", "y"):
        bars = trace.get(f"error_{direction}")
        if isinstance(bars, dict):
            axis = str(trace.get(f"{direction}axis", direction))
            yield from ((bars, key, axis) for key in ("array", "arrayminus") if key in bars)
    if "z" in trace:
        yield trace, "z", str(trace.get("coloraxis", f"colors of {number}"))


def _axis(layout: Mapping[str, JSON], name: str) -> Mapping[str, JSON]:
    axis = layout.get(f"{name[0]}axis{name[1:]}")
    return axis if isinstance(axis, dict) else _NO_AXIS


def _shared(layout: Mapping[str, JSON], name: str) -> str:
    """Return the axis whose range an axis takes, which may be its own."""
    return str(_axis(layout, name).get("matches", name))


def _sizes(value: JSON) -> Iterator[float]:
    if isinstance(value, list):
        for item in value:
            yield from _sizes(item)
    elif isinstance(value, int | float):
        yield abs(value)


def _without(value: JSON, smallest: float) -> JSON:
    """Return a number, or the numbers of lists, with zero for what is below `smallest`."""
    if isinstance(value, list):
        return [_without(item, smallest) for item in value]
    return 0 if isinstance(value, float) and abs(value) < smallest else value


def _beside(custom: JSON, before: JSON, after: JSON, smallest: float) -> JSON:
    """Return what stands under the pointer, without noise at the points whose coordinates have changed."""
    if before == after:
        return custom
    if not isinstance(before, list) or not isinstance(after, list):
        return _without(custom, smallest)
    if not isinstance(custom, list) or len(custom) != len(before):
        return custom
    return [_beside(*point, smallest) for point in zip(custom, before, after, strict=True)]
