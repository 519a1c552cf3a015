"""Objects laid over objects: how a recipe inherits, and how two recipes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mechint.base.files import JSON


def merged(below: Mapping[str, JSON], above: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return `below` with what `above` says otherwise: objects key by key, anything else as a whole."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def differences(old: Mapping[str, JSON], new: Mapping[str, JSON], place: str = "") -> Iterator[tuple[str, JSON, JSON]]:
    """Yield where two objects differ, with both values; a key that one of them lacks is None there."""
    for key in dict.fromkeys((*old, *new)):
        left, right = old.get(key), new.get(key)
        if left == right:
            continue
        if isinstance(left or {}, Mapping) and isinstance(right or {}, Mapping):
            yield from differences(left or {}, right or {}, f"{place}{key}.")  # type: ignore[arg-type]
        else:
            yield f"{place}{key}", left, right
