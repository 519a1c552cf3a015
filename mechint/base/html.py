"""How objects show themselves in a notebook: small pieces of HTML that need no script and suit light and dark pages."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

# Vermilion of the figures, see-through, so that text keeps the page's own colour.
_STEERED, _PLAIN = "rgba(213, 94, 0, 0.16)", "rgba(127, 127, 127, 0.08)"
_EDGES = {True: "#D55E00", False: "#999999"}
_INK = "#0072B2"
_WIDTH, _HEIGHT = 180, 28  # pixels of a sparkline


def turn(role: str, text: str, *, steered: bool, note: str = "") -> str:
    """Return one message: coloured, and said to be so, if an intervention acts on it."""
    title = " · ".join(fact for fact in (role, "filled under the intervention" if steered else "", note) if fact)
    style = (
        f"background: {_STEERED if steered else _PLAIN}; border-left: 4px {'solid' if steered else 'dotted'} "
        f"{_EDGES[steered]}; padding: 4px 10px; margin: 3px 0; max-width: 60em; white-space: pre-wrap"
    )
    content = html.escape(text) if text else "<i>(empty)</i>"
    return f'<div style="{style}"><small><b>{html.escape(title)}</b></small><br>{content}</div>'


def heading(title: str, facts: Sequence[str] = ()) -> str:
    """Return a line with a bold title and facts after it, set apart by dots."""
    more = "".join(f" · {html.escape(fact)}" for fact in facts if fact)
    return f"<div><b>{html.escape(title)}</b>{more}</div>"


def table(rows: Mapping[str, str]) -> str:
    """Return names and values in two columns; values are HTML already."""
    cells = "".join(
        f'<tr><th style="text-align: left">{html.escape(name)}</th><td style="text-align: left">{value}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def sparkline(values: Mapping[int, float], n: int | None = None) -> str:
    """Return a curve of values by layer, with the first and last layer and the range said beside it.

    `n` is how many layers there are, if more than have a value; what has none leaves a gap.
    """
    finite = {layer: value for layer, value in values.items() if math.isfinite(value)}
    if not finite:
        return "<i>no values</i>"
    low, high = min(0.0, *finite.values()), max(finite.values())
    span, last = (high - low) or 1.0, max(1, (max(finite) + 1 if n is None else n) - 1)

    def point(layer: int) -> str:
        x, y = 3 + layer * (_WIDTH - 6) / last, _HEIGHT - 3 - (finite[layer] - low) / span * (_HEIGHT - 6)
        return f"{x:.1f},{y:.1f}"

    lines = "".join(
        f'<polyline points="{" ".join(map(point, run))}" fill="none" stroke="{_INK}" stroke-width="1.5"/>'
        if len(run) > 1
        else f'<circle cx="{point(run[0]).split(",")[0]}" cy="{point(run[0]).split(",")[1]}" r="2" fill="{_INK}"/>'
        for run in _runs(sorted(finite))
    )
    says = f"layers {spans(sorted(finite))}; {min(finite.values()):.3g} to {high:.3g}"
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{says}" '
        f'style="vertical-align: middle">{lines}</svg> <small>{says}</small>'
    )


def spans(numbers: Iterable[int]) -> str:
    """Return numbers in short: 1:4, 7 for 1, 2, 3, 7."""
    return ", ".join(f"{run[0]}:{run[-1] + 1}" if len(run) > 1 else str(run[0]) for run in _runs(sorted(numbers)))


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Return ascending numbers in runs without gaps."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
